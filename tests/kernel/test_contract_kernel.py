"""The kernel's tunnel: the contract, and what comes of a dump being many messages."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import TYPE_CHECKING

import pytest

from appliance.errors import DumpInterrupted
from appliance.wireguard.backend import choose_backend, kernel_has_wireguard
from appliance.wireguard.kernel import KernelTunnel
from appliance.wireguard.tunnel import PutPeer, RemovePeer
from tests.real_tunnel_contract import RealTunnelContract
from tests.tunnel_contract import UP, allowed, peer, run, wanted

if TYPE_CHECKING:
    from collections.abc import Callable

    from appliance.wireguard.tunnel import Tunnel
    from tests.netns import Namespace


class TestKernelTunnel(RealTunnelContract):
    @pytest.fixture
    def tunnel_named(self) -> Callable[[str], Tunnel]:
        return KernelTunnel

    def test_dump_under_changes(self, make_tunnel: Callable[[], Tunnel]) -> None:
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

    def test_chosen(self, namespace: Namespace) -> None:  # noqa: ARG002 - the choice looks at its interfaces
        """`auto` takes the kernel where the kernel has WireGuard, and says why."""
        assert kernel_has_wireguard()
        tunnel, reason = choose_backend("auto", "wga0")
        asyncio.run(tunnel.close())
        assert (tunnel.backend, reason) == ("kernel", "the kernel has WireGuard")
