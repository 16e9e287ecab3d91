"""Who of a batch was refused is found, the others are applied, and nobody begins anew for it."""

from __future__ import annotations

import asyncio
import errno
import math
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.domain.errors import TunnelError
from appliance.network.netlink import constants
from appliance.network.netlink.generic import NetlinkError
from appliance.network.wireguard import keys
from appliance.network.wireguard.batch import MOST_NAMED, MOST_REFUSED, PeersRefused, Refused, send_batches
from appliance.network.wireguard.device_tunnel import DeviceTunnel
from appliance.network.wireguard.kernel import KernelDevice
from appliance.network.wireguard.tunnel import Peer, Prefix, PutPeer, RemovePeer
from appliance.network.wireguard.userspace import UserspaceDevice
from tests.support.unit.device_requests import entries

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Sequence

    from appliance.network.wireguard.tunnel import PeerChange, Tunnel


def key(number: int) -> bytes:
    return number.to_bytes(32, "big")


class Numbered(NamedTuple):
    public_key: bytes


@dataclass
class Device:
    """Works through each request in order and stops at the first entry it refuses."""

    refuses: Collection[bytes]
    present: bool = True
    begun: list[bytes] = field(default_factory=list)
    requests: int = 0

    def send(self, batch: Sequence[Numbered], again: bool) -> None:
        self.requests += 1
        if not self.present:
            raise Refused("asking", "no such device")
        for each in batch:
            if each.public_key in self.refuses:
                raise Refused("asking", f"not {each.public_key[-1]}")
            if again:
                assert each.public_key in self.begun, "sent again before it was sent"
            else:
                self.begun.append(each.public_key)


def outcome(batches: Sequence[Sequence[Numbered]], device: Device) -> tuple[tuple[bytes, ...], str]:
    """Who is named, and what is said."""
    try:
        send_batches("wga0", batches, device.send)
    except PeersRefused as error:
        return error.public_keys, str(error)
    return (), ""


class Passing:
    """A device that is out of memory at one entry, so many times, and takes everything afterwards."""

    def __init__(self, at: bytes, times: int) -> None:
        self._at = at
        self._times = times
        self.anew: list[bytes] = []  # who began anew, in the last request that was taken whole

    def send(self, batch: Sequence[Numbered], again: bool) -> None:
        if self._times and self._at in {each.public_key for each in batch}:
            self._times -= 1
            raise Refused("asking", "out of memory")
        if not again:
            self.anew = [each.public_key for each in batch]


@pytest.mark.parametrize("times", [1, 2])
def test_a_refusal_that_passes(times: int) -> None:
    """Nobody is named, and all begin as they were told to, those behind the refused one too."""
    batch = [Numbered(key(n)) for n in range(10)]
    device = Passing(key(3), times)
    send_batches("wga0", [batch], device.send)
    assert device.anew == [each.public_key for each in batch]


def test_a_device_that_goes_away() -> None:
    """After a peer was refused, too, it is the device that is blamed."""
    batch = [Numbered(key(n)) for n in range(10)]
    device = Device({key(3)})

    def send(entries: Sequence[Numbered], again: bool) -> None:
        if entries and entries[0].public_key == key(4):
            device.present = False  # when the refused one was found, and the rest is sent
        device.send(entries, again)

    with pytest.raises(Refused, match="no such device"):
        send_batches("wga0", [batch], send)


@given(st.lists(st.integers(1, 60), max_size=5), st.data())
def test_any_of_any_batches(sizes: list[int], data: st.DataObject) -> None:
    """Whoever is refused: named in order, each with its reason; all others begin once, in order; requests are few."""
    all_keys = [key(n) for n in range(sum(sizes))]
    refused = data.draw(st.sets(st.sampled_from(all_keys))) if all_keys else set()
    ends = [sum(sizes[: n + 1]) for n in range(len(sizes))]
    batches = [[Numbered(each) for each in all_keys[end - size : end]] for size, end in zip(sizes, ends, strict=True)]
    device = Device(refused)
    named, text = outcome(batches, device)
    assert all(f"peer {keys.abbreviated(each)} refused: not {each[-1]}" in text for each in named[:MOST_NAMED])
    if len(refused) > MOST_REFUSED:
        assert len(named) == MOST_REFUSED
    else:
        assert named == tuple(sorted(refused))
        assert device.begun == [each for each in all_keys if each not in refused]
    a_search = 2 * math.ceil(math.log2(max(sizes, default=1) + 1)) + 1
    assert device.requests <= len(batches) + 1 + len(named) * (1 + a_search)


def test_nobody_is_refused() -> None:
    """One request a batch, and none for nothing."""
    device = Device(set())
    send_batches("wga0", [[Numbered(key(1)), Numbered(key(2))], [Numbered(key(3))]], device.send)
    assert device.requests == 2
    send_batches("wga0", [], device.send)
    assert device.requests == 2


def test_each_refused_peer_takes_four_requests() -> None:
    """Then each takes four requests (refused, the device is asked, found, refused again), and so many are enough."""
    batch = [Numbered(key(n)) for n in range(1000)]
    device = Device({each.public_key for each in batch})
    with pytest.raises(PeersRefused, match="and 90 more; the rest was not tried") as caught:
        send_batches("wga0", [batch], device.send)
    assert len(caught.value.public_keys) == MOST_REFUSED
    assert device.requests == 4 * MOST_REFUSED + 2


@pytest.mark.parametrize("count", [1, 5])
def test_a_fault_of_the_device_is_no_peers(count: int) -> None:
    """What is wrong with the device itself is no peer's fault."""
    device = Device(set(), present=False)
    with pytest.raises(Refused, match="no such device") as caught:
        send_batches("wga0", [[Numbered(key(n)) for n in range(count)]], device.send)
    assert not isinstance(caught.value, PeersRefused)
    assert device.requests == 2


def test_a_device_that_does_not_answer_is_asked_nothing_more() -> None:
    """A device that does not answer is asked nothing more."""
    asked = []

    def send(batch: Sequence[Numbered], again: bool) -> None:
        asked.append((len(batch), again))
        raise TunnelError("no answer")

    with pytest.raises(TunnelError, match="no answer"):
        send_batches("wga0", [[Numbered(key(1)), Numbered(key(2))]], send)
    assert asked == [(2, False)]


# The same through both tunnels' own requests -----------------------------------------------------------


class Peers:
    """What a device makes of the entries of its requests: which peers it has, and how often each began."""

    def __init__(self, refuses: Collection[bytes]) -> None:
        self.refuses = refuses
        self.allowed: dict[bytes, set[Prefix]] = {}
        self.began: Counter[bytes] = Counter()

    def put(self, public_key: bytes, prefixes: set[Prefix]) -> bool:
        """False where it is refused; the peer is there then, without its allowed-ips."""
        if public_key not in self.allowed:
            self.began[public_key] += 1
        self.allowed[public_key] = set()
        if public_key in self.refuses:
            return False
        self.allowed[public_key] = prefixes
        return True


class FakeNetlink(Peers):
    def request(self, command: int, body: bytes) -> None:
        assert command == constants.WG_CMD_SET_DEVICE
        for public_key, flags, prefixes in entries(body):
            if flags & constants.WGPEER_F_REMOVE_ME:
                self.allowed.pop(public_key, None)
            elif not self.put(public_key, set(prefixes)):
                raise NetlinkError(errno.EINVAL)

    def close(self) -> None:
        pass


class FakeProcess(Peers):
    def ask(self, request: bytes) -> None:
        head, *peers = request.decode().removesuffix("\n\n").split("\npublic_key=")
        assert head == "set=1"
        for each in peers:
            public_hex, *lines = each.split("\n")
            public_key = bytes.fromhex(public_hex)
            if "remove=true" in lines:
                self.allowed.pop(public_key, None)
                continue
            ips = {line.removeprefix("allowed_ip=") for line in lines if line.startswith("allowed_ip=")}
            assert ips <= {"10.9.0.2/32"}
            if not self.put(public_key, {V4 for _ in ips}):
                raise Refused("wireguard-go refused", "Invalid argument (errno 22)")

    def reap(self) -> None:
        pass


class Counting(FakeProcess):
    """Notes the keys of each request."""

    def __init__(self, refuses: Collection[bytes] = ()) -> None:
        super().__init__(refuses)
        self.requests: list[list[str]] = []

    def ask(self, request: bytes) -> None:
        lines = request.decode().split("\n")
        self.requests.append([line for line in lines if line.startswith("public_key=")])
        super().ask(request)


V4 = Prefix(bytes([10, 9, 0, 2]), 32)


def kernel(refuses: Collection[bytes]) -> tuple[Tunnel, Peers]:
    netlink = FakeNetlink(refuses)
    return DeviceTunnel(KernelDevice("wga0", netlink)), netlink  # type: ignore[arg-type]  # in the socket's place


def userspace(refuses: Collection[bytes]) -> tuple[Tunnel, Peers]:
    device, process = UserspaceDevice("wga0"), FakeProcess(refuses)
    device._process = process  # type: ignore[assignment]  # in the socket's place
    return DeviceTunnel(device), process


@pytest.mark.parametrize("make", [kernel, userspace])
@pytest.mark.parametrize("refused", [{0}, {500}, {999}, {3, 4, 400, 401, 998}, set(range(0, 1000, 20))], ids=len)
def test_fresh_peers_begin_once(make: Callable[[Collection[bytes]], tuple[Tunnel, Peers]], refused: set[int]) -> None:
    """A thousand peers that are to start from zero: those that were there before have begun anew once and no more."""
    tunnel, device = make({key(n) for n in refused})
    for n in range(0, 1100, 2):
        device.put(key(n), {V4})
    device.began.clear()
    changes: list[PeerChange] = [PutPeer(Peer(key(n), frozenset({V4})), fresh=True) for n in range(1000)]
    changes += [RemovePeer(key(n)) for n in range(1000, 1100)]

    async def story() -> None:
        try:
            with pytest.raises(PeersRefused) as caught:
                await tunnel.apply(changes)
            assert caught.value.public_keys == tuple(key(n) for n in sorted(refused))
        finally:
            await tunnel.close()

    asyncio.run(story())
    good = [key(n) for n in range(1000) if n not in refused]
    assert {each: device.began[each] for each in good} == dict.fromkeys(good, 1)
    assert {each: device.allowed[each] for each in good} == {each: {V4} for each in good}
    assert len(device.allowed) == 1000


def test_wireguard_go_is_given_many_peers_in_pieces() -> None:
    """It answers a request when it has made all of its peers: 2,500 are three requests, and each is made once."""
    device, process = UserspaceDevice("wga0"), Counting()
    device._process = process  # type: ignore[assignment]  # in the socket's place
    device.apply([PutPeer(Peer(key(n), frozenset({V4})), fresh=True) for n in range(2500)])
    assert [len(set(keys_asked)) for keys_asked in process.requests] == [1000, 1000, 500]
    assert len(process.allowed) == 2500


def test_nothing_is_removed_from_a_new_interface_of_wireguard_gos() -> None:
    """To remove a peer that is not there it makes the peer first: on a new interface a fresh peer is put at once. One
    that is put again is removed first, so that its counters begin at zero; so are all once the device was read."""
    device, process = UserspaceDevice("wga0"), Counting()
    device._process, device._had = process, set()  # type: ignore[assignment]  # in the socket's place
    put = [PutPeer(Peer(key(n), frozenset({V4})), fresh=True) for n in (1, 2, 1)]
    device.apply(put)
    device.apply(put[:1])
    assert [len(keys_asked) for keys_asked in process.requests] == [4, 2]
