"""The kernel's tunnel: the contract, and what comes of a dump being many messages."""

from __future__ import annotations

import asyncio
from contextlib import closing, suppress
from functools import partial
from socket import if_nametoindex
from typing import TYPE_CHECKING

import pytest

from appliance.domain.errors import DumpInterrupted
from appliance.network.netlink import constants
from appliance.network.netlink.generic import DUMP_ATTEMPTS, GenericNetlink, Result
from appliance.network.wireguard.backend import choose_backend, kernel_has_wireguard
from appliance.network.wireguard.device_tunnel import DeviceTunnel
from appliance.network.wireguard.encode import interface, peer_entries, peers_body
from appliance.network.wireguard.kernel import KernelDevice
from appliance.network.wireguard.parse import DumpParser
from appliance.network.wireguard.tunnel import PutPeer, RemovePeer, SocketAddress
from tests.support.real_tunnel_contract import RealTunnelContract
from tests.support.tunnel_contract import UP, allowed, peer, run, wanted

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from appliance.network.netlink.dump import DumpReader
    from appliance.network.wireguard.tunnel import Dump, Peer, Tunnel
    from tests.support.netns import Namespace


pytestmark = pytest.mark.under_kernel


class DisturbedDevice(GenericNetlink):
    """Something may happen in the middle of its dumps."""

    IN_THE_MIDDLE = 3  # datagrams, of 6 or more

    def __init__(self, family: str, version: int) -> None:
        super().__init__(family, version)
        self._datagrams = 0
        self.disturb([])

    def disturb(self, happenings: Iterable[Callable[[], None]]) -> None:
        """One of these in each of the next dumps, which are counted from now on."""
        self._happenings = iter(happenings)
        self.dumps = 0

    def _dump_once(self, reader: DumpReader[Result], family_id: int, command: int, body: bytes) -> Result:
        self.dumps += 1
        self._datagrams = 0
        return super()._dump_once(reader, family_id, command, body)

    def _receive(self) -> int:
        self._datagrams += 1
        if self._datagrams == self.IN_THE_MIDDLE:
            next(self._happenings, lambda: None)()
        return super()._receive()


class TestKernelTunnel(RealTunnelContract):
    @pytest.fixture
    def tunnel_named(self) -> Callable[[str], Tunnel]:
        return lambda name: DeviceTunnel(KernelDevice(name))

    def test_a_dump_under_changes_is_whole_or_interrupted(self, make_tunnel: Callable[[], Tunnel]) -> None:
        """While peers come and go, a dump is whole or says that it could not be: nobody who stayed is missing."""
        staying = [peer(n, f"10.{n // 250}.{n % 250}.1/32") for n in range(1, 1001)]
        passing = [peer(n, f"10.200.0.{n - 2000}/32") for n in range(2001, 2006)]

        async def body(tunnel: Tunnel) -> None:
            await tunnel.change_link(UP)
            await tunnel.apply([PutPeer(each) for each in staying])
            other = make_tunnel()
            enough = asyncio.Event()

            async def disturb() -> None:
                while not enough.is_set():
                    await other.apply([PutPeer(each) for each in passing])
                    await other.apply([RemovePeer(each.public_key) for each in passing])

            whole = 0
            disturbing = asyncio.ensure_future(disturb())
            try:
                for _ in range(30):
                    with suppress(DumpInterrupted):
                        found = allowed(await tunnel.dump())
                        whole += 1
                        assert wanted(*staying).items() <= found.items()
                        assert found.items() <= wanted(*staying, *passing).items()
            finally:
                enough.set()
                await disturbing
                await other.close()
            assert allowed(await tunnel.dump()) == wanted(*staying)
            assert whole

        run(make_tunnel, body)

    def test_a_dump_whose_cursor_is_removed_is_taken_again(self, make_tunnel: Callable[[], Tunnel], name: str) -> None:
        """The kernel ends a dump early when the peer it had come to is removed, and says so: it is taken again, and
        again, and none that misses those behind that peer is ever taken for whole."""
        peers = [peer(n, f"10.{n // 250}.{n % 250}.1/32") for n in range(1, 1201)]

        async def body(tunnel: Tunnel) -> None:
            await tunnel.change_link(UP)
            await tunnel.apply([PutPeer(each) for each in peers])
            family = constants.WG_GENL_NAME, constants.WG_GENL_VERSION
            with closing(GenericNetlink(*family)) as other, closing(DisturbedDevice(*family)) as device:
                parser = DumpParser(device.family_id())

                def dump() -> Dump:
                    return device.dump(parser, constants.WG_CMD_GET_DEVICE, interface(name))

                def take_away(*gone: Peer) -> None:
                    for entries in peer_entries(RemovePeer(each.public_key) for each in gone):
                        other.request(constants.WG_CMD_SET_DEVICE, peers_body(name, entries))

                assert allowed(dump()) == wanted(*peers)
                # The peer that the dump has come to by then is one of these.
                device.disturb([partial(take_away, *peers[300:700])])
                assert allowed(dump()) == wanted(*peers[:300], *peers[700:])
                assert device.dumps == 2
                device.disturb(partial(take_away, each) for each in peers[-DUMP_ATTEMPTS:])
                with pytest.raises(DumpInterrupted):
                    dump()
                assert device.dumps == DUMP_ATTEMPTS

        run(make_tunnel, body)

    def test_a_link_local_endpoint_has_its_interface(
        self, make_tunnel: Callable[[], Tunnel], namespace: Namespace
    ) -> None:
        """A link-local endpoint is read with its interface, and put back as it was read. (wireguard-go 0.0.20220316
        takes the interface, and does not tell it.)"""
        assert namespace.run("ip", "link", "add", "link0", "type", "veth", "peer", "name", "link1").returncode == 0

        async def body(tunnel: Tunnel) -> None:
            seen = SocketAddress(bytes.fromhex("fe80000000000000000000000000000a"), 4711, if_nametoindex("link0"))
            await tunnel.change_link(UP)
            await tunnel.apply([PutPeer(peer(1), endpoint=seen)])
            assert (await tunnel.dump()).peers[peer(1).public_key].endpoint == seen

        run(make_tunnel, body)

    def test_auto_chooses_the_kernel(self, namespace: Namespace) -> None:  # noqa: ARG002 - the choice looks at its interfaces
        """`auto` takes the kernel where the kernel has WireGuard, and says why."""
        assert kernel_has_wireguard()
        tunnel, reason = choose_backend("auto", "wga0")
        asyncio.run(tunnel.close())
        assert (tunnel.backend, reason) == ("kernel", "the kernel has WireGuard")
