"""What answers say of the host, of the program, and to web pages of others: nothing."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest

from appliance import __version__
from tests.support.api.answers import refused
from tests.support.api.exit_under_test import UNHURRIED, ExitUnderTest, on_exit

if TYPE_CHECKING:
    import httpx

ASKED = (
    *(("GET", path) for path in ("/", "/v1/regions", "/v1/usage", "/v1/sessions/x", "/schema", "/schema/openapi.json")),
    *(("GET", path) for path in ("/healthz", "/readyz", "/metrics", "/%2e%2e/etc/passwd", "/v1//sessions", "/\xff")),
    *((method, "/v1/sessions") for method in ("PUT", "PATCH", "HEAD", "TRACE", "OPTIONS", "BREW")),
)
PROGRAM = re.compile(r"uvicorn|litestar|h11|python|sqlite|Traceback|site-packages|\.py\b", re.IGNORECASE)


def text(answer: httpx.Response) -> str:
    return f"{answer.headers}\n{answer.text}"


@pytest.mark.parametrize(("method", "path"), ASKED)
@on_exit(UNHURRIED)
async def test_nothing_of_the_program(exit_: ExitUnderTest, method: str, path: str) -> None:
    """No answer, good or bad, names what serves it, or a path on the host, and only the API's document its version.

    None lets a page of another origin read it.
    """
    origin = {"Origin": "https://evil.example", "Access-Control-Request-Method": "POST"}
    answer = await exit_.http.request(method, path, headers=origin)
    assert answer.status_code < 500
    assert PROGRAM.search(text(answer)) is None
    assert (__version__ in text(answer)) == path.startswith("/schema")
    assert str(exit_.path.parent) not in text(answer)
    assert not {
        name for name in answer.headers if name.startswith("access-control-") or name in ("server", "set-cookie")
    }


REASONS = {
    "cannot note the host's sysctls in /var/lib/x/sysctls: full": "cannot note the host's sysctls in (a file): full",
    "wga0: cannot start it, logging to /tmp/a b: [Errno 2] No such file: '/usr/bin/x'": (
        "wga0: cannot start it, logging to (a file) b: [Errno 2] No such file: '(a file)'"
    ),
    "10.0.0.0/24 and fd00::/64 overlap: I/O error": "10.0.0.0/24 and fd00::/64 overlap: I/O error",
}


@pytest.mark.parametrize(("reason", "told"), REASONS.items(), ids=["a file", "more of them", "none"])
@on_exit()
async def test_reason_without_paths(
    exit_: ExitUnderTest, reason: str, told: str, caplog: pytest.LogCaptureFixture
) -> None:
    """/readyz gives the reason, but not where things lie on the host; the log has it whole."""
    exit_.egress.fault = reason
    await exit_.tick()
    refused(await exit_.http.get("/readyz"), 503, told)
    assert reason in caplog.text


@on_exit()
async def test_options_and_405_name_the_methods(exit_: ExitUnderTest) -> None:
    """OPTIONS and 405 name the methods that there are."""
    for path, methods in (
        ("/v1/sessions", {"GET", "POST"}),
        ("/v1/sessions/x", {"GET", "DELETE"}),
        ("/healthz", {"GET"}),
    ):
        for answer in (await exit_.http.options(path), await exit_.http.put(path)):
            assert set(answer.headers["allow"].split(", ")) == {*methods, "HEAD", "OPTIONS"}
