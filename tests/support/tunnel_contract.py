"""What every `Tunnel` must do: the in-memory one, the kernel's and wireguard-go's run exactly these tests.

A test module subclasses the contract and gives it the fixtures `make_tunnel` (a `Tunnel` on this test's
interface, a new object each time) and `exchange` (real or played traffic).
"""

from __future__ import annotations

import asyncio
import hashlib
import ipaddress
import threading
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import pytest

from appliance.domain.errors import TunnelError
from appliance.network.wireguard import keys
from appliance.network.wireguard.batch import PeersRefused
from appliance.network.wireguard.tunnel import (
    DeviceChange,
    Dump,
    Link,
    LinkChange,
    Peer,
    PeerState,
    Prefix,
    PutPeer,
    RemovePeer,
    SocketAddress,
    Tunnel,
)

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

SECONDS_A_TEST = 110
SECONDS_A_WAIT = 60
PORT = 51820
PRIVATE_KEY = hashlib.sha256(b"the exit").digest()
CLIENT_PRIVATE_KEY = hashlib.sha256(b"a client").digest()
NO_PREFIX = Prefix(bytes([10, 9, 0, 9]), 33)  # what no device takes
UP = LinkChange(create=True, mtu=1400, up=True)


class Exchange(Protocol):
    """Let the client with this private key shake hands and send; afterwards it is silent for good.

    The tunnel is up, has PRIVATE_KEY and listens on PORT, and the client is one of its peers.
    """

    async def __call__(self, tunnel: Tunnel, client_private_key: bytes) -> None: ...


def public_key(number: int) -> bytes:
    return hashlib.sha256(f"peer {number}".encode()).digest()


def prefix(text: str) -> Prefix:
    interface = ipaddress.ip_interface(text)
    return Prefix(interface.ip.packed, interface.network.prefixlen)


def at(host: str, port: int) -> SocketAddress:
    return SocketAddress(ipaddress.ip_address(host).packed, port)


def peer(number: int, *allowed_ips: str) -> Peer:
    return Peer(public_key(number), frozenset(map(prefix, allowed_ips)))


def allowed(dump: Dump) -> dict[bytes, frozenset[Prefix]]:
    """The dump's peers as what was asked for."""
    return {key: state.allowed_ips for key, state in dump.peers.items()}


def wanted(*peers: Peer) -> dict[bytes, frozenset[Prefix]]:
    return {each.public_key: each.allowed_ips for each in peers}


def run(make_tunnel: Callable[[], Tunnel], body: Callable[[Tunnel], Awaitable[None]]) -> None:
    """Run the body on a tunnel that is deleted and closed afterwards."""

    async def whole() -> None:
        tunnel = make_tunnel()
        try:
            async with asyncio.timeout(SECONDS_A_TEST):
                await body(tunnel)
        finally:
            await tunnel.delete()
            await tunnel.close()

    asyncio.run(whole())


async def until(condition: Callable[[], Awaitable[bool]], what: str) -> None:
    """Wait for the condition, within SECONDS_A_WAIT."""
    for _ in range(SECONDS_A_WAIT * 50):
        if await condition():
            return
        await asyncio.sleep(0.02)
    raise AssertionError(f"after {SECONDS_A_WAIT} s still not so: {what}")


def open_descriptors() -> set[str]:
    return {path.name for path in Path("/proc/self/fd").iterdir()}


async def present(tunnel: Tunnel) -> Link:
    link = await tunnel.link()
    assert link is not None
    return link


class TunnelContract:
    def test_without_an_interface_everything_but_deleting_fails(self, make_tunnel: Callable[[], Tunnel]) -> None:
        """With no interface, link() is None, deleting succeeds and everything else is a TunnelError."""

        async def body(tunnel: Tunnel) -> None:
            assert await tunnel.link() is None
            await tunnel.delete()
            for refused in (
                tunnel.dump(),
                tunnel.apply([RemovePeer(public_key(1))]),
                tunnel.apply([PutPeer(peer(1), fresh=True), PutPeer(peer(2), fresh=True)]),
                tunnel.configure(DeviceChange(listen_port=PORT)),
                tunnel.change_link(LinkChange(mtu=1400)),
            ):
                with pytest.raises(TunnelError) as caught:
                    await refused
                assert not isinstance(caught.value, PeersRefused)  # no peer is at fault

        run(make_tunnel, body)

    def test_creating_twice_changes_nothing(self, make_tunnel: Callable[[], Tunnel]) -> None:
        """Creating makes the interface as asked for, and a second time changes nothing."""

        async def body(tunnel: Tunnel) -> None:
            await tunnel.change_link(UP)
            link = await present(tunnel)
            assert (link.up, link.mtu, link.addresses) == (True, 1400, frozenset())
            assert link.ifindex > 0
            await tunnel.change_link(UP)
            assert await tunnel.link() == link
            assert (await tunnel.dump()).ifindex == link.ifindex

        run(make_tunnel, body)

    def test_a_created_interface_is_down_and_takes_settings(self, make_tunnel: Callable[[], Tunnel]) -> None:
        """An interface that was only created is down, and takes its settings before it is up."""

        async def body(tunnel: Tunnel) -> None:
            await tunnel.change_link(LinkChange(create=True))
            assert not (await present(tunnel)).up
            await tunnel.configure(DeviceChange(PRIVATE_KEY, PORT))
            await tunnel.apply([PutPeer(peer(1, "10.9.0.2/32"))])
            await tunnel.change_link(LinkChange(up=True))
            assert (await present(tunnel)).up
            dump = await tunnel.dump()
            assert dump.listen_port == PORT
            assert allowed(dump) == wanted(peer(1, "10.9.0.2/32"))

        run(make_tunnel, body)

    def test_the_mtu_changes_alone(self, make_tunnel: Callable[[], Tunnel]) -> None:
        """The MTU changes on a live interface and alone."""

        async def body(tunnel: Tunnel) -> None:
            await tunnel.change_link(UP)
            before = await present(tunnel)
            await tunnel.change_link(LinkChange(mtu=1300))
            after = await present(tunnel)
            assert (after.mtu, after.ifindex, after.up) == (1300, before.ifindex, True)

        run(make_tunnel, body)

    def test_addresses_of_both_families_come_and_go(self, make_tunnel: Callable[[], Tunnel]) -> None:
        """Addresses of both families come and go; one that is there already, or already gone, is fine."""
        first = frozenset({prefix("10.9.0.1/24"), prefix("fd65:7869:7400::1/112")})
        second = frozenset({prefix("10.8.0.1/16")})

        async def body(tunnel: Tunnel) -> None:
            await tunnel.change_link(LinkChange(create=True, mtu=1400, add_addresses=first, up=True))
            assert (await present(tunnel)).addresses == first
            await tunnel.change_link(LinkChange(add_addresses=first))
            assert (await present(tunnel)).addresses == first
            change = LinkChange(remove_addresses=first, add_addresses=second)
            await tunnel.change_link(change)
            await tunnel.change_link(change)
            assert (await present(tunnel)).addresses == second

        run(make_tunnel, body)

    def test_key_and_port_can_each_be_set_alone(self, make_tunnel: Callable[[], Tunnel]) -> None:
        """The key and the port show in the dump, the key as its public one; each can be set alone."""

        async def body(tunnel: Tunnel) -> None:
            await tunnel.change_link(UP)
            assert (await tunnel.dump()).public_key == bytes(32)
            await tunnel.configure(DeviceChange(private_key=PRIVATE_KEY, listen_port=PORT))
            dump = await tunnel.dump()
            assert (dump.public_key, dump.listen_port) == (keys.public_key(PRIVATE_KEY), PORT)
            await tunnel.configure(DeviceChange(listen_port=PORT + 1))
            dump = await tunnel.dump()
            assert (dump.public_key, dump.listen_port) == (keys.public_key(PRIVATE_KEY), PORT + 1)

        run(make_tunnel, body)

    def test_another_private_key_keeps_port_and_peers(self, make_tunnel: Callable[[], Tunnel]) -> None:
        """Another private key keeps port and peers, but for a peer whose key the device now has itself."""

        async def body(tunnel: Tunnel) -> None:
            await tunnel.change_link(UP)
            await tunnel.configure(DeviceChange(PRIVATE_KEY, PORT))
            itself = Peer(keys.public_key(CLIENT_PRIVATE_KEY), frozenset())
            await tunnel.apply([PutPeer(peer(1, "10.9.0.2/32")), PutPeer(itself)])
            await tunnel.configure(DeviceChange(private_key=CLIENT_PRIVATE_KEY))
            dump = await tunnel.dump()
            assert (dump.public_key, dump.listen_port) == (itself.public_key, PORT)
            assert allowed(dump) == wanted(peer(1, "10.9.0.2/32"))

        run(make_tunnel, body)

    def test_a_put_peer_shows_and_a_removed_one_is_gone(self, make_tunnel: Callable[[], Tunnel]) -> None:
        """A put peer shows with zero counters and no handshake; a removed one is gone, twice over too."""

        async def body(tunnel: Tunnel) -> None:
            await tunnel.change_link(UP)
            one, two = peer(1, "10.9.0.2/32", "fd00::2/128"), peer(2, "10.9.0.3/32")
            await tunnel.apply([PutPeer(one), PutPeer(two)])
            dump = await tunnel.dump()
            assert dump.peers == {
                each.public_key: PeerState(each.public_key, each.allowed_ips, 0, 0, 0) for each in (one, two)
            }
            await tunnel.apply([RemovePeer(one.public_key)])
            await tunnel.apply([RemovePeer(one.public_key), RemovePeer(public_key(99))])
            assert allowed(await tunnel.dump()) == wanted(two)

        run(make_tunnel, body)

    def test_putting_again_replaces_the_allowed_ips(self, make_tunnel: Callable[[], Tunnel]) -> None:
        """Putting a peer again leaves it with exactly the new allowed-ips, none included."""

        async def body(tunnel: Tunnel) -> None:
            await tunnel.change_link(UP)
            await tunnel.apply([PutPeer(peer(1, "10.9.0.2/32", "10.7.0.0/16"))])
            for again in (peer(1, "10.9.0.4/32", "fd00::/64"), peer(1, "0.0.0.0/0", "::/0"), peer(1)):
                await tunnel.apply([PutPeer(again)])
                assert allowed(await tunnel.dump()) == wanted(again)

        run(make_tunnel, body)

    def test_changes_take_effect_in_order(self, make_tunnel: Callable[[], Tunnel]) -> None:
        """Changes take effect in the order given, also within one call."""

        async def body(tunnel: Tunnel) -> None:
            await tunnel.change_link(UP)
            one, two = peer(1, "10.9.0.2/32"), peer(2, "10.9.0.3/32")
            await tunnel.apply(
                [PutPeer(one), RemovePeer(one.public_key), RemovePeer(two.public_key), PutPeer(peer(2)), PutPeer(two)]
            )
            assert allowed(await tunnel.dump()) == wanted(two)

        run(make_tunnel, body)

    def test_an_allowed_ip_moves_to_the_peer_it_is_given_to(self, make_tunnel: Callable[[], Tunnel]) -> None:
        """An allowed-ip given to another peer leaves the one that had it."""

        async def body(tunnel: Tunnel) -> None:
            await tunnel.change_link(UP)
            await tunnel.apply([PutPeer(peer(1, "10.9.0.2/32", "10.9.0.3/32"))])
            await tunnel.apply([PutPeer(peer(2, "10.9.0.2/32"))])
            assert allowed(await tunnel.dump()) == wanted(peer(1, "10.9.0.3/32"), peer(2, "10.9.0.2/32"))

        run(make_tunnel, body)

    def test_the_devices_own_key_as_a_peer_is_nothing(self, make_tunnel: Callable[[], Tunnel]) -> None:
        """The device's own key as a peer is silently nothing, and the other changes beside it are done."""

        async def body(tunnel: Tunnel) -> None:
            await tunnel.change_link(UP)
            await tunnel.configure(DeviceChange(private_key=PRIVATE_KEY))
            itself = Peer(keys.public_key(PRIVATE_KEY), frozenset({prefix("10.9.0.2/32")}))
            await tunnel.apply([PutPeer(itself, fresh=True), PutPeer(peer(1, "10.9.0.3/32"))])
            assert allowed(await tunnel.dump()) == wanted(peer(1, "10.9.0.3/32"))

        run(make_tunnel, body)

    def test_nothing_to_apply_is_no_error(self, make_tunnel: Callable[[], Tunnel]) -> None:
        """No changes are no error, interface or not."""

        async def body(tunnel: Tunnel) -> None:
            await tunnel.apply([])
            await tunnel.change_link(UP)
            await tunnel.apply([])
            assert (await tunnel.dump()).peers == {}

        run(make_tunnel, body)

    def test_counters_go_on_until_a_peer_is_put_fresh(
        self, make_tunnel: Callable[[], Tunnel], exchange: Exchange
    ) -> None:
        """A handshake counts; putting the peer again keeps the figures; putting it fresh starts from zero."""
        client = Peer(keys.public_key(CLIENT_PRIVATE_KEY), frozenset({prefix("10.9.0.2/32")}))

        async def body(tunnel: Tunnel) -> None:
            await tunnel.change_link(UP)
            await tunnel.configure(DeviceChange(PRIVATE_KEY, PORT))
            await tunnel.apply([PutPeer(client, fresh=True)])
            await exchange(tunnel, CLIENT_PRIVATE_KEY)
            before = (await tunnel.dump()).peers[client.public_key]
            assert before.rx_bytes > 0
            assert before.tx_bytes > 0
            assert before.last_handshake_ns > 0
            moved = Peer(client.public_key, frozenset({prefix("10.9.0.3/32")}))
            await tunnel.apply([PutPeer(moved)])
            after = (await tunnel.dump()).peers[client.public_key]
            assert (after.rx_bytes, after.tx_bytes) >= (before.rx_bytes, before.tx_bytes)
            assert after.last_handshake_ns == before.last_handshake_ns
            assert after.allowed_ips == moved.allowed_ips
            await tunnel.apply([PutPeer(client, fresh=True)])
            fresh = (await tunnel.dump()).peers[client.public_key]
            assert fresh == PeerState(client.public_key, client.allowed_ips, 0, 0, 0)

        run(make_tunnel, body)

    def test_endpoint_and_keepalive_are_set_kept_and_changed(self, make_tunnel: Callable[[], Tunnel]) -> None:
        """A peer takes the endpoint and keepalive it is put with, keeps them when it is put without, and starts with
        neither when it is put fresh. Where no route leads is as good as any."""
        one, away = peer(1, "10.9.0.2/32"), at("192.0.2.1", 4711)

        async def body(tunnel: Tunnel) -> None:
            await tunnel.change_link(UP)
            await tunnel.configure(DeviceChange(PRIVATE_KEY, PORT))

            async def put(change: PutPeer) -> tuple[SocketAddress | None, int]:
                await tunnel.apply([PutPeer(peer(2)), change, PutPeer(peer(3))])
                dump = await tunnel.dump()
                assert allowed(dump) == wanted(change.peer, peer(2), peer(3))
                found = dump.peers[one.public_key]
                return found.endpoint, found.keepalive_s

            assert await put(PutPeer(one)) == (None, 0)
            assert await put(PutPeer(one, fresh=True, endpoint=away, keepalive_s=25)) == (away, 25)
            assert await put(PutPeer(peer(1, "10.9.0.4/32"))) == (away, 25)
            assert await put(PutPeer(one, keepalive_s=65535)) == (away, 65535)
            assert await put(PutPeer(one, endpoint=at("2001:db8::1", 65535))) == (at("2001:db8::1", 65535), 65535)
            assert await put(PutPeer(one, endpoint=at("192.0.2.2", 1))) == (at("192.0.2.2", 1), 65535)
            assert await put(PutPeer(one, keepalive_s=0)) == (at("192.0.2.2", 1), 0)
            assert await put(PutPeer(one, fresh=True)) == (None, 0)
            assert await put(PutPeer(one, keepalive_s=1)) == (None, 1)

        run(make_tunnel, body)

    @pytest.mark.parametrize("places", [{0}, {299}, {150}, {7, 8, 9, 298}], ids=str)
    def test_refused_peers_are_named_and_the_others_applied(
        self, make_tunnel: Callable[[], Tunnel], places: set[int]
    ) -> None:
        """Peers that the device refuses are named, no others are, and the others are put and removed all the same."""
        changes: list[PutPeer] = []
        for n in range(300):
            put = PutPeer(peer(n, f"10.7.{n // 250}.{n % 250}/32", f"fd00::{n:x}/128"), fresh=n % 3 > 0)
            if n % 3 == 1:
                put = replace(put, endpoint=at("192.0.2.1", 1 + n), keepalive_s=25)
            if n in places:
                put = replace(put, peer=Peer(put.public_key, put.peer.allowed_ips | {NO_PREFIX}))
            changes.append(put)
        bad = [changes[n].public_key for n in sorted(places)]
        good = [each.peer for n, each in enumerate(changes) if n not in places]

        async def body(tunnel: Tunnel) -> None:
            await tunnel.change_link(UP)
            leaving = peer(1000, "10.8.0.1/32")
            await tunnel.apply([PutPeer(leaving)])
            for _ in range(2):
                with pytest.raises(PeersRefused) as caught:
                    await tunnel.apply([*changes, RemovePeer(leaving.public_key)])
                assert list(caught.value.public_keys) == bad
                assert all(keys.abbreviated(key) in str(caught.value) for key in bad)
                found = allowed(await tunnel.dump())
                assert {key: ips for key, ips in found.items() if key not in bad} == wanted(*good)
            await tunnel.apply([RemovePeer(key) for key in bad])
            assert allowed(await tunnel.dump()) == wanted(*good)

        run(make_tunnel, body)

    def test_counters_go_on_beside_a_refused_peer(self, make_tunnel: Callable[[], Tunnel], exchange: Exchange) -> None:
        """While it is found out who was refused, nobody's counters begin anew who was not to."""
        client = Peer(keys.public_key(CLIENT_PRIVATE_KEY), frozenset({prefix("10.9.0.2/32")}))
        others = [PutPeer(peer(n, f"10.9.1.{n}/32"), fresh=True) for n in range(1, 40)]
        bad = Peer(public_key(99), frozenset({NO_PREFIX}))

        async def body(tunnel: Tunnel) -> None:
            await tunnel.change_link(UP)
            await tunnel.configure(DeviceChange(PRIVATE_KEY, PORT))
            await tunnel.apply([PutPeer(client, fresh=True)])
            await exchange(tunnel, CLIENT_PRIVATE_KEY)
            before = (await tunnel.dump()).peers[client.public_key]
            assert before.rx_bytes > 0
            with pytest.raises(PeersRefused):
                await tunnel.apply([*others[:20], PutPeer(client), *others[20:], PutPeer(bad)])
            after = (await tunnel.dump()).peers[client.public_key]
            assert (after.rx_bytes, after.last_handshake_ns) == (before.rx_bytes, before.last_handshake_ns)
            assert after.tx_bytes >= before.tx_bytes
            assert after.allowed_ips == client.allowed_ips

        run(make_tunnel, body)

    def test_many_peers_come_back_exactly(self, make_tunnel: Callable[[], Tunnel]) -> None:
        """3,000 peers with an address of each family go in with one call and come back exactly; and go again."""
        peers = [peer(n, f"10.{100 + n // 250}.{n % 250}.1/32", f"fd00::{n:x}/128") for n in range(1, 3001)]

        async def body(tunnel: Tunnel) -> None:
            await tunnel.change_link(UP)
            await tunnel.apply([PutPeer(each, fresh=True) for each in peers])
            for _ in range(2):
                assert allowed(await tunnel.dump()) == wanted(*peers)
            await tunnel.apply([RemovePeer(each.public_key) for each in peers[:-1]])
            assert allowed(await tunnel.dump()) == wanted(peers[-1])

        run(make_tunnel, body)

    def test_many_allowed_ips_come_back_exactly(self, make_tunnel: Callable[[], Tunnel]) -> None:
        """A peer whose allowed-ips fill several messages holds exactly those, and between its neighbours."""
        broad = peer(
            2, *(f"10.{n // 250}.{n % 250}.0/24" for n in range(2000)), *(f"fd00:{n:x}::/32" for n in range(500))
        )
        around = (peer(1, "192.0.2.1/32"), peer(3, "192.0.2.3/32"))

        async def body(tunnel: Tunnel) -> None:
            await tunnel.change_link(UP)
            for _ in range(2):
                await tunnel.apply([PutPeer(around[0]), PutPeer(broad), PutPeer(around[1])])
                assert allowed(await tunnel.dump()) == wanted(broad, *around)
            await tunnel.apply([PutPeer(peer(2, "192.0.2.2/32"), fresh=True)])
            assert allowed(await tunnel.dump()) == wanted(peer(2, "192.0.2.2/32"), *around)

        run(make_tunnel, body)

    def test_a_deleted_interface_is_gone_with_its_content(self, make_tunnel: Callable[[], Tunnel]) -> None:
        """A deleted interface is gone with all that was in it; the next one is told apart by its ifindex."""

        async def body(tunnel: Tunnel) -> None:
            await tunnel.change_link(UP)
            await tunnel.configure(DeviceChange(PRIVATE_KEY, PORT))
            await tunnel.apply([PutPeer(peer(1, "10.9.0.2/32"))])
            first = (await tunnel.dump()).ifindex
            await tunnel.delete()
            assert await tunnel.link() is None
            with pytest.raises(TunnelError):
                await tunnel.apply([PutPeer(peer(1))])
            with pytest.raises(TunnelError):
                await tunnel.dump()
            await tunnel.delete()
            await tunnel.change_link(UP)
            dump = await tunnel.dump()
            assert dump.ifindex != first
            assert (dump.public_key, dump.peers) == (bytes(32), {})

        run(make_tunnel, body)

    def test_calls_at_once_do_not_meet(self, make_tunnel: Callable[[], Tunnel]) -> None:
        """Calls from several tasks do not get into each other's way."""
        peers = [peer(n, f"10.9.0.{n}/32") for n in range(1, 31)]

        async def body(tunnel: Tunnel) -> None:
            await tunnel.change_link(UP)
            async with asyncio.TaskGroup() as tasks:
                for each in peers:
                    tasks.create_task(tunnel.apply([PutPeer(each)]))
                    tasks.create_task(tunnel.dump())
            assert allowed(await tunnel.dump()) == wanted(*peers)

        run(make_tunnel, body)

    def test_a_cancelled_call_leaves_the_tunnel_usable(self, make_tunnel: Callable[[], Tunnel]) -> None:
        """A cancelled call, wherever it was, leaves the tunnel usable and its answer with nobody else."""
        peers = [peer(n, f"10.9.{n // 250}.{n % 250}/32") for n in range(1, 501)]

        async def body(tunnel: Tunnel) -> None:
            await tunnel.change_link(UP)
            for call in (lambda: tunnel.apply([PutPeer(each) for each in peers]), tunnel.dump, tunnel.link):
                begun = [asyncio.ensure_future(call()) for _ in range(3)]
                await asyncio.sleep(0)
                for task in begun:
                    task.cancel()
                await asyncio.gather(*begun, return_exceptions=True)
            await tunnel.apply([PutPeer(each) for each in peers])
            assert allowed(await tunnel.dump()) == wanted(*peers)
            assert (await present(tunnel)).up

        run(make_tunnel, body)

    def test_close_leaves_nothing(self, make_tunnel: Callable[[], Tunnel]) -> None:
        """close() gives back every descriptor and thread, twice is fine, and the interface stays."""

        async def body(other: Tunnel) -> None:
            await other.change_link(UP)  # whatever is opened once and for all is open now
            descriptors, threads = open_descriptors(), threading.active_count()
            for _ in range(3):
                tunnel = make_tunnel()
                await tunnel.change_link(UP)
                await tunnel.configure(DeviceChange(PRIVATE_KEY, PORT))
                await tunnel.apply([PutPeer(peer(1, "10.9.0.2/32"))])
                await tunnel.dump()
                await tunnel.close()
                await tunnel.close()
                with pytest.raises(TunnelError):
                    await tunnel.dump()
            assert open_descriptors() == descriptors
            assert threading.active_count() == threads
            assert await other.link() is not None

        run(make_tunnel, body)
