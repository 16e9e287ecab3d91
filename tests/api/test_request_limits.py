"""Who may ask how often: by source without a token that counts, by token with one. Time is the test's."""

from __future__ import annotations

import asyncio
import tracemalloc
from typing import TYPE_CHECKING, Any, cast

import pytest
from throttled import utils as throttled_clock

from appliance.config.load import parse_settings
from appliance.domain.errors import TooManyRequests
from appliance.domain.tiers import Tier
from appliance.server.api.client_address import Sources
from appliance.server.api.rate_limits import MOST_KEPT, RequestLimits
from tests.support.api.answers import refused
from tests.support.api.exit_under_test import CONFIG, Client, ExitUnderTest, caller, on_exit

if TYPE_CHECKING:
    from collections.abc import Callable

    import httpx
    from litestar.types import Scope

    from appliance.domain.entities import Account

BURST = 10  # public_burst; then one a second
PER_TOKEN = {Tier.ANONYMOUS: 60, Tier.FREE: 120, Tier.PAID: 600}
UNKNOWN = {"Authorization": "Bearer wga_1"}


class Seconds:
    """The limits' clock."""

    now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture(autouse=True)
def seconds(monkeypatch: pytest.MonkeyPatch) -> Seconds:
    clock = Seconds()
    monkeypatch.setattr(throttled_clock, "now_mono_f", clock)
    return clock


def held_up(answer: httpx.Response, after: int = 1) -> None:
    refused(answer, 429, "too many requests")
    assert answer.headers["retry-after"] == str(after)


@on_exit()
async def test_a_burst_of_ten_then_one_a_second_is_allowed(exit_: ExitUnderTest, seconds: Seconds) -> None:
    """Ten at once, then one a second; what was not used is there again later, and never more than ten."""
    for _ in range(BURST):
        assert (await exit_.http.get("/v1/regions")).status_code == 200
    held_up(await exit_.http.get("/v1/regions"))
    seconds.now += 0.9
    held_up(await exit_.http.get("/v1/regions"))
    seconds.now += 0.1
    assert (await exit_.http.get("/v1/regions")).status_code == 200
    held_up(await exit_.http.get("/v1/regions"))
    seconds.now += 3600
    got = [(await exit_.http.get("/v1/regions")).status_code for _ in range(BURST + 2)]
    assert got == [200] * BURST + [429] * 2


@on_exit("[api]\npublic_requests_per_minute = 6\npublic_burst = 1\n")
async def test_retry_after_is_when_one_more_is_allowed(exit_: ExitUnderTest, seconds: Seconds) -> None:
    """Retry-After is when one more is allowed, with and without a token: then it is, and not before."""
    assert (await exit_.http.get("/v1/regions")).status_code == 200
    held_up(await exit_.http.get("/v1/regions"), after=10)
    held_up(await exit_.http.get("/v1/usage", headers=UNKNOWN), after=10)
    seconds.now += 8.5
    held_up(await exit_.http.get("/v1/usage", headers=UNKNOWN), after=2)
    seconds.now += 1.5
    refused(await exit_.http.get("/v1/usage", headers=UNKNOWN), 401)


@on_exit()
async def test_everything_public_counts(exit_: ExitUnderTest) -> None:
    """All that anybody may ask uses up the same allowance: public answers, refused tokens, what there is not."""
    ada = await exit_.client()
    await ada.open()
    for method, path, headers in (
        ("GET", "/v1/regions", {}),
        ("GET", "/v1/sessions", {}),
        ("GET", "/v1/usage", UNKNOWN),
        ("POST", "/v1/sessions", UNKNOWN),
        ("DELETE", "/v1/sessions/ses_1", {"Authorization": "Basic YTpi"}),
        ("GET", "/nothing", {}),
        ("PUT", "/v1/sessions", {}),
        ("GET", "/nothing", ada.headers),
        ("GET", "/metrics", {}),
        ("GET", "/%00", {}),
    ):
        assert (await exit_.http.request(method, path, headers=headers)).status_code in (200, 401, 404, 405)
    for method, path in (("GET", "/v1/regions"), ("GET", "/v1/usage"), ("GET", "/nothing"), ("PUT", "/v1/sessions")):
        held_up(await exit_.http.request(method, path, headers=UNKNOWN))


@pytest.mark.parametrize("path", ["/v1/sessions", "/v1/sessions/ses_1", "/v1/usage", "/v1/regions", "/schema"])
@on_exit()
async def test_options_counts_at_every_path(exit_: ExitUnderTest, path: str) -> None:
    """OPTIONS counts like any question that needs no token, at every path."""
    for _ in range(BURST):
        assert (await exit_.http.options(path)).status_code == 204
    held_up(await exit_.http.options(path))
    held_up(await exit_.http.get("/v1/regions"))


@on_exit()
async def test_health_and_document_count_for_nothing(exit_: ExitUnderTest) -> None:
    """Health, readiness and the document are answered however often, and count for nothing."""
    for path in ("/healthz", "/readyz", "/schema/openapi.json"):
        for _ in range(3 * BURST):
            assert (await exit_.http.get(path)).status_code == 200
    assert (await exit_.http.get("/v1/regions")).status_code == 200


@on_exit()
async def test_a_limited_source_is_refused_before_any_work(exit_: ExitUnderTest) -> None:
    """Of a source that has used up its allowance no token is looked up, and no body is read."""
    ada, eve = await exit_.client(), await exit_.client("eve")
    await ada.get("/v1/usage")
    for _ in range(BURST):
        refused(await exit_.http.get("/v1/usage", headers=UNKNOWN), 401, "invalid token")
    before = exit_.holdings()
    exit_.parts.tokens.account_of = unasked  # type: ignore[method-assign]  # to see that it is not called
    held_up(await exit_.http.post("/v1/sessions", content=b"x" * 200_000, headers=UNKNOWN))
    held_up(await eve.get("/v1/usage"))
    assert exit_.holdings() == before
    assert (await ada.get("/v1/usage")).status_code == 200, "a token that is remembered is not held up by neighbours"


@on_exit()
async def test_guesses_at_once_are_limited_together(exit_: ExitUnderTest) -> None:
    """However many guesses of a source come at once, no more are looked up than it may ask; a token that counts is
    served among them."""
    ada = await exit_.client()
    looked_up, account_of = [0], exit_.parts.tokens.account_of

    async def counted(token_hash: bytes) -> Account | None:
        looked_up[0] += 1
        return await account_of(token_hash)

    exit_.parts.tokens.account_of = counted  # type: ignore[method-assign]  # to see how often it is called
    headers = [ada.headers, *({"Authorization": f"Bearer wga_{guess}"} for guess in range(5 * BURST))]
    answers = await asyncio.gather(*(exit_.http.get("/v1/usage", headers=each) for each in headers))
    assert [answer.status_code for answer in answers] == [200, *[401] * BURST, *[429] * 4 * BURST]
    assert looked_up == [1 + BURST]


async def unasked(_: bytes) -> Any:
    raise AssertionError("a token was looked up")


@on_exit()
async def test_sources_are_apart(exit_: ExitUnderTest) -> None:
    """One source's flood is its own; a header of its own making changes nothing."""
    async with caller(exit_.app, ("192.0.2.7", 1)) as loud, caller(exit_.app, ("192.0.2.8", 1)) as other:
        for n in range(BURST):
            await loud.get("/v1/regions", headers={"X-Forwarded-For": f"203.0.113.{n}"})
        held_up(await loud.get("/v1/regions", headers={"X-Forwarded-For": "203.0.113.99"}))
        assert (await other.get("/v1/regions")).status_code == 200


@on_exit('[api]\ntrusted_proxies = ["192.0.2.7/32"]\n')
async def test_behind_a_proxy(exit_: ExitUnderTest) -> None:
    """A trusted proxy's clients are counted each by itself, and so are those behind a Unix socket."""
    for peer in (("192.0.2.7", 1), None):
        async with caller(exit_.app, peer) as proxy:
            for _ in range(BURST):
                await proxy.get("/v1/regions", headers={"X-Forwarded-For": f"192.0.2.1, 203.0.113.{peer is None:d}"})
            held_up(await proxy.get("/v1/regions", headers={"X-Forwarded-For": f"203.0.113.{peer is None:d}"}))
            assert (await proxy.get("/v1/regions", headers={"X-Forwarded-For": "203.0.113.9"})).status_code == 200


@pytest.mark.parametrize("tier", Tier)
@on_exit()
async def test_a_token_may_ask_what_its_tier_says(exit_: ExitUnderTest, tier: Tier, seconds: Seconds) -> None:
    """A token may ask what its tier says a minute, and all of it at once; from any source; before the body is read."""
    ada, allowed = await exit_.client(tier=tier), PER_TOKEN[tier]
    for _ in range(allowed):
        assert (await ada.get("/v1/sessions/ses_1")).status_code == 404
    held_up(await ada.get("/v1/usage"))
    held_up(await ada.post({"region": 7}))
    async with caller(exit_.app, ("192.0.2.7", 1)) as elsewhere:
        held_up(await elsewhere.get("/v1/usage", headers=ada.headers))
    other = Client(exit_, ada.account, await exit_.token(ada.account))
    assert (await other.get("/v1/usage")).status_code == 200, "another token of the account is counted by itself"
    seconds.now += 60 / allowed
    assert (await ada.get("/v1/usage")).status_code == 200
    held_up(await ada.get("/v1/usage"))


@on_exit("[tiers.paid]\nrequests_per_minute = 2\n")
async def test_a_changed_limit_holds_from_the_next_request(exit_: ExitUnderTest, seconds: Seconds) -> None:
    """A tier's limit that was changed holds from the next request on, and what was asked before still counts."""
    ada = await exit_.client()
    assert [(await ada.get("/v1/usage")).status_code for _ in range(3)] == [200, 200, 429]
    exit_.parts.services.terms.take_over(
        parse_settings(CONFIG + "[tiers.paid]\nrequests_per_minute = 600\n", {}, "host")
    )
    held_up(await ada.get("/v1/usage"))
    seconds.now += 0.1
    assert (await ada.get("/v1/usage")).status_code == 200


@on_exit(f"[api]\npublic_requests_per_minute = {2**63 - 1}\npublic_burst = {2**63 - 1}\n")
async def test_as_good_as_none(exit_: ExitUnderTest) -> None:
    """The largest numbers that the configuration takes are no limit."""
    for _ in range(5 * BURST):
        assert (await exit_.http.get("/v1/regions")).status_code == 200


def test_memory_is_bounded(show: Callable[[str], None]) -> None:
    """However many sources there are, the latest are kept; one that goes on asking is kept among them."""
    limits = RequestLimits(60, BURST, Sources())

    def ask(number: int) -> None:
        limits.count_source(
            cast("Scope", {"client": (f"2001:db8:{number >> 16:x}:{number & 0xFFFF:x}::1", 1), "headers": []})
        )

    tracemalloc.start()
    try:
        for number in range(MOST_KEPT):
            ask(number)
        full, _ = tracemalloc.get_traced_memory()
        denied = 0
        for number in range(MOST_KEPT, 2 * MOST_KEPT):
            ask(number)
            if number % 100 == 0:
                try:
                    ask(0)
                except TooManyRequests:
                    denied += 1
        after, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    show(f"{MOST_KEPT} sources take {full // 1024} KiB, after {2 * MOST_KEPT} of them {after // 1024} KiB")
    assert after < full * 2
    assert denied == MOST_KEPT // 100 - BURST + 1
