"""A device in the store of an exit under test, and its client."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from appliance.domain import ids
from appliance.domain.device import Device
from appliance.store.queries import devices as device_rows
from appliance.store.queries import node as node_row
from tests.support.api.exit_under_test import new_key

if TYPE_CHECKING:
    from appliance.domain.entities import Account
    from tests.support.api.exit_under_test import ExitUnderTest


@dataclass
class DeviceUnderTest:
    """A device, and what its client does."""

    exit_: ExitUnderTest
    id: str
    key: bytes

    @property
    def has_peer(self) -> bool:
        return self.key in self.exit_.tunnel.peers

    def sends(self, rx: int, tx: int = 0) -> None:
        self.exit_.tunnel.add_traffic(self.key, rx=rx, tx=tx)

    async def shakes(self) -> None:
        """It shakes hands, and the exit has found it and opened a session."""
        await self.exit_.shake(self.key)

    def sessions(self) -> list[tuple[str, str | None, int, int, int]]:
        """State, reason, bytes in and out, and counted time of each, oldest first."""
        return self.exit_.rows(  # type: ignore[return-value]  # five columns
            """
            SELECT s.state, s.reason, coalesce(p.bytes_in, s.bytes_in), coalesce(p.bytes_out, s.bytes_out),
                coalesce(p.counted_ms, s.counted_ms)
            FROM sessions s LEFT JOIN peers p ON p.address_offset = s.address_offset AND s.state <> 'terminated'
            WHERE s.device_id = ? ORDER BY s.number
            """,
            self.id,
        )

    def totals(self) -> tuple[int, int, int]:
        """Bytes in and out, and counted time of its sessions that have ended."""
        ((*found,),) = self.exit_.rows("SELECT bytes_in, bytes_out, counted_ms FROM devices WHERE id = ?", self.id)
        return tuple(found)  # type: ignore[return-value]  # three columns


def new_device(exit_: ExitUnderTest, account: Account, offset: int, name: str = "phone") -> Device:
    _, key = new_key()
    return Device(
        id=ids.device_id(),
        account_id=account.id,
        account=account.name,
        account_tier=account.tier,
        account_disabled=False,
        name=name,
        region="fsn",
        public_key=key,
        address_offset=offset,
        ipv6=True,
        created_at=exit_.clock.wall_ms,
        paused=False,
        endpoint="192.0.2.1:51820",
    )


async def add(exit_: ExitUnderTest, device: Device) -> None:
    """Puts a device into the store as another process does."""
    async with exit_.store.write() as db:
        await device_rows.insert(db, [device])
        await node_row.request(db)


async def a_device(exit_: ExitUnderTest, account: Account, offset: int = 9, name: str = "phone") -> DeviceUnderTest:
    """Adds a device, and lets the server take it over."""
    device = new_device(exit_, account, offset, name)
    await add(exit_, device)
    await exit_.tick()
    return DeviceUnderTest(exit_, device.id, device.public_key)
