"""Peers that are put back: where they were last seen, with a keepalive until they have shaken hands."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

import pytest

from appliance.domain.errors import TunnelError
from appliance.network.wireguard.tunnel import PutPeer, SocketAddress
from appliance.sessions import last_endpoints
from appliance.sessions.contentions import PEERS, Contentions
from tests.support.api.exit_under_test import new_key, on_exit, until

if TYPE_CHECKING:
    from appliance.network.wireguard.tunnel import Peer
    from tests.support.api.exit_under_test import Client, ExitUnderTest

HOME, CAFE = SocketAddress(bytes([192, 0, 2, 7]), 4711), SocketAddress(bytes([198, 51, 100, 9]), 51820)


async def seen(exit_: ExitUnderTest, key: bytes, endpoint: SocketAddress) -> None:
    """The client shakes hands from there, and the exit looks."""
    exit_.tunnel.add_traffic(key, rx=148, endpoint=endpoint)
    await exit_.shake(key)


async def connected(exit_: ExitUnderTest, ada: Client, endpoint: SocketAddress = HOME, **fields: object) -> bytes:
    key = exit_.key_of((await ada.open(**fields))["id"])
    await seen(exit_, key, endpoint)
    return key


def put_since(exit_: ExitUnderTest, before: int) -> list[PutPeer]:
    return [change for change in exit_.tunnel.applied[before:] if isinstance(change, PutPeer)]


def peer_of(exit_: ExitUnderTest, key: bytes) -> Peer:
    return next(c.peer for c in exit_.tunnel.applied if isinstance(c, PutPeer) and c.public_key == key)


def begins_at(exit_: ExitUnderTest, key: bytes) -> tuple[SocketAddress | None, int]:
    return exit_.tunnel.peers[key].endpoint, exit_.tunnel.peers[key].keepalive_s


@on_exit()
async def test_a_removed_peer_is_put_back_where_it_was_last_seen(
    exit_: ExitUnderTest, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It has the endpoint of the last look that showed it and the configured keepalive, until it shakes hands; then the
    keepalive is taken off, once, and none of it counts as another repair."""
    repaired: list[str] = []
    monkeypatch.setattr(Contentions, "repaired", lambda _, kind, by="": repaired.append(kind + by))
    ada = await exit_.client()
    key = await connected(exit_, ada)
    await seen(exit_, key, CAFE)
    exit_.tunnel.interface.peers.pop(key)
    before = len(exit_.tunnel.applied)
    await exit_.tick(after=1)
    peer = peer_of(exit_, key)
    assert put_since(exit_, before) == [PutPeer(peer, fresh=True, endpoint=CAFE, keepalive_s=25)]
    await exit_.tick(after=1)
    assert begins_at(exit_, key) == (CAFE, 25)
    await seen(exit_, key, CAFE)
    assert begins_at(exit_, key) == (CAFE, 0)
    await exit_.tick(after=1)
    assert put_since(exit_, before)[1:] == [PutPeer(peer, keepalive_s=0)]
    assert repaired == [PEERS]


@on_exit()
async def test_a_client_that_does_not_answer_is_not_called_for_ever(exit_: ExitUnderTest) -> None:
    """After three minutes' worth of calls the keepalive is taken off; the endpoint stays, and a loss begins anew."""
    ada = await exit_.client()
    key = await connected(exit_, ada)
    for _ in range(2):
        exit_.tunnel.interface.peers.pop(key)
        await exit_.tick(after=1)
        exit_.tunnel.add_traffic(key, tx=35 * 148)
        await exit_.tick(after=1)
        assert begins_at(exit_, key) == (HOME, 25)
        exit_.tunnel.add_traffic(key, tx=148)
        for _ in range(2):
            await exit_.tick(after=1)
            assert begins_at(exit_, key) == (HOME, 0)


@on_exit("keepalive = 0\n")
async def test_without_keepalives_in_files_one_is_used_all_the_same(exit_: ExitUnderTest) -> None:
    """The keepalive is at least 1: without one the exit would not begin."""
    ada = await exit_.client()
    key = await connected(exit_, ada)
    exit_.tunnel.interface.peers.pop(key)
    await exit_.tick(after=1)
    assert begins_at(exit_, key) == (HOME, 1)
    await seen(exit_, key, HOME)
    assert begins_at(exit_, key) == (HOME, 0)


@on_exit()
async def test_peers_that_were_never_seen_are_put_back_as_they_were(exit_: ExitUnderTest) -> None:
    """One that was never connected has neither endpoint nor keepalive, and neither has one after the process began."""
    ada = await exit_.client()
    never, once = exit_.key_of((await ada.open())["id"]), await connected(exit_, ada)
    exit_.tunnel.vanish()
    await exit_.tick(after=1)
    assert begins_at(exit_, never) == (None, 0)
    assert begins_at(exit_, once) == (HOME, 25)
    exit_.tunnel.vanish()
    await exit_.restart()
    assert begins_at(exit_, once) == (None, 0)


@pytest.mark.parametrize("most", [last_endpoints.MOST_KEPT, 1], ids=["few", "many"])
@on_exit()
async def test_an_interface_made_anew_after_failures(
    exit_: ExitUnderTest, most: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However many looks fail before the interface is there again, the peers are put where they were last seen."""
    monkeypatch.setattr(last_endpoints, "MOST_KEPT", most)
    ada = await exit_.client()
    keys = [await connected(exit_, ada) for _ in range(3)]
    exit_.tunnel.vanish()
    for _ in range(3):
        exit_.tunnel.fail_next(TunnelError("not yet"))
        await exit_.tick(after=1)
    await exit_.tick(after=1)
    await exit_.tick(after=1)
    assert [begins_at(exit_, key) for key in keys] == 3 * [(HOME, 25)]
    # Gone again before anybody has shaken hands.
    exit_.tunnel.vanish()
    await exit_.tick(after=1)
    assert [begins_at(exit_, key) for key in keys] == 3 * [(HOME, 25)]
    for key in keys:
        await seen(exit_, key, CAFE)
    assert [begins_at(exit_, key) for key in keys] == 3 * [(CAFE, 0)]


@on_exit()
async def test_a_process_that_ends_leaves_keepalives_to_the_next(exit_: ExitUnderTest) -> None:
    """A process that begins while a peer waits for its handshake lets it wait, and takes the keepalive off after it."""
    ada = await exit_.client()
    waits, shook = await connected(exit_, ada), await connected(exit_, ada)
    exit_.tunnel.vanish()
    await exit_.tick(after=1)
    exit_.tunnel.add_traffic(shook, handshake_ns=exit_.clock.wall_ms * 1_000_000)
    await exit_.restart()
    assert begins_at(exit_, waits) == (HOME, 25)
    assert begins_at(exit_, shook) == (HOME, 0)
    await seen(exit_, waits, HOME)
    assert begins_at(exit_, waits) == (HOME, 0)


@on_exit()
async def test_a_session_that_ends_while_its_peer_is_away_is_forgotten(exit_: ExitUnderTest) -> None:
    """Nothing is put back of it, and another session with its key has no endpoint of it."""
    ada = await exit_.client()
    text, key = new_key()
    opened = await ada.open(client_public_key=text)
    await seen(exit_, key, HOME)
    exit_.tunnel.interface.peers.pop(key)
    assert (await ada.delete(opened["id"])).status_code == 200
    before = len(exit_.tunnel.applied)
    await exit_.tick(after=1)
    assert put_since(exit_, before) == []
    await ada.open(client_public_key=text)
    exit_.tunnel.interface.peers.pop(key)
    for _ in range(2):
        await exit_.tick(after=1)
        assert begins_at(exit_, key) == (None, 0)


@on_exit()
async def test_a_key_that_opens_again_at_once_has_no_endpoint_of_before(exit_: ExitUnderTest) -> None:
    """A session closed and opened again with its key between two looks begins without an endpoint."""
    ada = await exit_.client()
    text, key = new_key()
    opened = await ada.open(client_public_key=text)
    await seen(exit_, key, HOME)
    assert (await ada.delete(opened["id"])).status_code == 200
    await ada.open(client_public_key=text)
    for _ in range(3):
        await exit_.tick(after=1)
        assert begins_at(exit_, key) == (None, 0)


@on_exit()
async def test_a_peer_that_another_program_has_added_again_begins_too(exit_: ExitUnderTest) -> None:
    """A peer that is there, and has lost what it knew since the last look, is told where it was last seen."""
    ada = await exit_.client()
    key = await connected(exit_, ada)
    peer = exit_.tunnel.interface.peers.pop(key)
    await exit_.tunnel.apply([PutPeer(peer_of(exit_, key))])
    assert exit_.tunnel.peers[key] != peer
    await exit_.tick(after=1)
    assert begins_at(exit_, key) == (HOME, 25)
    await seen(exit_, key, HOME)
    assert begins_at(exit_, key) == (HOME, 0)


@on_exit()
async def test_an_undone_replacement_puts_its_predecessor_where_it_was(exit_: ExitUnderTest) -> None:
    """A replacement that failed while its peer was away leaves the predecessor's peer as one that is put back."""
    ada = await exit_.client()
    text, key = new_key()
    opened = await ada.open(client_public_key=text)
    await seen(exit_, key, HOME)
    exit_.tunnel.gate.clear()
    exit_.tunnel.fail_next(TunnelError("refused"))
    asking = asyncio.create_task(ada.post(client_public_key=text))
    await until(lambda: exit_.tunnel.waiting, "the request is admitted")
    exit_.tunnel.interface.peers.pop(key)
    exit_.tunnel.gate.set()
    assert (await asking).status_code == 503
    await exit_.tick()
    assert exit_.state_of(opened["id"])[0] == "live"
    assert begins_at(exit_, key) == (HOME, 25)


@on_exit()
async def test_a_strangers_keepalive_is_taken_off(exit_: ExitUnderTest, caplog: pytest.LogCaptureFixture) -> None:
    """A keepalive that another program has set is taken off again, whether the peer is connected or not, and said."""
    ada = await exit_.client()
    shook, never = await connected(exit_, ada), exit_.key_of((await ada.open())["id"])
    await exit_.tick(after=1)
    for key in (shook, never):
        await exit_.tunnel.apply([PutPeer(peer_of(exit_, key), keepalive_s=7)])
    caplog.set_level(logging.INFO)
    await exit_.tick(after=1)
    assert begins_at(exit_, shook) == (HOME, 0)
    assert begins_at(exit_, never) == (None, 0)
    assert [record.message for record in caplog.records if "keepalives" in record.message] == ["keepalives set"]
    assert "192.0.2.7" not in caplog.text


@on_exit()
async def test_no_endpoint_is_stored_or_logged(exit_: ExitUnderTest, caplog: pytest.LogCaptureFixture) -> None:
    """Where clients are is in memory alone: neither the store nor the log has it, whatever is logged."""
    caplog.set_level(logging.DEBUG, "appliance")
    ada = await exit_.client()
    key = await connected(exit_, ada)
    exit_.tunnel.vanish()
    await exit_.tick(after=1)
    await seen(exit_, key, HOME)
    assert begins_at(exit_, key) == (HOME, 0)
    await exit_.store.close()
    for text in ("192.0.2.7", repr(HOME.address)):
        assert text not in caplog.text
    stored = b"".join(path.read_bytes() for path in exit_.path.parent.glob(exit_.path.name + "*"))
    assert HOME.address not in stored
    assert b"192.0.2.7" not in stored
