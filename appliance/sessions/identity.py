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
    from ipaddress import IPv6Network

    import aiosqlite

    from appliance.config.settings import Settings, WireGuardSettings
    from appliance.domain.clock import Moment
    from appliance.domain.entities import Session
    from appliance.store.database import Store
    from appliance.store.queries.node import NodeRow

NAMED_AT_MOST = 5


async def adopt(store: Store, settings: Settings, public_key: bytes, wall_ms: int) -> None:
    """Stores what the exit is now. Raises ConfigError, and changes nothing, if that strands sessions or devices."""
    async with store.write() as db:
        before = await node_row.read(db)
        found = changes(before, settings.wireguard, public_key)
        if found:
            await end_closing(db, found, settings, before.heartbeat, wall_ms)
            devices = await device_rows.count(db)
            if devices:
                raise ConfigError(_refusal_of_devices(found, devices))
        await put(db, settings.wireguard, public_key)


def changes(before: NodeRow, now: WireGuardSettings, public_key: bytes) -> list[str]:
    """Returns in words what clients were told otherwise; nothing if nobody was told anything yet."""
    return [] if before.interface is None else [*_changes(before, now, public_key)]


async def put(db: aiosqlite.Connection, now: WireGuardSettings, public_key: bytes) -> None:
    """Stores what the exit is now, in the caller's transaction."""
    await node_row.set_identity(db, now.interface, str(now.subnet), _text(now.subnet6), public_key)


async def end_closing(
    db: aiosqlite.Connection, found: Sequence[str], settings: Settings, heartbeat: Moment, wall_ms: int
) -> None:
    """Ends closing sessions: their peers and addresses went with what was changed. Time counts up to the heartbeat.

    Raises ConfigError if there are live ones.
    """
    unfinished = await rows.unfinished(db)
    live = [s.id for s in unfinished if s.state is State.LIVE]
    if live:
        raise ConfigError(_refusal(found, live))
    closing = [s for s in unfinished if s.state is State.CLOSING]
    await _end(db, closing, Terms(settings), heartbeat, wall_ms)


async def _end(
    db: aiosqlite.Connection, closing: Sequence[Session], terms: Terms, heartbeat: Moment, wall_ms: int
) -> None:
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
    # A device's peer may still be there, with its counters: its next session goes on from what was billed of it.
    await device_rows.add_ended(db, [s.id for s in closing if s.device_id])
    await peers.drop(db, [s.address_offset for s in closing])


def _changes(before: NodeRow, now: WireGuardSettings, public_key: bytes) -> Iterator[str]:
    subnet, subnet6 = str(now.subnet), _text(now.subnet6)
    if before.interface != now.interface:
        yield f"wireguard.interface (was {before.interface}, now {now.interface})"
    if before.subnet != subnet:
        yield f"wireguard.subnet (was {before.subnet}, now {subnet})"
    if before.subnet6 != subnet6:
        yield f"wireguard.subnet6 (was {before.subnet6!r}, now {subnet6!r})"
    if before.public_key != public_key:
        old = "none" if before.public_key is None else encode(before.public_key)
        yield f"the server key (public key was {old}, now {encode(public_key)})"


def _text(subnet6: IPv6Network | None) -> str:
    return "" if subnet6 is None else str(subnet6)


def _refusal_of_devices(found: Sequence[str], count: int) -> str:
    whose, them = ("1 device", "it") if count == 1 else (f"{count} devices", "them")
    return (
        f"{' and '.join(found)} cannot change while there {'is' if count == 1 else 'are'} {whose}; set it back, or "
        f"take {them} along: wg-appliance node renumber"
    )


def _refusal(found: Sequence[str], live: list[str]) -> str:
    named = ", ".join(live[:NAMED_AT_MOST]) + (f" and {len(live) - NAMED_AT_MOST} more" if live[NAMED_AT_MOST:] else "")
    return (
        f"{' and '.join(found)} cannot change while sessions are live ({named}); "
        "set it back, or end them first: wg-appliance node drain --now"
    )
