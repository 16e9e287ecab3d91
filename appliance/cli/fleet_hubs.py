"""Implements `fleet hubs`: which hosts are the fleet's hubs."""

from __future__ import annotations

from typing import TYPE_CHECKING

from appliance.cli import output
from appliance.cli.admin import run
from appliance.cli.fleet_founding import dialled_here
from appliance.cli.fleet_server import SEE_LOG, import_all, require_believed, require_hub, seen
from appliance.config.own_ports import route_port
from appliance.domain.errors import Conflict, HostError, NotFound
from appliance.domain.fleet_member import LEAST_HUBS
from appliance.fleet.membership.hub_set import HubSet
from appliance.fleet.membership.identity import FleetFolder
from appliance.store.queries import fleet_members, fleet_state

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from appliance.cli.admin import Admin
    from appliance.fleet.membership.members import FleetMember
    from appliance.fleet.status.status import FleetStatus, NodeStatus

HEARD_WITHIN_S, TOLD_WITHIN_S, STAND_WITHIN_S = 5.0, 40.0, 60.0
STATUS = "wg-appliance fleet status"


def hubs(config_file: Path | None, names: Sequence[str]) -> None:
    async def work(a: Admin) -> tuple[bool, float]:
        await require_hub(a, "which hosts are the hubs is decided")
        require_believed(a)
        async with a.store.read() as db:
            members = await fleet_members.present(db)
        own_id = FleetFolder(a.state.path).keys().node_id
        named = named_members(names, members, own_id)
        # One that has just joined is heard within seconds. Each tells where it is dialled as it follows the hub,
        # twice a minute at least.
        await seen(a, lambda status: status is None or _are_there(status, named), HEARD_WITHIN_S)
        status = await seen(a, lambda status: status is None or _have_told(status, named, own_id), TOLD_WITHIN_S)
        if status is None:
            raise HostError("the server does not run here: start it (systemctl start wg-appliance)")
        addresses = fit_addresses(named, own_id, {each.id: each for each in status.nodes})
        began = a.clock.host.now().boot_ms
        changed = await _store(a, own_id, addresses | {own_id: dialled_here(a.settings, a.state)})
        await _await_hubs(a, [each.name for each in named])
        return changed, (a.clock.host.now().boot_ms - began) / 1000

    import_all()
    changed, seconds = run(config_file, work)
    if not changed:
        output.remark(f"the hubs are {', '.join(names)} already")
    elif len(names) == 1:
        output.remark(f"{names[0]} is the only hub now: it took {seconds:.1f} s")
        output.remark("another host can stand by for it: wg-appliance fleet invite --hub")
    else:
        output.remark(f"the hubs are {', '.join(names)} now: it took {seconds:.1f} s")
        may_go = (len(names) - 1) // 2
        output.remark(f"{'one' if may_go == 1 else may_go} of them may be lost: another leads by itself then")
        if len(names) % 2 == 0:
            output.remark(f"of {len(names) - 1} as many may be lost as of {len(names)}: an odd number is better")


def named_members(names: Sequence[str], members: Sequence[FleetMember], own_id: str) -> list[FleetMember]:
    """Returns the members of these names. Raises NotFound or Conflict if they cannot be the hubs, saying what to do."""
    known = {each.name: each for each in members}
    own = next((each.name for each in members if each.id == own_id), "")
    for name in names:
        if name not in known:
            raise NotFound(f"no host {name} is in the fleet: {STATUS} lists them")
        if names.count(name) > 1:
            raise Conflict(f"{name} is named twice: name each host once")
    if own not in names:
        raise Conflict(
            f"this host, {own}, is the hub that leads, and has to be among them: name it too; to have another one lead "
            "first, stop this one's server (systemctl stop wg-appliance wg-appliance-hub), and run this command there"
        )
    if 1 < len(names) < LEAST_HUBS:
        raise Conflict(
            f"{len(names)} hubs are worse than one, as none may be lost: name {LEAST_HUBS}, or {own} alone, beside "
            "which another host can stand by (wg-appliance fleet invite --hub)"
        )
    return [known[name] for name in names]


def _are_there(status: FleetStatus, named: Sequence[FleetMember]) -> bool:
    return {each.id for each in named} <= {node.id for node in status.nodes if node.alive}


def _have_told(status: FleetStatus, named: Sequence[FleetMember], own_id: str) -> bool:
    """Tells whether those of them that are there have told where they are dialled."""
    others = {each.id for each in named} - {own_id}
    return all(node.dialled is not None for node in status.nodes if node.id in others and node.alive)


def fit_addresses(named: Sequence[FleetMember], own_id: str, nodes: Mapping[str, NodeStatus]) -> dict[str, str]:
    """Returns where the others of these would be dialled. Raises Conflict, saying what to do, if one cannot be a hub.

    `nodes`: as the running server knows them.
    """
    found = dict[str, str]()
    for each in named:
        if each.id == own_id:
            continue
        node = nodes.get(each.id)
        if node is None or not node.alive:
            raise Conflict(f"{each.name} is away: have it connect first ({STATUS}), or name another host")
        if node.dialled is None:
            raise Conflict(
                f"{each.name} has not told where it would be dialled: it is of an older version: wg-appliance upgrade "
                "there"
            )
        if not node.dialled:
            raise Conflict(
                f"{each.name} has no nats-server, or no address that others could dial: there, pip install "
                "'wg-appliance[fleet]', and set fleet.advertise, or fleet.listen to other than loopback, and restart it"
            )
        if node.dialled in found.values():
            raise Conflict(f"{each.name} would be dialled at {node.dialled}, as another one: set fleet.advertise there")
        found[each.id] = node.dialled
    return found


async def _store(a: Admin, own_id: str, addresses: Mapping[str, str]) -> bool:
    """Returns whether the hubs were others before."""
    async with a.store.write() as db:
        row = await fleet_state.read(db)
        if row is None or row.role != "hub":
            raise Conflict(f"another hub leads by now: run this command there ({STATUS})")
        before = HubSet.of(await fleet_members.present(db))
        if {each.id: each.dialled for each in before.hubs} == addresses:
            return False
        await fleet_members.set_hubs(db, own_id, [id_ for id_ in addresses if id_ != own_id], a.now)
        for id_, dialled in addresses.items():
            await fleet_members.put_dialled(db, id_, dialled)
        return True


def said_of_the_rest(members: Sequence[FleetMember], leaves: str) -> list[str]:
    """Returns what is said of the other hubs where one of several leaves: they go on without it. `leaves`: its name."""
    before = HubSet.of(members)
    rest = [each.name for each in before.hubs if each.name != leaves]
    if not before.is_cluster or len(rest) == len(before.hubs):
        return []
    if len(rest) >= LEAST_HUBS:
        return [f"the hubs are {', '.join(rest)} now"]
    return [
        f"{', '.join(rest)} are no longer hubs of which either may be lost: one leads, and the other stands by for "
        "wg-appliance fleet promote",
        "to have three again, on the one that leads: wg-appliance fleet hubs, with the name of another host",
    ]


async def _await_hubs(a: Admin, names: Sequence[str]) -> None:
    """Returns when the running server is one of these hubs, leads, and hears the others. Raises HostError if not."""
    async with a.store.read() as db:
        hubs = HubSet.of(await fleet_members.present(db))
    since = hubs.since if hubs.is_cluster else 0

    def stand(status: FleetStatus | None) -> bool:
        return status is not None and status.quorum and status.hubs_since == since and not _lacking(status, names)

    status = await seen(a, stand, STAND_WITHIN_S)
    if stand(status):
        return
    lacking = names if status is None else _lacking(status, names)
    port = a.settings.fleet.listen.port
    ports = f"{port}/tcp and {route_port(port)}/tcp"
    raise HostError(
        f"the hubs are stored, and are not one after {STAND_WITHIN_S:g} s; not heard, or not the hub: "
        f"{', '.join(lacking) or 'none'}. Let {ports} through between them, look into their logs ({SEE_LOG}), and run "
        "the same command again"
    )


def _lacking(status: FleetStatus, names: Sequence[str]) -> list[str]:
    """Returns which of the hubs are not heard, or are not what they are to be."""
    found = []
    for node in status.nodes:
        role = "hub" if node.id == status.this else "standby"
        if node.name in names and not (node.alive and node.role == role):
            found.append(node.name)
    return found
