"""Guards what live sessions and devices were told of this exit: interface, subnets and key cannot change under them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from appliance.config.plans import Terms
from appliance.domain import accounting
from appliance.domain.entities import Reason, State
from appliance.domain.errors import ConfigError
from appliance.metering.spending import Spending
from appliance.network.wireguard.keys import encode
from appliance.store.live import LiveSessions
from appliance.store.queries import accounts as account_rows
from appliance.store.queries import devices as device_rows
from appliance.store.queries import invoices, peers
from appliance.store.queries import node as node_row
from appliance.store.queries import sessions as rows
from appliance.store.rows.session_rows import SessionRows

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    import aiosqlite

    from appliance.config.settings import Settings
    from appliance.domain.clock import Moment
    from appliance.domain.entities import Session
    from appliance.store.database import Store
    from appliance.store.queries.node import NodeRow

NAMED_AT_MOST = 5


async def adopt(store: Store, settings: Settings, public_key: bytes, wall_ms: int) -> None:
    """Stores what the exit is now. Raises ConfigError, and changes nothing, if that strands sessions or devices."""
    wireguard = settings.wireguard
    subnet6 = "" if wireguard.subnet6 is None else str(wireguard.subnet6)
    async with store.write() as db:
        before = await node_row.read(db)
        changes = list(_changes(before, wireguard.interface, str(wireguard.subnet), subnet6, public_key))
        if before.interface is not None and changes:
            unfinished = await rows.unfinished(db)
            live = [s.id for s in unfinished if s.state is State.LIVE]
            if live:
                raise ConfigError(_refusal(changes, live))
            devices = await device_rows.count(db)
            if devices:
                raise ConfigError(_refusal_of_devices(changes, devices))
            closing = [s for s in unfinished if s.state is State.CLOSING]
            await _end(db, closing, Terms(settings), before.heartbeat, wall_ms)
        await node_row.set_identity(db, wireguard.interface, str(wireguard.subnet), subnet6, public_key)


async def _end(
    db: aiosqlite.Connection, closing: Sequence[Session], terms: Terms, heartbeat: Moment, wall_ms: int
) -> None:
    """Ends closing sessions: their peers and addresses went with what was changed. Time counts up to the heartbeat."""
    found, live = SessionRows(await account_rows.of_unfinished_sessions(db)), LiveSessions()
    for session in closing:
        found.put(session)
    live.load(found, heartbeat)
    count = Spending(live, terms).count(accounting.uncounted(closing, heartbeat, heartbeat), lambda _: heartbeat)
    await peers.add_readings(db, count.readings)
    await account_rows.put_windows(db, count.accounts.values())
    await invoices.add_readings(db, count.readings)
    await rows.mark_terminated(db, [(s.id, s.reason or Reason.ADMIN, wall_ms) for s in closing])
    await invoices.end(db, [(s.id, wall_ms) for s in closing])
    await peers.drop(db, [s.address_offset for s in closing])


def _changes(before: NodeRow, interface: str, subnet: str, subnet6: str, public_key: bytes) -> Iterator[str]:
    if before.interface != interface:
        yield f"wireguard.interface (was {before.interface}, now {interface})"
    if before.subnet != subnet:
        yield f"wireguard.subnet (was {before.subnet}, now {subnet})"
    if before.subnet6 != subnet6:
        yield f"wireguard.subnet6 (was {before.subnet6!r}, now {subnet6!r})"
    if before.public_key != public_key:
        old = "none" if before.public_key is None else encode(before.public_key)
        yield f"the server key (public key was {old}, now {encode(public_key)})"


def _refusal_of_devices(changes: list[str], count: int) -> str:
    whose = "1 device, whose file names" if count == 1 else f"{count} devices, whose files name"
    return (
        f"{' and '.join(changes)} cannot change while there {'is' if count == 1 else 'are'} {whose} what was; "
        "set it back, or remove them first: wg-appliance device list"
    )


def _refusal(changes: list[str], live: list[str]) -> str:
    named = ", ".join(live[:NAMED_AT_MOST]) + (f" and {len(live) - NAMED_AT_MOST} more" if live[NAMED_AT_MOST:] else "")
    return (
        f"{' and '.join(changes)} cannot change while sessions are live ({named}); "
        "set it back, or end them first: wg-appliance node drain --now"
    )
