"""Defines what a joining host asks a hub, what it is answered, and whether it may join. Pure."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

import msgspec
from msgspec.structs import replace

from appliance.config.value_types import NAME, REGION
from appliance.domain.clock import rfc3339
from appliance.domain.fleet_member import FleetMember, Role
from appliance.fleet.hub.config import NODE_ID
from appliance.fleet.link.nkey import check_public
from appliance.fleet.membership.hub_set import HubSet
from appliance.fleet.membership.identity import HubAddress  # noqa: TC001 (msgspec reads it)
from appliance.store.queries.account_offers import OfferedAccount  # noqa: TC001 (msgspec reads it)

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

    from appliance.store.queries.fleet_invites import Invite

MOST_SKEW_MS = 300_000  # of two clocks: beyond it no exit would be chosen
DIALLED = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[0-9A-Za-z._-]+):([0-9]{1,5})", re.ASCII)
HIGHEST_PORT = 65_535
MAKE_ANOTHER = "make another one on a hub: wg-appliance fleet invite"

Line = Annotated[str, msgspec.Meta(max_length=128)]


class JoinRequest(msgspec.Struct, frozen=True):
    """Holds what a host asks for. `p`: the oldest and newest protocol that it speaks; `t`: its wall clock.

    `accounts`: names of its accounts that have a history: sessions or devices; `unused`: of those that have none.
    `offer`: all of these with their tokens, so that those whose names are free become the fleet's. `dialled`: where
    others are to dial it as a hub, HOST:PORT; of a host that was invited as one.
    """

    node_id: Line
    name: Line
    region: Line
    nkey: Line
    xkey: bytes
    p: tuple[int, int]
    t: int
    accounts: tuple[str, ...] = ()
    unused: tuple[str, ...] = ()
    offer: tuple[OfferedAccount, ...] = ()
    dialled: Line = ""

    def member(self, invited_as: Role, now: int) -> FleetMember:
        """Returns the host as a member: invited as a hub, it stands by until it is promoted."""
        role: Role = "standby" if invited_as == "hub" else "spoke"
        dialled = self.dialled if role == "standby" else ""
        return FleetMember(self.node_id, self.name, self.region, role, self.nkey, self.xkey, now, dialled=dialled)


class JoinAnswer(msgspec.Struct, frozen=True):
    """Holds the fleet, for who may join; else `refused` says why not and what to do, and the rest is empty.

    `taken`: the names of accounts that the host never used and the fleet has; if they are why it is refused, those that
    it did use. `of_hub`: for a standby, the secrets of a hub, sealed to it. `told`: the members; those of `standbys`
    are said to be spokes there, to versions that know of none.
    """

    refused: str = ""
    taken: tuple[str, ...] = ()
    fleet_id: str = ""
    gen: int = 0
    role: Role = "spoke"
    hubs: tuple[HubAddress, ...] = ()
    fleet_key: bytes = b""
    ca: str = ""
    told: tuple[FleetMember, ...] = msgspec.field(default=(), name="members")
    of_hub: bytes = b""
    standbys: tuple[str, ...] = ()

    @property
    def members(self) -> tuple[FleetMember, ...]:
        return tuple(replace(each, role="standby") if each.id in self.standbys else each for each in self.told)

    def __repr__(self) -> str:
        return f"JoinAnswer({self.refused!r}, {self.fleet_id!r})"


@dataclass(frozen=True, slots=True)
class JoinFacts:
    """Holds what a hub knows when it is asked. `names`: of the fleet's accounts among those that are asked about."""

    invite: Invite | None
    members: Collection[FleetMember]
    names: Collection[str]
    spoken: tuple[int, int]
    version: str
    now: int


def refusal(asked: JoinRequest, facts: JoinFacts) -> JoinAnswer | None:
    """Returns why the host may not join; None: it may. Its invitation is as good as before then."""
    for text in (_of_invitation(asked, facts), _malformed(asked), _of_hubs(asked, facts), *_of_host(asked, facts)):
        if text is not None:
            return JoinAnswer(refused=text)
    names = tuple(sorted(set(asked.accounts) & set(facts.names)))
    if names:
        return JoinAnswer(
            refused=f"the fleet has accounts of these names too, and here they have a history: {_listed(names)}; "
            "to keep them under other names: wg-appliance node join TOKEN --rename-accounts SUFFIX",
            taken=names,
        )
    return None


def has_joined(asked: JoinRequest, facts: JoinFacts) -> bool:
    """Tells whether this host has joined with this invitation before, and its answer was lost."""
    used = facts.invite is not None and facts.invite.used_by == asked.nkey
    return used and any(each.id == asked.node_id and each.nkey == asked.nkey for each in facts.members)


def _of_invitation(asked: JoinRequest, facts: JoinFacts) -> str | None:
    invite = facts.invite
    if invite is None:
        return f"the hub does not know this join token: {MAKE_ANOTHER}"
    if invite.used_by is not None:
        other = next((each.name for each in facts.members if each.nkey == invite.used_by), None)
        by = f" (by {other})" if other is not None and invite.used_by != asked.nkey else ""
        return f"this join token was used already{by}: {MAKE_ANOTHER}"
    if facts.now >= invite.expires_at:
        return f"this join token expired at {rfc3339(invite.expires_at)}: {MAKE_ANOTHER}"
    return None


def _malformed(asked: JoinRequest) -> str | None:
    """Checks what will be in the hub's configuration, and on operators' screens."""
    try:
        check_public(asked.nkey)
        NAME.parse(asked.name)
        REGION.parse(asked.region)
        if not NODE_ID.fullmatch(asked.node_id) or not asked.name or len(asked.xkey) != 32 or not any(asked.xkey):
            raise ValueError
    except ValueError:
        return "the hub does not understand what this host asks: bring both to the same version of wg-appliance"
    return None


def _of_hubs(asked: JoinRequest, facts: JoinFacts) -> str | None:
    """Checks what a host must have that is invited as a hub."""
    if facts.invite is None or facts.invite.role != "hub":
        return None
    refused = why_no_standby(facts.members)
    if refused is not None:
        return refused
    if not is_dialled(asked.dialled):
        return "the hub does not understand where this host is to be dialled: set fleet.advertise here, as HOST:PORT"
    return None


def why_no_standby(members: Iterable[FleetMember]) -> str | None:
    """Returns why no host can be let in as a standby; None: one can."""
    hubs = HubSet.of(members)
    if hubs.is_cluster:
        names = [each.name for each in hubs.hubs]
        return (
            f"the hubs are {', '.join(names)}, and none of them has a standby: invite the host without --hub, and name "
            f"it with them then: wg-appliance fleet hubs {' '.join(names)} NAME"
        )
    standby = next((each.name for each in hubs.hubs if each.role == "standby"), None)
    if standby is None:
        return None
    return (
        f"{standby} is the fleet's standby already: invite the host without --hub, and make three hosts the hubs then: "
        "wg-appliance fleet hubs"
    )


def is_dialled(text: str) -> bool:
    """Tells whether it is HOST:PORT, as it is written into files of nats-server."""
    found = DIALLED.fullmatch(text)
    return found is not None and 0 < int(found[2]) <= HIGHEST_PORT


def _of_host(asked: JoinRequest, facts: JoinFacts) -> Iterable[str | None]:
    yield _protocol(asked, facts)
    yield _skew(asked.t - facts.now)
    for member in facts.members:
        if member.id == asked.node_id:
            yield (
                f"the fleet has a host with this one's id already ({member.name}): if this one is a copy of it, remove "
                "its state_dir/fleet; if it is the same one made anew: wg-appliance fleet forget on the hub"
            )
        elif member.name == asked.name:
            yield (
                f"the fleet has a host called {asked.name} already: set node.name to another one here "
                f"and restart; or, if that host is gone for good: wg-appliance fleet forget {asked.name} on the hub"
            )


def _protocol(asked: JoinRequest, facts: JoinFacts) -> str | None:
    (oldest, newest), (own_oldest, own_newest) = asked.p, facts.spoken
    if oldest <= own_newest and own_oldest <= newest:
        return None
    which = "this host" if newest < own_oldest else "the hub"
    return f"{which} is too old for the other (the hub has version {facts.version}): run wg-appliance upgrade there"


def _skew(by_ms: int) -> str | None:
    if abs(by_ms) < MOST_SKEW_MS:
        return None
    word = "ahead of" if by_ms > 0 else "behind"
    return f"this host's clock is {abs(by_ms) // 1000} s {word} the hub's: set the wrong one right (timedatectl)"


def _listed(names: tuple[str, ...], most: int = 10) -> str:
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more
