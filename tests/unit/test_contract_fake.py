"""The in-memory tunnel keeps the contract, so what is tested on it holds on a real one."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import pytest

from appliance.network.wireguard import keys
from tests.support.fake_tunnel import FakeInterface, FakeTunnel
from tests.support.tunnel_contract import TunnelContract

if TYPE_CHECKING:
    from collections.abc import Callable

    from appliance.network.wireguard.tunnel import Tunnel
    from tests.support.tunnel_contract import Exchange


class TestFakeTunnel(TunnelContract):
    @pytest.fixture
    def make_tunnel(self) -> Callable[[], Tunnel]:
        return partial(FakeTunnel, FakeInterface())

    @pytest.fixture
    def exchange(self) -> Exchange:
        async def play(tunnel: Tunnel, client_private_key: bytes) -> None:
            assert isinstance(tunnel, FakeTunnel)
            tunnel.add_traffic(keys.public_key(client_private_key), rx=148, tx=92, handshake_ns=10**18)

        return play
