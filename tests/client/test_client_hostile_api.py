"""What an API says that is not well disposed: orders to the terminal, and values of no kind that was asked for."""

from __future__ import annotations

import io
import json
import socket
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pytest

from appliance.client.api.http import Answer
from appliance.client.api.responses import Again, OpenedSession, Refusal, on_opening, on_status
from appliance.client.run_totals import RunTotals
from appliance.client.terminal import printable
from appliance.client.ui.screen import JsonLines, PlainLines, Terminal
from appliance.client.ui.status_text import Traffic, View
from appliance.domain.errors import HostError
from tests.support.client.scripted_api import OPENED, QUOTA_EXCEEDED, SESSION, serving

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Callable, Iterator, Mapping

    from appliance.client.ui.screen import Screen
    from tests.support.client.scripted_api import ScriptedApi

    Run = Callable[..., subprocess.CompletedProcess[str]]

# A window's title, the screen emptied, a line written over, colour by a C1 control, directions of writing, DEL.
ORDERS = "\x1b]0;title\a\x1b[2J\r\nfake\x9b31m\u202e\u2066\x7f\u2028"
POST = "POST /v1/sessions"


@contextmanager
def answering(body: bytes) -> Iterator[str]:
    """An API that answers 200 with these bytes. Yields its URL."""
    head = f"HTTP/1.1 200 OK\r\nContent-Length: {len(body)}\r\n\r\n".encode()

    def serve() -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:  # the test has ended
                return
            with connection:
                while b"\r\n\r\n" not in connection.recv(65536):
                    pass
                connection.sendall(head + body)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            thread.join()


def orders_in(text: str) -> set[str]:
    return {each for each in text if not each.isprintable()} - {"\n"}


def test_control_characters_are_escaped() -> None:
    """Orders are escaped, and ends of lines; letters, arrows and blocks stay, where the encoding has them."""
    assert printable("a\x1b[31m\r\n\a\x9b\u202e\x7f") == r"a\x1b[31m\r\n\x07\x9b\u202e\x7f"
    assert printable("Köln ↓ █") == "Köln ↓ █"
    assert printable("Köln ↓", "latin-1") == r"Köln \u2193"


@pytest.mark.parametrize(
    ("request_", "arguments", "status", "body"),
    [
        (POST, ("fsn", "--config-only"), 400, {"error": ORDERS}),
        (POST, ("fsn", "--config-only"), 402, QUOTA_EXCEEDED | {"hint": ORDERS}),
        (POST, ("fsn", "--config-only"), 503, {"error": ORDERS, "available": [ORDERS]}),
        (POST, ("fsn", "--config-only"), 201, OPENED | {"wg_config": ORDERS.replace("\n", "")}),
        ("GET /v1/regions", ("--config-only",), 200, {"regions": [{"code": ORDERS, "node_count": 1}] * 2}),
        ("GET /v1/usage", ("--usage",), 200, {"tier": ORDERS, ORDERS: 1}),
        ("GET /v1/usage", ("--usage", "--json"), 200, {"tier": ORDERS, ORDERS: 1}),
    ],
)
def test_orders_to_the_terminal(
    api: ScriptedApi, run: Run, request_: str, arguments: tuple[str, ...], status: int, body: dict[str, object]
) -> None:
    """Whatever the answer has of them, the terminal is shown their names."""
    api.answers(request_, status, body)
    done = run("connect", *arguments)
    assert orders_in(done.stdout + done.stderr) == set()
    assert "fake" in done.stdout + done.stderr
    assert not any(line.startswith("fake") for line in (done.stdout + done.stderr).splitlines())


@pytest.mark.parametrize("number", [b"NaN", b"Infinity", b"-Infinity", b"1e999", b"9" * 5000])
def test_what_is_no_number_of_json(number: bytes, run: Run) -> None:
    """Python reads some of them, and would write them: no other program could read our JSON then."""
    with answering(b'{"tier": "free", "later": ' + number + b"}") as url:
        for words in (("--usage", "--json"), ("--status", "ses_1", "--json")):
            done = run("connect", *words, WG_APPLIANCE_API=url)
            assert (done.returncode, done.stdout, done.stderr.count("\n")) == (1, "", 1)
            assert "is it this appliance that answers?" in done.stderr


@pytest.mark.parametrize("currency", ["\ufdfa" * 4000, "EUR", "", "eu\n", 7])
def test_what_is_no_currency(currency: object) -> None:
    """It would be shown beside every price."""
    answer = Answer(200, SESSION | {"cost_time_millicents": 1, "cost_currency": currency})
    found = on_status(answer, 1)
    assert isinstance(found, Again)
    assert "an invalid cost_currency" in found.why


def test_a_thousand_regions_are_named_in_short(api: ScriptedApi, run: Run) -> None:
    """Where one has to be chosen, the line fits on a terminal."""
    api.answers("GET /v1/regions", 200, {"regions": [{"code": "x" * 30, "node_count": 1}] * 1000})
    done = run("connect", "--config-only")
    assert (done.returncode, len(done.stderr) < 1000) == (2, True)


def test_orders_in_a_table(api: ScriptedApi, run: Run) -> None:
    """A region is a line of its table."""
    api.answers("GET /v1/regions", 200, {"regions": [{"code": ORDERS, "node_count": 1}]})
    done = run("regions")
    assert (orders_in(done.stdout), done.stdout.count("\n")) == (set(), 2)


def show_all(screen: Screen, session: Mapping[str, Any] = SESSION) -> None:
    opened = OpenedSession(**{name: str(value) + ORDERS for name, value in OPENED.items()})
    session = {**session, "id": ORDERS, "terminated_reason": ORDERS}
    screen.connected(opened, ORDERS, "wgc0", "Ctrl-C ends it")
    screen.status(View("ses_1", ORDERS, ORDERS, 1, Traffic(1, 1, 1, 1, 1), session, ORDERS))
    screen.remark(ORDERS)
    screen.receipt(1, session, RunTotals().plus(session))
    screen.close()


def test_orders_on_the_screen() -> None:
    """In plain lines there are none; on a terminal none but those of the line that renews itself."""
    out = io.StringIO()
    show_all(PlainLines(out, out))
    assert (orders_in(out.getvalue()), out.getvalue().count("fake") > 5) == (set(), True)

    terminal = io.TextIOWrapper(io.BytesIO(), encoding="utf-8", newline="")
    show_all(Terminal(terminal))
    terminal.seek(0)
    shown = terminal.read()
    assert "fake" in shown
    assert orders_in(shown) <= {"\x1b", "\r"}
    assert not any(order in shown for order in ("\x1b]", "\x1b[2J", "\r\nfake"))


def test_control_characters_are_escaped_in_json() -> None:
    """They are escaped as JSON escapes them: each line is an object still."""
    out = io.StringIO()
    show_all(JsonLines(out))
    assert orders_in(out.getvalue()) == set()
    assert [json.loads(line)["event"] for line in out.getvalue().splitlines()] == [
        "connected",
        "status",
        "remark",
        "receipt",
    ]
    assert json.loads(out.getvalue().splitlines()[2])["text"] == ORDERS


OTHERS = [True, -1, 1.5, 2**63, [], {}, {"x": 1}]
WRONG = [None, "x", [1], *OTHERS]


@pytest.mark.parametrize("value", WRONG, ids=repr)
@pytest.mark.parametrize(("status", "body"), [(201, OPENED), (402, QUOTA_EXCEEDED)])
def test_wrong_types_in_what_opens(status: int, body: dict[str, object], value: object) -> None:
    """Each field in turn: a session or a refusal, or one line that names it; never anything else."""
    for name in body:
        answer = Answer(status, {**body, name: value})
        fits = (
            type(value) is type(body[name])
            and value not in (-1, 2**63)
            and (status != 201 or name in ("wg_config", "tier"))
        )
        if fits or name in ("error", "resets_at"):
            assert isinstance(on_opening(answer, 1), OpenedSession | Refusal)
        else:
            with pytest.raises(HostError, match=f"the API's answer has an invalid {name}; is it this appliance"):
                on_opening(answer, 1)


@pytest.mark.parametrize("value", WRONG, ids=repr)
def test_wrong_types_in_a_status(value: object) -> None:
    """Each field in turn: what is shown can be shown, or the API is asked again, and the tunnel left alone."""
    session = SESSION | {"cost_time_millicents": 1, "cost_bytes_millicents": 1, "cost_currency": "eur"}
    for name in (*session, "terminated_reason"):
        found = on_status(Answer(200, session | {name: value}), 1)
        if isinstance(found, Again):
            assert f"the API's answer has an invalid {name}" in found.why
        else:
            show_all(PlainLines(io.StringIO(), io.StringIO()), session | found.session)


@pytest.mark.parametrize(
    "value", [None, "x", [1], *(pytest.param(value, marks=pytest.mark.long) for value in OTHERS)], ids=repr
)
def test_wrong_types_in_other_answers_have_no_traceback(api: ScriptedApi, run: Run, value: object) -> None:
    """No answer has a traceback."""
    api.answers("GET /v1/regions", 200, {"regions": value})
    api.answers("GET /v1/regions", 200, {"regions": [value]})
    api.answers("GET /v1/regions", 200, {"regions": [{"code": value, "node_count": value}]})
    api.answers("GET /v1/usage", 200, {"tier": value})
    api.answers(POST, 503, {"error": value, "available": value}, Retry_After="999")
    for arguments in 3 * [("regions",)] + [("connect", "--usage"), ("connect", "fsn", "--config-only")]:
        done = run(*arguments)
        assert "Traceback" not in done.stderr
        assert done.returncode in (0, 1)
        assert done.returncode == 0 or done.stderr.startswith("wg-appliance: error: ")


def test_a_deeply_nested_answer_is_none(run: Run) -> None:
    """Deeper than can be read: no answer of the API's."""
    with serving() as deep, pytest.MonkeyPatch.context() as patched:
        patched.setattr("tests.support.client.scripted_api.json.dumps", lambda _: "[" * 500_000)
        deep.answers("GET /v1/usage", 200, {})
        done = run("connect", "--usage", WG_APPLIANCE_API=deep.url)
    assert done.stderr == "wg-appliance: error: the API's answer has no tier; is it this appliance that answers?\n"
