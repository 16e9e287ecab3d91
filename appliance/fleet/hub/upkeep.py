"""Keeps a hub's nats-server to what the store says: its members, its open invitations; and renews its certificate."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from appliance.domain.errors import CutOff, FleetError, HostError, StoreUnavailable
from appliance.fleet.hub.authorities import signer
from appliance.fleet.hub.cluster import cluster_of
from appliance.fleet.hub.config import HubSettings
from appliance.fleet.hub.control import MadeBy
from appliance.fleet.link.nkey import NKey
from appliance.fleet.membership.hub_addresses import address_of
from appliance.fleet.membership.hub_set import HubSet
from appliance.sessions.stopping import wait
from appliance.store.commits import StoreNews
from appliance.store.queries import fleet_invites, fleet_members

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    import aiosqlite

    from appliance.domain.clock import Clock
    from appliance.fleet.hub.certificates import CertifiedKey
    from appliance.fleet.hub.cluster import Cluster
    from appliance.fleet.hub.config import ServerFiles
    from appliance.fleet.hub.control import HubControl
    from appliance.fleet.membership.identity import HubSecrets, Membership
    from appliance.fleet.membership.members import FleetMember
    from appliance.store.database import Store
    from appliance.store.queries.fleet_invites import Invite

log = logging.getLogger(__name__)

LOOK_S = 0.5  # how soon an invitation that a command has made is good
HOUR_MS = 3_600_000
OUT_MS = 10 * 60_000  # for so long a member is not let in that floods the fleet
TOLD_MS = 24 * HOUR_MS  # for so long the holder of an expired invitation is told that it has expired


@dataclass(frozen=True, slots=True)
class HubFacts:
    """Holds what a hub's configuration is made from beside the store. `listen`: HOST:PORT."""

    node_id: str
    membership: Membership
    of_hub: HubSecrets
    files: ServerFiles
    listen: str

    @property
    def server_name(self) -> str:
        return address_of(self.node_id, "").server_name

    @property
    def authority(self) -> CertifiedKey:
        return signer(self.membership.ca, self.of_hub)

    def is_of(self, membership: Membership, of_hub: HubSecrets) -> bool:
        """Tells whether these are of the same fleet, and of the same users; their authorities may be others."""
        of_this = self.membership.fleet_id, self.of_hub.hub_seed, self.of_hub.system_seed
        return of_this == (membership.fleet_id, of_hub.hub_seed, of_hub.system_seed)

    def made(self, now: int) -> MadeBy:
        """Returns what the hub's certificate is made by, now."""
        return MadeBy(self.authority, self.membership.ca, now)


@dataclass(frozen=True, slots=True)
class AdmittedHosts:
    """Holds whom the store says the hub's nats-server is to let in."""

    members: tuple[FleetMember, ...]
    invites: tuple[Invite, ...]

    @classmethod
    async def read(cls, db: aiosqlite.Connection) -> AdmittedHosts:
        invites = await fleet_invites.everything(db)
        return cls(tuple(await fleet_members.present(db)), tuple(invites))


def hub_settings(
    admitted: AdmittedHosts, facts: HubFacts, now: int, hubs_of: Callable[[Iterable[FleetMember]], HubSet] = HubSet.of
) -> HubSettings:
    """Returns the settings by which the hub's nats-server is to go now. Raises FleetError."""
    hubs = hubs_of(admitted.members)
    return HubSettings(
        server_name=facts.server_name,
        listen=facts.listen,
        files=replace(facts.files, streams=_streams(facts, hubs)),
        hub_nkey=NKey.from_seed(facts.of_hub.hub_seed).public,
        system_nkey=NKey.from_seed(facts.of_hub.system_seed).public,
        members=admitted.members,
        invitations=tuple(each.hash for each in admitted.invites if now < each.expires_at + TOLD_MS),
        cluster=_cluster(facts, hubs),
    )


def _streams(facts: HubFacts, hubs: HubSet) -> str:
    """Returns the folder of the streams of this fleet and these hubs alone.

    Claims of a fleet that the host was in before would stand in the way of this one's; and nats-servers that begin to
    be a cluster, or a cluster of others, would remove streams of before as orphaned while they are written to
    (https://github.com/nats-io/nats-server/issues/3267).
    """
    folder = f"{facts.files.streams}/{facts.membership.fleet_id}"
    return f"{folder}-{hubs.since}{'' if hubs.is_cluster else '-alone'}" if hubs.since else folder


def _cluster(facts: HubFacts, hubs: HubSet) -> Cluster | None:
    if not hubs.is_cluster:
        return None
    try:
        addresses = (address_of(each.id, each.dialled) for each in hubs.hubs)
        return cluster_of(f"{facts.membership.fleet_id}-{hubs.since}", facts.server_name, facts.listen, addresses)
    except ValueError as error:
        raise FleetError(str(error)) from error


class HubUpkeep:
    """Applies. `fault`: why what the store says is not in force; None: it is."""

    def __init__(self, store: Store, facts: HubFacts, control: HubControl, clock: Clock) -> None:
        self._store = store
        self.facts = facts
        self._control = control
        self._clock = clock
        self._news = StoreNews(store.commits)
        self._admitted: AdmittedHosts | None = None  # as last read to be applied
        self._applied: HubSettings | None = None
        self.hubs_of: Callable[[Iterable[FleetMember]], HubSet] = HubSet.of
        self._one_at_a_time = asyncio.Lock()
        self._leaf_looked_at: int | None = None
        self._out: dict[str, int] = {}  # NKEYs that are not let in, until when (CLOCK_BOOTTIME, ms)
        self.fault: str | None = None

    async def prepare(self) -> None:
        """Has the server find its files when it starts. Raises FleetError, HostError or StoreUnavailable."""
        now = self._clock.now().wall_ms
        async with self._one_at_a_time:
            settings = await self._settings(now)
            await self._control.prepare(settings, self.facts.made(now))

    def put_out(self, nkey: str, why: str) -> None:
        """Has a member, or the holder of an invitation, not let in for a while; never the hub itself."""
        known = () if self._applied is None else self._applied.members
        name = next((each.name for each in known if each.nkey == nkey and each.role != "hub"), None)
        if nkey in self._out or (name is None and nkey not in (self._applied.invitations if self._applied else ())):
            return
        log.error(
            "%s %s, and is not let in for %d minutes; if it is in other hands: wg-appliance fleet forget",
            name or "the holder of an invitation", why, OUT_MS // 60_000,
        )  # fmt: skip
        self._out[nkey] = self._clock.now().boot_ms + OUT_MS

    def _let_in(self, settings: HubSettings) -> HubSettings:
        now_ms = self._clock.now().boot_ms
        self._out = {nkey: until for nkey, until in self._out.items() if now_ms < until}
        return replace(
            settings,
            members=tuple(each for each in settings.members if each.nkey not in self._out),
            invitations=tuple(each for each in settings.invitations if each not in self._out),
        )

    async def apply(self) -> None:
        """Returns when the server goes by the store. Raises FleetError, HostError or StoreUnavailable."""
        # One at a time, from the reading on: what was read before another's is never applied after it.
        async with self._one_at_a_time:
            now = self._clock.now().wall_ms
            settings = self._let_in(hub_settings(await self._read(), self.facts, now, self.hubs_of))
            if settings != self._applied:
                await self._control.apply(settings, self.facts.made(now))
                self._applied = settings

    def goes_by(self, cluster: int) -> bool:
        """Tells whether the server goes by the hubs that are a cluster since then: not yet by those of before."""
        of = None if self._applied is None else self._applied.cluster
        return of is not None and of.name.rpartition("-")[2] in (str(cluster), "0")

    def trust(self, membership: Membership, of_hub: HubSecrets) -> None:
        """Goes by another authority of certificates from now on, where one is due."""
        if (membership.ca, of_hub) != (self.facts.membership.ca, self.facts.of_hub):
            self._applied = None
        self.facts = replace(self.facts, membership=membership, of_hub=of_hub)

    async def sign(self, authority: CertifiedKey) -> None:
        """Has the hub's certificate made by this authority. Returns when it is in force.

        Raises FleetError, HostError or StoreUnavailable.
        """
        now = self._clock.now().wall_ms
        made = MadeBy(authority, self.facts.membership.ca, now)
        await self._control.renew_leaf(await self._settings(now), made, anew=True)
        self._applied = None
        await self.apply()

    async def _settings(self, now: int) -> HubSettings:
        async with self._store.read() as db:
            return hub_settings(await AdmittedHosts.read(db), self.facts, now, self.hubs_of)

    async def _read(self) -> AdmittedHosts:
        if self._news.is_any() or self._admitted is None:
            async with self._store.read() as db:
                self._admitted = await AdmittedHosts.read(db)
            self._news.taken()
        return self._admitted

    async def run(self, stopping: asyncio.Event) -> None:
        """Looks for changes until `stopping`. A fault is logged once, and tried again."""
        while not stopping.is_set():
            await self.look()
            await wait(stopping, LOOK_S)

    async def look(self) -> None:
        """Looks once; once an hour at the certificate too. Does not raise."""
        fault = None
        try:
            await self._renew()
            await self.apply()
        except CutOff as error:
            fault = str(error)  # the link says it
        except (FleetError, HostError, StoreUnavailable) as error:
            fault = str(error)
            if fault != self.fault:
                log.warning("the hub's nats-server is not as it should be: %s", fault)
        self.fault = fault

    async def _renew(self) -> None:
        now = self._clock.now().wall_ms
        if self._leaf_looked_at is not None and 0 <= now - self._leaf_looked_at < HOUR_MS:
            return
        if await self._control.renew_leaf(await self._settings(now), self.facts.made(now)):
            self._applied = None
        async with self._store.write() as db:
            await fleet_invites.delete_expired(db, now - TOLD_MS)
        self._leaf_looked_at = now
