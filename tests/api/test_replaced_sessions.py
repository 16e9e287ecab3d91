"""The same account with the same key: the new session takes over from the old one."""

from __future__ import annotations

import asyncio

import pytest
from msgspec import structs

from appliance.domain.errors import TunnelError
from appliance.network.wireguard.tunnel import PutPeer, RemovePeer
from tests.support.api.answers import refused
from tests.support.api.exit_under_test import ExitUnderTest, new_key, on_exit, until
from tests.support.api.wayward_tunnel import WaywardTunnel


def figures(status: dict[str, object]) -> tuple[object, object]:
    return status["bytes_in"], status["bytes_out"]


@on_exit()
async def test_bytes_split_at_the_switch(exit_: ExitUnderTest) -> None:
    """What moved before belongs to the old session, what moves afterwards to the new one."""
    ada = await exit_.client()
    text, raw = new_key()
    old = await ada.open(client_public_key=text)
    exit_.tunnel.add_traffic(raw, rx=100, tx=10)
    await exit_.tick()
    exit_.tunnel.add_traffic(raw, rx=23, tx=4)
    new = await ada.open(client_public_key=text)
    exit_.tunnel.add_traffic(raw, rx=1000, tx=2000)
    await exit_.tick(after=10)
    assert figures(await ada.status(old["id"])) == (123, 14)
    assert figures(await ada.status(new["id"])) == (1000, 2000)


@on_exit()
async def test_the_peer_of_a_replaced_session_stays(exit_: ExitUnderTest) -> None:
    """The tunnel of a client that asks again does not drop: its peer is never removed nor made anew."""
    ada = await exit_.client()
    text, raw = new_key()
    await ada.open(client_public_key=text)
    exit_.tunnel.add_traffic(raw, rx=5, handshake_ns=exit_.clock.wall_ms * 10**6)
    exit_.tunnel.applied.clear()
    await ada.open(client_public_key=text)
    await exit_.tick()
    assert all(isinstance(change, PutPeer) and not change.fresh for change in exit_.tunnel.applied)
    assert exit_.tunnel.peers[raw].rx_bytes == 5


@on_exit()
async def test_handshake_of_the_old_session(exit_: ExitUnderTest) -> None:
    """The new session has had no handshake of its own yet; the next change is its first."""
    ada = await exit_.client()
    text, raw = new_key()
    await ada.open(client_public_key=text)
    exit_.tunnel.add_traffic(raw, handshake_ns=exit_.clock.wall_ms * 10**6)
    new = await ada.open(client_public_key=text)
    await exit_.tick(after=10)
    assert "last_handshake_at" not in await ada.status(new["id"])
    exit_.tunnel.add_traffic(raw, handshake_ns=exit_.clock.wall_ms * 10**6)
    await exit_.tick(after=10)
    assert "last_handshake_at" in await ada.status(new["id"])


@on_exit()
async def test_replacing_without_ipv6(exit_: ExitUnderTest) -> None:
    """The new session's allowed-ips are its own. When it ends, what the old one had going over IPv6 ends too."""
    ada = await exit_.client()
    text, raw = new_key()
    await ada.open(client_public_key=text)
    new = await ada.open(client_public_key=text, ipv6=False)
    assert {len(p.address) for p in exit_.tunnel.peers[raw].allowed_ips} == {4}
    assert (await ada.delete(new["id"])).status_code == 200
    assert exit_.egress.forgotten == [["10.101.0.2", "fd65:7869:7400::2"]]


@pytest.mark.parametrize("failing", ["apply", "dump", "gone"])
@on_exit(tunnel=WaywardTunnel)
async def test_a_failed_replacement_keeps_the_old_session(exit_: ExitUnderTest, failing: str) -> None:
    """Where the new session does not come to be, the old one stays live, with its peer and its figures."""
    ada = await exit_.client()
    text, raw = new_key()
    old = await ada.open(client_public_key=text)
    exit_.tunnel.add_traffic(raw, rx=7, tx=8)
    await exit_.tick()
    before = exit_.holdings()
    if failing == "apply":
        exit_.tunnel.fail_next(TunnelError("no"))
    elif failing == "dump":
        exit_.tunnel.failing_dumps = 1
    else:
        exit_.tunnel.vanish()
    refused(await ada.post(client_public_key=text, ipv6=False), 503, "peer apply failed; node may be disconnected")
    if failing != "gone":
        assert exit_.holdings() == before
    await exit_.tick()
    assert exit_.state_of(old["id"]) == ("live", None)
    assert set(exit_.tunnel.peers) == {raw}
    assert figures(await ada.status(old["id"])) == (7, 8)
    await ada.open(client_public_key=text)


@on_exit()
async def test_store_fails_at_the_switch(exit_: ExitUnderTest) -> None:
    """A switch that cannot be stored did not happen: the old session is live and goes on being billed."""
    ada = await exit_.client()
    text, raw = new_key()
    old = await ada.open(client_public_key=text)
    exit_.tunnel.gate.clear()
    asking = asyncio.ensure_future(ada.post(client_public_key=text))
    await until(lambda: exit_.tunnel.waiting, "the request waits at the tunnel")
    async with exit_.locked():
        exit_.tunnel.gate.set()
        refused(await asking, 503, "store unavailable")
    exit_.tunnel.add_traffic(raw, rx=9)
    await exit_.tick()
    assert exit_.rows("SELECT id, state FROM sessions") == [(old["id"], "live")]
    assert figures(await ada.status(old["id"])) == (9, 0)
    assert exit_.parts.pool.in_use == 1


@on_exit()
async def test_replacing_an_ending_session(exit_: ExitUnderTest) -> None:
    """A session that an operator has just ended keeps the operator's reason when it is replaced before it is gone."""
    ada = await exit_.client()
    text, raw = new_key()
    old = await ada.open(client_public_key=text)
    await exit_.admin("UPDATE sessions SET state = 'closing', reason = 'admin'")
    new = await ada.open(client_public_key=text)
    await exit_.tick()
    assert exit_.state_of(old["id"]) == ("terminated", "admin")
    assert exit_.state_of(new["id"]) == ("live", None)
    assert set(exit_.tunnel.peers) == {raw}
    assert exit_.parts.pool.in_use == 1


@on_exit()
async def test_replacing_after_a_foreign_hand(exit_: ExitUnderTest) -> None:
    """Somebody removed the peer meanwhile: it is there again, counted from zero, and nothing is billed twice."""
    ada = await exit_.client()
    text, raw = new_key()
    old = await ada.open(client_public_key=text)
    exit_.tunnel.add_traffic(raw, rx=50)
    await exit_.tick()
    del exit_.tunnel.interface.peers[raw]
    new = await ada.open(client_public_key=text)
    exit_.tunnel.interface.peers[raw] = structs.replace(exit_.tunnel.peers[raw], rx_bytes=3)
    await exit_.tick()
    assert figures(await ada.status(old["id"])) == (50, 0)
    assert figures(await ada.status(new["id"])) == (3, 0)


@pytest.mark.parametrize("ending", ["expired", "closing"])
@on_exit('[tiers.paid]\nmax_session = "20s"\nidle_timeout = 0\n')
async def test_tick_in_the_middle(exit_: ExitUnderTest, ending: str) -> None:
    """A tick that ends the old session comes first: the request behind it opens a new one, with another address."""
    ada = await exit_.client()
    text, raw = new_key()
    await ada.open(client_public_key=text)
    if ending == "closing":
        await exit_.admin("UPDATE sessions SET state = 'closing', reason = 'admin'")
    exit_.tunnel.gate.clear()
    ticking = asyncio.create_task(exit_.tick(after=20 if ending == "expired" else 0))
    asking = asyncio.create_task(ada.post(client_public_key=text))
    await until(lambda: bool(exit_.parts.peers.exit_lock._waiters), "the request waits for the tick")
    exit_.tunnel.applied.clear()
    exit_.tunnel.gate.set()
    await ticking
    assert (await asking).status_code == 201
    await exit_.settled()
    assert exit_.parts.pool.in_use == 1
    assert [type(change) for change in exit_.tunnel.applied] == [RemovePeer, PutPeer]
    assert set(exit_.tunnel.peers) == {raw}
