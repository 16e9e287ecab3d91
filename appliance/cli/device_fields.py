"""Reads devices with the state that the store tells, and formats them."""

from __future__ import annotations

import shlex
from collections import Counter
from dataclasses import dataclass, replace
from ipaddress import IPv4Network, IPv6Network
from typing import TYPE_CHECKING, Any

from appliance.cli import device_file, output
from appliance.cli.session_fields import addresses, none
from appliance.client.humanize import clock_time
from appliance.config.plans import Terms
from appliance.domain import accounting
from appliance.domain.device import NOTHING, Circumstances, Condition, Outdated, decide
from appliance.domain.entities import State
from appliance.domain.tiers import is_limited
from appliance.metering.usage import Quotas
from appliance.network.wireguard.keys import encode
from appliance.sessions.device_circumstances import counted_live
from appliance.store.queries import accounts as account_rows
from appliance.store.queries import node as node_row
from appliance.store.queries import sessions as session_rows

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    import aiosqlite

    from appliance.cli.admin import Admin
    from appliance.config.settings import WireGuardSettings
    from appliance.domain.device import Device
    from appliance.domain.entities import Session
    from appliance.domain.quota import Quota
    from appliance.store.queries.node import NodeRow

COLUMNS = ("DEVICE", "STATE", "ADDRESS", "CREATED", "HANDSHAKE", "IN", "OUT", "TIME", "TIER", "ID")
SPARE = ("ID", "TIER", "CREATED", "ADDRESS")
WORDS = {"address": "IPv4 address", "address6": "IPv6 address", "server_key": "the exit's key", "endpoint": "endpoint"}


@dataclass(frozen=True, slots=True)
class Seen:
    """Holds a device with its state, its session if it has one, and the time of all of its sessions so far.

    `endpoint`: what a file made now says, None if that is not known.
    """

    device: Device
    condition: Condition
    session: Session | None
    seconds: int
    endpoint: str | None

    @property
    def stale(self) -> Sequence[str]:
        """Returns what the device's file says that is no longer so."""
        return self.device.stale(self.endpoint)

    @property
    def is_outdated(self) -> bool:
        """Tells whether its file has an old address or server key: it does not work, or not in IPv6."""
        return self.device.outdated != NOTHING

    @property
    def bytes_in(self) -> int:
        return self.device.bytes_in + (0 if self.session is None else self.session.bytes_in)

    @property
    def bytes_out(self) -> int:
        return self.device.bytes_out + (0 if self.session is None else self.session.bytes_out)

    @property
    def last_handshake_at(self) -> int | None:
        own = None if self.session is None else self.session.last_handshake_at
        return self.device.last_handshake_at if own is None else own

    @property
    def state(self) -> str:
        held = self.condition.held_reason
        state = self.condition.state if held is None else f"{self.condition.state} ({held})"
        if self.is_outdated:
            return f"{state}, outdated"
        return f"{state}, stale" if self.stale else state


async def read(
    a: Admin, select: Callable[[aiosqlite.Connection], Awaitable[list[Device]]]
) -> tuple[list[Seen], DeviceFields]:
    """Returns the devices that `select` reads, as of one moment, and what formats them; quotas up to now."""
    async with a.store.snapshot() as db:
        devices, node = await select(db), await node_row.read(db)
        sessions = await session_rows.unfinished(db)
        accounts = await account_rows.by_ids(db, {d.account_id for d in devices})
    quotas, terms = Quotas(a.store, None, Terms(a.settings), a.clock), a.settings.tiers
    limited = [account for account in accounts.values() if is_limited(terms[account.tier])]
    used = {account.id: await quotas.of(account) for account in limited}
    own = {s.device_id: s for s in sessions if s.device_id}
    live = Counter(s.account_id for s in sessions if s.state is State.LIVE)
    endpoint = device_file.known_endpoint(a)

    def seen(d: Device) -> Seen:
        session = own.get(d.id)
        condition = decide(circumstances(a, d, session, used.get(d.account_id), live[d.account_id], node.drained))
        counted = 0 if session is None else accounting.seconds(session, node.heartbeat, a.clock.now())
        return Seen(d, condition, session, d.counted_ms // 1000 + counted, endpoint)

    return [seen(d) for d in devices], DeviceFields(_served(node, a.settings.wireguard))


def _served(node: NodeRow, configured: WireGuardSettings) -> WireGuardSettings:
    """Returns the settings with the subnets of which devices have addresses: those noted last, as others that are
    configured by now are not in force before the server has started with them."""
    if node.subnet is None:
        return configured
    subnet6 = IPv6Network(node.subnet6) if node.subnet6 else None
    return replace(configured, subnet=IPv4Network(node.subnet), subnet6=subnet6)


def circumstances(
    a: Admin, d: Device, session: Session | None, used: Quota | None, live: int, drained: bool
) -> Circumstances:
    limit = a.settings.tiers[d.account_tier].max_live_sessions
    return Circumstances(
        disabled=d.account_disabled,
        paused=d.paused,
        drained=drained,
        quota=used,
        live=counted_live(live, limit, used, begins=False),
        live_limit=limit,
        connected=session is not None and session.state is State.LIVE,
    )


def _advice(s: Seen) -> str:
    name = shlex.quote(f"{s.device.account}/{s.device.name}")
    another = f"wg-appliance device rotate {name}"
    if not s.is_outdated:
        return f"its file dials {s.device.endpoint}, a new one {s.endpoint}; if the old does not lead here: {another}"
    parts = ", ".join(WORDS[each] for each in s.stale)
    what = "IPv6 does not work" if s.device.outdated == Outdated.ADDRESS6 else "it does not work"
    return f"no longer so in its file: {parts}; {what}: {another}"


class DeviceFields:
    """Formats devices of this node, which have addresses in its subnets."""

    def __init__(self, wireguard: WireGuardSettings) -> None:
        self._address = addresses(wireguard.subnet)
        self._address6 = none if wireguard.subnet6 is None else addresses(wireguard.subnet6)

    def addresses(self, d: Device) -> list[str]:
        found = self._address(d.address_offset), self._address6(d.address_offset) if d.ipv6 else None
        return [address for address in found if address is not None]

    def identity(self, d: Device) -> dict[str, Any]:
        """Returns what of a device does not change by its use, named as in the HTTP API."""
        return {
            "id": d.id,
            "name": d.name,
            "account": d.account,
            "tier": d.account_tier,
            "region": d.region,
            "endpoint": d.endpoint,
            "public_key": encode(d.public_key),
            "address": self._address(d.address_offset),
            "address6": self._address6(d.address_offset) if d.ipv6 else None,
            "created_at": output.rfc3339(d.created_at),
        }

    def of(self, s: Seen) -> dict[str, Any]:
        """Returns all of it; null where the API leaves a field out."""
        until = s.condition.held_until
        return self.identity(s.device) | {
            "state": s.condition.state,
            "held_reason": s.condition.held_reason,
            "held_until": None if until is None else output.rfc3339_end(until),
            "stale": list(s.stale) or None,
            "session_id": None if s.session is None else s.session.id,
            "last_handshake_at": output.rfc3339(s.last_handshake_at),
            "bytes_in": s.bytes_in,
            "bytes_out": s.bytes_out,
            "seconds": s.seconds,
        }

    def lines(self, s: Seen) -> list[tuple[str, object]]:
        """Returns the same for people, without what there is nothing to say of."""
        sizes = {"bytes_in": output.size(s.bytes_in), "bytes_out": output.size(s.bytes_out)}
        readable = self.of(s) | sizes | {"seconds": clock_time(s.seconds)}
        if s.stale:
            readable["stale"] = _advice(s)
        return [(name, value) for name, value in readable.items() if value not in (None, "")]

    def cells(self, s: Seen, now: int) -> Sequence[object]:
        d = s.device
        return (
            *(f"{d.account}/{d.name}", s.state, self._address(d.address_offset) or "-"),
            *(output.ago(d.created_at, now), output.ago(s.last_handshake_at, now)),
            *(output.size(s.bytes_in), output.size(s.bytes_out), clock_time(s.seconds), d.account_tier, d.id),
        )
