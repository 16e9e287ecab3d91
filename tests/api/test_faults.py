"""When the tunnel or the store fails in the middle of a request: the answer, nothing left, and back to work."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

import pytest

from appliance.domain.errors import InvalidToken, TunnelError
from appliance.network.wireguard.tunnel import RemovePeer
from appliance.server.api.app import create_app
from appliance.server.api.client_address import Sources
from appliance.server.api.rate_limits import RequestLimits
from appliance.sessions.opening import SessionRequest
from tests.support.api.answers import refused
from tests.support.api.exit_under_test import (
    IMPATIENT,
    Client,
    ExitUnderTest,
    caller,
    new_key,
    on_exit,
    stranger,
    until,
)

if TYPE_CHECKING:
    import httpx

APPLY_FAILED = "peer apply failed; node may be disconnected"


async def waiting_at_the_tunnel(exit_: ExitUnderTest, ada: Client, **fields: object) -> asyncio.Task[httpx.Response]:
    """A POST that has been admitted and waits for the tunnel, whose gate the caller opens."""
    exit_.tunnel.gate.clear()
    asking = asyncio.create_task(ada.post(**fields))
    await until(lambda: exit_.tunnel.waiting, "the request is admitted")
    return asking


@on_exit()
async def test_a_refused_peer_is_503_and_leaves_nothing(exit_: ExitUnderTest) -> None:
    """A peer that the tunnel refuses: 503, nothing left, and the next request succeeds."""
    ada = await exit_.client()
    before = exit_.holdings()
    exit_.tunnel.fail_next(TunnelError("no"))
    refused(await ada.post(), 503, APPLY_FAILED)
    assert exit_.holdings() == before
    await ada.open()


@on_exit()
async def test_a_half_applied_peer_is_taken_back(exit_: ExitUnderTest) -> None:
    """A peer that was put in place although the tunnel then failed is taken back."""
    ada = await exit_.client()
    text, raw = new_key()
    asking = await waiting_at_the_tunnel(exit_, ada, client_public_key=text)
    exit_.tunnel.interface.peers[raw] = stranger(raw)
    exit_.tunnel.fail_next(TunnelError("late"))
    exit_.tunnel.gate.set()
    refused(await asking, 503, APPLY_FAILED)
    assert RemovePeer(raw) in exit_.tunnel.applied
    assert not exit_.tunnel.peers


@on_exit(environ=IMPATIENT)
async def test_a_hanging_tunnel_is_503_after_the_timeout(exit_: ExitUnderTest) -> None:
    """A tunnel that does not answer: 503 after the timeout, and nothing left once it answers again."""
    ada = await exit_.client()
    before = exit_.holdings()
    exit_.tunnel.gate.clear()
    async with asyncio.timeout(60):
        refused(await ada.post(), 503, APPLY_FAILED)
    exit_.tunnel.gate.set()
    await exit_.tick()
    assert exit_.holdings() == before
    await ada.open()


@on_exit()
async def test_a_lost_interface_is_503_and_made_again(exit_: ExitUnderTest) -> None:
    """Somebody deleted the interface: 503; the next tick makes it again, and nothing is left."""
    ada = await exit_.client()
    before = exit_.holdings()
    exit_.tunnel.vanish()
    refused(await ada.post(), 503, APPLY_FAILED)
    assert exit_.rows("SELECT id FROM sessions") == []
    assert exit_.parts.wakeup.pending
    await exit_.tick()
    assert exit_.holdings() == before
    await ada.open()


@on_exit()
async def test_three_failures_in_a_row(exit_: ExitUnderTest) -> None:
    """They make the node inactive: no region is left, sessions are refused at once; 10 s later it is tried again."""
    ada = await exit_.client()
    opened = await ada.open()
    for _ in range(2):
        exit_.tunnel.fail_next(TunnelError("no"))
        refused(await ada.post(), 503, APPLY_FAILED)
    await ada.open()  # in between, one succeeds: the row starts again
    for _ in range(3):
        assert (await exit_.http.get("/v1/regions")).json() == {"regions": [{"code": "fsn", "node_count": 1}]}
        exit_.tunnel.fail_next(TunnelError("no"))
        refused(await ada.post(), 503, APPLY_FAILED)
    assert (await exit_.http.get("/v1/regions")).json() == {"regions": []}
    refused(await ada.post(), 503, "no active nodes")
    await exit_.tick(after=9)
    refused(await ada.post(), 503, "no active nodes")
    assert (await ada.delete(opened["id"])).status_code == 200
    await exit_.tick(after=1)
    await ada.open()


@on_exit()
async def test_readiness_makes_inactive(exit_: ExitUnderTest) -> None:
    """A tick that fails makes the node inactive and /readyz say why; one that succeeds takes both back."""
    ada = await exit_.client()
    exit_.egress.fault = "nft refused the rules"
    await exit_.tick(after=10)
    refused(await ada.post(), 503, "no active nodes")
    refused(await exit_.http.get("/readyz"), 503, "nft refused the rules")
    assert (await exit_.http.get("/healthz")).status_code == 200
    exit_.egress.fault = None
    await exit_.tick(after=10)
    assert (await exit_.http.get("/readyz")).json() == {"status": "ok"}
    await ada.open()


@on_exit()
async def test_a_locked_store_refuses_writes_and_answers_reads(exit_: ExitUnderTest) -> None:
    """Another process holds the store: what writes is refused, what reads is answered; then all works again."""
    ada = await exit_.client()
    opened = await ada.open()
    before = exit_.holdings()
    with exit_.locked():
        refused(await ada.post(), 503, "store unavailable")
        assert (await ada.status(opened["id"]))["id"] == opened["id"]
    await exit_.tick()
    assert exit_.holdings() == before
    await ada.open()


@on_exit()
async def test_store_fails_at_the_end(exit_: ExitUnderTest) -> None:
    """The peer is in, and the store does not take the session: 503, the peer goes, the row and the address follow."""
    ada = await exit_.client()
    before = exit_.holdings()
    asking = await waiting_at_the_tunnel(exit_, ada)
    with exit_.locked():
        exit_.tunnel.gate.set()
        refused(await asking, 503, "store unavailable")
        assert not exit_.tunnel.peers
        refused(await ada.post(), 503, "store unavailable")
    await exit_.tick()
    assert exit_.holdings() == before


@on_exit('subnet = "10.101.0.0/30"\n')
async def test_next_request_clears_up(exit_: ExitUnderTest) -> None:
    """What a failed request left in the store does not keep the next one from the address, tick or no tick."""
    ada = await exit_.client()
    asking = await waiting_at_the_tunnel(exit_, ada)
    with exit_.locked():
        exit_.tunnel.gate.set()
        refused(await asking, 503, "store unavailable")
    await ada.open()


@on_exit()
async def test_delete_with_the_store_locked(exit_: ExitUnderTest) -> None:
    """A session that cannot be ended in the store is not: it is live again after a tick, and ends when asked again."""
    ada = await exit_.client()
    opened = await ada.open()
    raw = exit_.key_of(opened["id"])
    exit_.tunnel.add_traffic(raw, rx=11)
    await exit_.tick()
    with exit_.locked():
        refused(await ada.delete(opened["id"]), 503, "store unavailable")
    await exit_.tick()
    assert exit_.state_of(opened["id"]) == ("live", None)
    assert set(exit_.tunnel.peers) == {raw}
    ended = await ada.delete(opened["id"])
    assert (ended.status_code, ended.json()["bytes_in"]) == (200, 11)


@on_exit()
async def test_delete_with_the_tunnel_failing(exit_: ExitUnderTest) -> None:
    """The peer could not be removed: 503, and it is ended by the next tick that can, for the reason asked for."""
    ada = await exit_.client()
    opened = await ada.open()
    exit_.tunnel.fail_next(TunnelError("no"))
    refused(await ada.delete(opened["id"]), 503, APPLY_FAILED)
    assert exit_.state_of(opened["id"]) == ("closing", "closed")
    assert "terminated_at" not in await ada.status(opened["id"])
    await exit_.tick()
    assert exit_.state_of(opened["id"]) == ("terminated", "closed")
    assert not exit_.tunnel.peers
    assert exit_.parts.pool.in_use == 0


CHANGED_MEANWHILE = {
    "disabled": ("UPDATE accounts SET disabled = 1", 401, "invalid token"),
    "deleted": ("UPDATE accounts SET deleted_at = 1", 401, "invalid token"),
    "drained": ("UPDATE node SET drained = 1", 503, "no active nodes"),
}


@pytest.mark.parametrize(("change", "status", "message"), CHANGED_MEANWHILE.values(), ids=CHANGED_MEANWHILE)
@on_exit()
async def test_admin_comes_in_between(exit_: ExitUnderTest, change: str, status: int, message: str) -> None:
    """An admin command that ends while the peer is being applied counts: the session does not come to be."""
    ada = await exit_.client()
    before = exit_.holdings()
    asking = await waiting_at_the_tunnel(exit_, ada)
    await exit_.admin(change)
    exit_.tunnel.gate.set()
    refused(await asking, status, message)
    assert exit_.holdings() == before
    assert exit_.parts.node.active, "the exit is not at fault"


@pytest.mark.parametrize("change", ["UPDATE accounts SET disabled = 1", "UPDATE accounts SET deleted_at = 1"])
@on_exit()
async def test_account_gone_since_its_token_was_looked_up(exit_: ExitUnderTest, change: str) -> None:
    """The account is looked at again where the session is decided: no peer is put in place for one that is gone."""
    ada = await exit_.client()
    await exit_.admin(change)
    before = exit_.holdings()
    with pytest.raises(InvalidToken):
        await exit_.parts.services.sessions.open(ada.account, SessionRequest("fsn"))
    assert exit_.holdings() == before
    assert exit_.tunnel.applied == []


@on_exit()
async def test_a_fault_that_lasts(exit_: ExitUnderTest) -> None:
    """The interface may have gone, so all is looked at again at once; after that no sooner than ticks come anyway."""
    ticker, wakeup = exit_.parts.ticker, exit_.parts.wakeup
    await exit_.tick()
    exit_.egress.fault = "no rules today"
    await ticker.tick(whole=False)
    assert wakeup.pending
    assert await wakeup.wait(lambda: 0)
    for _ in range(3):
        await exit_.tick(after=1)
        assert not wakeup.pending
    assert ticker.failed_ticks == 4
    exit_.egress.fault = None
    await exit_.tick(after=1)
    assert ticker.failed_ticks == 4


@on_exit()
async def test_an_unexpected_fault_is_500_and_logged(exit_: ExitUnderTest, caplog: pytest.LogCaptureFixture) -> None:
    """A fault of our own is 500 `internal error`: the cause is in the log, and nothing of it in the answer."""

    async def broken(_: object) -> None:
        raise ZeroDivisionError("the secret of the house")

    app = create_app(
        exit_.parts.services,
        authenticate=broken,  # type: ignore[arg-type]  # what never happens
        limits=RequestLimits(60, 10, Sources()),
        own_keys=frozenset(),
        clock=exit_.clock,
        max_body=1000,
    )
    async with caller(app) as http:
        for method, path in (("POST", "/v1/sessions"), ("GET", "/v1/sessions/ses_1")):
            answer = await http.request(method, path)
            refused(answer, 500, "internal error")
            assert "secret" not in str(answer.headers)
    errors = [record for record in caplog.records if record.levelno >= logging.ERROR]
    assert len(errors) == 2
    assert "ZeroDivisionError: the secret of the house" in caplog.text


UNKNOWN = ("/v1", "/v2/sessions", "/v1/sessions/ses_1/more", "/metrics", "/docs/x", "/schema/docs", "/%00")


@pytest.mark.parametrize("path", UNKNOWN)
@on_exit()
async def test_an_unknown_path_is_404(exit_: ExitUnderTest, path: str) -> None:
    """404 in our shape, whoever asks; the operator's metrics are not among the API's paths."""
    for method in ("GET", "POST", "PUT"):
        refused(await exit_.http.request(method, path), 404, "not found")


METHODS = {
    "/v1/sessions": {"GET", "POST"},
    "/v1/sessions/ses_1": {"GET", "DELETE"},
    "/v1/regions": {"GET"},
    "/healthz": {"GET"},
    "/readyz": {"GET"},
}


@pytest.mark.parametrize(("path", "allowed"), METHODS.items(), ids=METHODS)
@on_exit()
async def test_an_unknown_method_is_405(exit_: ExitUnderTest, path: str, allowed: set[str]) -> None:
    """405 in our shape, with the methods there are in Allow."""
    for method in {"GET", "POST", "PUT", "PATCH", "DELETE"} - allowed:
        answer = await exit_.http.request(method, path)
        refused(answer, 405, "method not allowed")
        assert allowed <= {name.strip() for name in answer.headers["allow"].split(",")}
