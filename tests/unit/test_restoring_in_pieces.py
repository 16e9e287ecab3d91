"""Many changes of peers are made and applied piece by piece: however many, few are in memory at once."""

from __future__ import annotations

import asyncio
import gc
from typing import TYPE_CHECKING

import pytest

from appliance.domain.errors import TunnelError
from appliance.network.lazy_mapping import OnDemand
from appliance.network.reconcile import Actual, Desired, reconcile
from appliance.network.wireguard.batch import MOST_NAMED, MOST_REFUSED, PeersRefused
from appliance.network.wireguard.device_tunnel import AT_ONCE, DeviceTunnel
from appliance.network.wireguard.tunnel import Dump, Link, Peer, PeerState, Prefix, PutPeer
from tests.support.egress_in_place import IN_PLACE

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Sequence

    from appliance.network.reconcile import PeerChanges
    from appliance.network.wireguard.tunnel import PeerChange

MANY = 3 * AT_ONCE + AT_ONCE // 2
LINK = Link(4, up=True, mtu=1420, addresses=frozenset(), forwards=True)
STALE = 1


def key(number: int, kind: int = 0) -> bytes:
    return bytes([kind]) + number.to_bytes(31, "big")


def address(number: int) -> Prefix:
    return Prefix((0x0A090000 + number).to_bytes(4, "big"), 32)


def changes_in_memory() -> int:
    return sum(type(each) is PutPeer for each in gc.get_objects())


class Device:
    """Peers of one address each; an address is with the peer that it was last given to. It gives up like the real ones.

    `alive`: how many changes there were in memory while each piece was applied. `fails_at`: a piece.
    """

    interface_name = "wga0"

    def __init__(self, refuses: Collection[bytes] = ()) -> None:
        self.peers: dict[bytes, Prefix] = {}
        self.holders: dict[Prefix, bytes] = {}
        self.pieces: list[list[bytes]] = []
        self.alive: list[int] = []
        self.fails_at: int | None = None
        self._refuses = refuses

    def apply(self, changes: Sequence[PeerChange]) -> None:
        self.alive.append(changes_in_memory())
        if len(self.pieces) == self.fails_at:
            raise TunnelError("it hangs")
        self.pieces.append([change.public_key for change in changes])
        refused: dict[bytes, str] = {}
        for change in changes:
            if change.public_key not in self._refuses:
                self._apply(change)
            elif len(refused) == MOST_REFUSED:
                raise PeersRefused("wga0", refused, gave_up=True)
            else:
                refused[change.public_key] = "no"
        if refused:
            raise PeersRefused("wga0", refused)

    def _apply(self, change: PeerChange) -> None:
        had = self.peers.pop(change.public_key, None)
        if had is not None and self.holders[had] == change.public_key:
            del self.holders[had]
        if isinstance(change, PutPeer):
            (self.peers[change.public_key],) = change.peer.allowed_ips
            self.holders[self.peers[change.public_key]] = change.public_key

    def differences(self, live: Iterable[int]) -> PeerChanges:
        """What a look finds while sessions of these numbers are live."""
        numbers = {key(number): number for number in live}
        wanted = OnDemand(numbers.keys(), lambda each: Peer(each, frozenset({address(numbers[each])})))
        found = {
            each: PeerState(each, frozenset({has} if self.holders.get(has) == each else ()), 0, 0, 0)
            for each, has in self.peers.items()
        }
        desired = Desired("wga0", True, bytes(32), bytes(32), 1, 1420, frozenset(), wanted, 25)
        return reconcile(desired, Actual(IN_PLACE, LINK, Dump(4, bytes(32), 1, found))).peers

    def close(self) -> None:
        pass


def apply(device: Device, changes: PeerChanges) -> None:
    async def story() -> None:
        tunnel = DeviceTunnel(device)  # type: ignore[arg-type]  # what else a device has is not asked for
        try:
            await tunnel.apply(changes)
        finally:
            await tunnel.close()

    asyncio.run(story())


@pytest.mark.parametrize("there", [0, 1])
def test_a_piece_is_applied_before_the_next_is_made(there: int) -> None:
    """Whether all peers are missing or all but one: no more changes are in memory than a piece has."""
    device = Device()
    apply(device, device.differences(range(there)))
    device.alive.clear()
    before = changes_in_memory()  # of other tests
    apply(device, device.differences(range(MANY)))
    assert len(device.peers) == MANY
    assert len(device.alive) == 4
    assert max(device.alive) - before <= AT_ONCE


def test_addresses_of_stale_peers_pass_on() -> None:
    """All of the stale peers are removed before the first is added, though that takes pieces: each session has its
    address, and nothing is left to change."""
    device = Device()
    for number in range(MANY):
        device._apply(PutPeer(Peer(key(number, STALE), frozenset({address(number)}))))
    apply(device, device.differences(range(MANY)))
    order = [each for piece in device.pieces for each in piece]
    assert [each[0] for each in order] == [STALE] * MANY + [0] * MANY
    assert device.holders == {address(number): key(number) for number in range(MANY)}
    assert not device.differences(range(MANY))


def test_a_piece_that_fails() -> None:
    """Its error is the whole call's, no later piece is tried, and the next look finds what is left, and no more."""
    device = Device()
    device.fails_at = 1
    with pytest.raises(TunnelError, match=r"^it hangs$"):
        apply(device, device.differences(range(MANY)))
    assert len(device.alive) == 2
    done, device.fails_at = set(device.peers), None
    left = device.differences(range(MANY))
    assert (len(done), set(left.fresh)) == (AT_ONCE, {key(number) for number in range(MANY)} - done)
    apply(device, left)
    assert not device.differences(range(MANY))


def test_refused_peers_of_several_pieces() -> None:
    """Each fails alone, and one error names all, as for one piece."""
    refused = {key(number) for number in (0, 5, AT_ONCE, MANY - 1)}
    device = Device(refused)
    with pytest.raises(PeersRefused) as caught:
        apply(device, device.differences(range(MANY)))
    assert str(caught.value) == str(PeersRefused("wga0", dict.fromkeys(sorted(refused), "no")))
    assert (set(caught.value.public_keys), caught.value.gave_up) == (refused, False)
    assert set(device.peers) == {key(number) for number in range(MANY)} - refused


@pytest.mark.parametrize("each_piece", [MOST_REFUSED + 1, MOST_REFUSED // 2 + 1])
def test_a_device_that_refuses_many_is_asked_no_more(each_piece: int) -> None:
    """In one piece or in several: the error says that the rest was not tried."""
    device = Device([key(number) for first in range(0, MANY, AT_ONCE) for number in range(first, first + each_piece)])
    with pytest.raises(PeersRefused, match="; the rest was not tried") as caught:
        apply(device, device.differences(range(MANY)))
    named = len(caught.value.public_keys)
    assert MOST_REFUSED <= named <= 2 * MOST_REFUSED
    assert f"and {named - MOST_NAMED} more" in str(caught.value)
    assert len(device.pieces) < 4
