"""Takes devices along when subnet, key or interface of the exit were changed, while no server runs."""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Network, ip_network
from typing import TYPE_CHECKING

from msgspec.structs import replace

from appliance.domain.device import NOTHING, Outdated
from appliance.domain.errors import ConfigError
from appliance.network.address_pool import AddressPool
from appliance.sessions import identity
from appliance.store.queries import devices as rows
from appliance.store.queries import node as node_row

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from appliance.config.settings import Settings
    from appliance.domain.device import Device
    from appliance.network.exit_node import Address, Exit
    from appliance.store.database import Store
    from appliance.store.queries.node import NodeRow


@dataclass(frozen=True, slots=True)
class Moved:
    """Holds a device as it is now, with its addresses before and now, and what in its file is no longer so.

    `outdated` has what earlier renumberings have made wrong, too: nothing but `device rotate` makes a file good again.
    """

    device: Device
    was: tuple[Address, ...]
    now: tuple[Address, ...]
    outdated: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Renumbering:
    """Holds what was changed of the exit, in words, and the devices that it concerns. `interface`: what it was."""

    changes: list[str]
    moved: list[Moved]
    interface: str | None
    drained: bool

    @property
    def outdated(self) -> list[Moved]:
        """Returns the devices whose files must be made anew."""
        return [each for each in self.moved if each.outdated]


async def planned(store: Store, exit_: Exit, settings: Settings, endpoint: str | None) -> Renumbering:
    """Returns what `renumber` will do. `endpoint`: what a file made now says, None if that is not known.

    Raises ConfigError if the subnet has not room enough.
    """
    async with store.snapshot() as db:
        return _plan(await node_row.read(db), await rows.newest(db, None, 0), exit_, settings, endpoint)


async def renumber(store: Store, exit_: Exit, settings: Settings, endpoint: str | None, wall_ms: int) -> Renumbering:
    """Gives each device a place in the subnet, and stores what the exit is now, in one transaction.

    Raises ConfigError, and changes nothing, if the subnet has not room enough or sessions are live.
    """
    async with store.write() as db:
        before = await node_row.read(db)
        plan = _plan(before, await rows.newest(db, None, 0), exit_, settings, endpoint)
        if plan.changes:
            await identity.end_closing(db, plan.changes, settings, before.heartbeat, wall_ms)
            await rows.move(db, [each.device for each in plan.moved])
            await identity.put(db, settings.wireguard, exit_.public_key)
    return plan


def _plan(
    before: NodeRow, devices: Sequence[Device], exit_: Exit, settings: Settings, endpoint: str | None
) -> Renumbering:
    changes = identity.changes(before, settings.wireguard, exit_.public_key)
    if not changes or before.subnet is None:
        return Renumbering([], [], before.interface, before.drained)
    old = ip_network(before.subnet), ip_network(before.subnet6) if before.subnet6 else None
    key_changed = before.public_key != exit_.public_key

    def moved(was: Device, offset: int) -> Moved:
        # An exit without IPv6 has noted that none of its devices has it: they get it with the exit.
        ipv6 = was.ipv6 or (old[1] is None and exit_.subnet6 is not None)
        had, has = tuple(_addresses(old, was)), tuple(exit_.addresses(offset, ipv6=ipv6))
        outdated = was.outdated | _outdated(had, has, key_changed=key_changed)
        now = replace(was, address_offset=offset, ipv6=ipv6, outdated=outdated)
        return Moved(now, had, has, now.stale(endpoint))

    places = offsets([d.address_offset for d in devices], exit_.subnet)
    return Renumbering(changes, [*map(moved, devices, places)], before.interface, before.drained)


def _addresses(
    subnets: tuple[IPv4Network | IPv6Network, IPv4Network | IPv6Network | None], d: Device
) -> Iterator[Address]:
    yield subnets[0][d.address_offset]
    if d.ipv6 and subnets[1] is not None:
        yield subnets[1][d.address_offset]


def _outdated(was: tuple[Address, ...], now: tuple[Address, ...], *, key_changed: bool) -> Outdated:
    """Returns what a file says that is no longer so. It may lack an address of IPv6 that its device has now."""
    gone = {address.version for address in set(was) - set(now)}
    address = Outdated.ADDRESS if 4 in gone else NOTHING
    address6 = Outdated.ADDRESS6 if 6 in gone else NOTHING
    return address | address6 | (Outdated.SERVER_KEY if key_changed else NOTHING)


def offsets(held: Sequence[int], subnet: IPv4Network) -> list[int]:
    """Returns a place in the subnet for each of these: its own if that is one, else a free one.

    Raises ConfigError if they are too many.
    """
    pool = AddressPool(subnet)
    if len(held) > pool.capacity:
        raise ConfigError(
            f"wireguard.subnet {subnet} has room for {pool.capacity}, and there are {len(held)} devices: "
            "take a larger one, or remove some: wg-appliance device list"
        )
    clients = range(2, subnet.num_addresses - 1)
    for offset in held:
        if offset in clients:
            pool.reserve(offset)
    return [offset if offset in clients else pool.allocate() for offset in held]
