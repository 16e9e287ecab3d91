"""A host that is to be another part in its fleet ends the connections of this one, however slow one of them is."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace

import pytest

from appliance.server.fleet_assembly import FleetPart


class SlowLink:
    """Takes `turns` of the loop to close. `begun`, `closed`: how often that was."""

    def __init__(self, turns: float) -> None:
        self.turns = turns
        self.begun = self.closed = 0

    async def close(self, _goodbye_s: float) -> None:
        self.begun += 1
        while self.turns > 0:
            self.turns -= 1
            await asyncio.sleep(0)
        self.closed += 1


def test_one_connection_does_not_wait_for_the_other() -> None:
    """Given up, they are ended again with the rest of the part, and not a third time."""

    async def scene() -> None:
        link, hub = SlowLink(float("inf")), SlowLink(0)
        part = SimpleNamespace(link=link, hub=hub, _disconnected=False)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.02):
                await FleetPart.disconnect(part, 0.0)  # type: ignore[arg-type]
        assert (link.closed, hub.closed) == (0, 1)
        link.turns = 0
        for _ in range(2):
            await FleetPart.disconnect(part, 0.0)  # type: ignore[arg-type]
        assert (link.begun, link.closed) == (2, 1)

    asyncio.run(scene())
