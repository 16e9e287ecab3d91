"""Makes this host the first hub of a new fleet, and makes invitations to it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from appliance.domain.errors import Conflict
from appliance.domain.fleet_member import FleetMember, Role
from appliance.fleet.hub import config as hub_config
from appliance.fleet.hub.certificates import as_der, make_authority
from appliance.fleet.hub.control import renew_if_due
from appliance.fleet.hub.upkeep import AdmittedHosts, HubFacts, hub_settings
from appliance.fleet.joining import token as join_token
from appliance.fleet.link.nkey import NKey
from appliance.fleet.membership import identity
from appliance.fleet.membership.hub_addresses import address_of
from appliance.fleet.membership.identity import HubSecrets, Membership
from appliance.store.queries import fleet_changes, fleet_invites, fleet_members, fleet_state
from appliance.store.queries.fleet_invites import Invite

if TYPE_CHECKING:
    from pathlib import Path

    import aiosqlite

    from appliance.fleet.hub.files import HubFiles
    from appliance.fleet.membership.identity import FleetFolder

FIRST_GENERATION = 1


@dataclass(frozen=True, slots=True)
class Founder:
    """Holds what the first hub is called and where it listens. `dialled`: what others dial, as HOST:PORT."""

    name: str
    region: str
    listen: str
    dialled: str


async def found(
    db: aiosqlite.Connection, folder: FleetFolder, files: HubFiles, program: Path, host: Founder, now: int
) -> Membership:
    """Makes the fleet, in a transaction of the caller's, with what nats-server needs to start.

    The membership is returned, to be saved after the transaction is committed: from then on the host is in the fleet.
    Raises Conflict: it is in one already. Raises FleetError or HostError.
    """
    if folder.is_member:
        raise Conflict(
            "this host is in a fleet already: wg-appliance fleet status; to leave it: wg-appliance fleet leave"
        )
    keys = folder.keys()
    fleet_id = identity.new_fleet_id()
    authority = make_authority(fleet_id, now)
    of_hub = HubSecrets(NKey.new().seed, NKey.new().seed, authority.key)
    address = address_of(keys.node_id, host.dialled)
    membership = Membership(fleet_id, host.name, "hub", (address,), authority.certificate, identity.new_fleet_key())
    folder.save_hub_secrets(of_hub)
    await fleet_state.leave(db)  # what an interrupted one has left
    await fleet_state.enter(db, "hub", keys.node_id, FIRST_GENERATION)
    await fleet_members.put(
        db,
        FleetMember(
            keys.node_id, host.name, host.region, "hub", keys.nkey, keys.public_xkey, now, dialled=host.dialled
        ),
    )
    await fleet_changes.record(db)
    facts = HubFacts(keys.node_id, membership, of_hub, files.place.files, host.listen)
    settings = hub_settings(await AdmittedHosts.read(db), facts, now)
    files.create_folder()
    files.forget_leaf()  # of an authority that is no more
    renew_if_due(files, facts.made(now), settings)
    files.put_config(hub_config.render(settings), program)
    files.ask_restart()  # one that runs still is another fleet's, whose keys and authority are no more
    return membership


async def invite(db: aiosqlite.Connection, membership: Membership, role: Role, now: int, lasts_ms: int) -> str:
    """Returns a join token, good once, until it expires, from when the hub's server has seen the store's change.

    It names this hub alone, which admits. `role` hub: of a host that is to be a hub, too.
    """
    key = NKey.new()
    expires_at = now + lasts_ms
    await fleet_invites.add(db, Invite(key.public, role, now, expires_at))
    return join_token.encode(
        join_token.JoinToken(
            fleet_id=membership.fleet_id,
            hubs=(membership.hubs[0].address,),
            server_name=membership.hubs[0].server_name,
            ca=as_der(membership.ca),
            seed=key.seed,
            expires_at=expires_at,
            role=role,
        )
    )
