"""A tunnel in memory whose dumps can fail, or end early as the kernel's do when a peer is removed under them."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from appliance.domain.errors import TunnelError
from tests.support.fake_tunnel import FakeInterface, FakeTunnel

if TYPE_CHECKING:
    from appliance.network.wireguard.tunnel import Dump


class WaywardTunnel(FakeTunnel):
    """As many of the next dumps as `failing_dumps` raise; as many as `short_dumps` show no peer."""

    def __init__(self, interface: FakeInterface | None = None) -> None:
        super().__init__(interface)
        self.failing_dumps = 0
        self.short_dumps = 0

    async def dump(self) -> Dump:
        found = await super().dump()
        if self.failing_dumps:
            self.failing_dumps -= 1
            raise TunnelError("the dump failed")
        if self.short_dumps:
            self.short_dumps -= 1
            return replace(found, peers={})
        return found
