"""Says how the fleet stands, for `fleet status`: as a record, and for people. Pure."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import msgspec
from msgspec.structs import replace

from appliance.client.humanize import span
from appliance.domain.clock import rfc3339
from appliance.domain.hub_loss import succession
from appliance.fleet.claims.taken import NOTHING_TAKEN, TakenClaims

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from appliance.domain.clock import Moment
    from appliance.fleet.link.link import LinkState
    from appliance.fleet.presence.beats import Beat
    from appliance.fleet.presence.directory import Presence

HEADINGS = ("NODE", "REGION", "ROLE", "STATE", "LIVE", "LAG", "CLOCK", "VERSION")
SPARE = ("VERSION", "CLOCK", "LAG")  # what a narrow terminal can do without, in this order


class NodeStatus(msgspec.Struct, frozen=True):
    """Describes an exit. `fault`: why this host opens no sessions on it; None: it does.

    `lag_s`: on a hub, how long ago everything of it was reported; on a spoke, for how long this host has had something
    to report, and None of another. `skew_ms`: how far its clock is ahead. `dialled`: where it would be dialled as a
    hub, HOST:PORT, as it has told the hub; "": it cannot be one; None: it has told nothing, or this host is no hub.
    """

    name: str
    id: str
    region: str
    role: str
    alive: bool
    fault: str | None
    lag_s: int | None
    skew_ms: int | None
    live: int | None
    version: str | None
    dialled: str | None = None


class FleetStatus(msgspec.Struct, frozen=True):
    """Describes the fleet as this host knows it. Times are RFC 3339.

    `quorum`: changes of accounts and claims can be made now. `complete_until`: until then all exits' sessions are
    reported; None: not known here. `unsent_sessions`: of this exit, with changes that no hub has, for `lag_s` by now.
    `alone`: why this host works as a single one; None: it does not. `failure`: what keeps it from connecting to a hub;
    `meanwhile`: what holds while it is cut off. `behind`: how many changes of accounts another exit has told of that
    this one has not; 0 on a hub. `taken`: how many keys and names of this exit's devices other exits have too, and
    `taken_of`: some of these devices. `hubs_since`: since when this host is one of several hubs, in ms; 0: it is not.
    """

    nodes: tuple[NodeStatus, ...]
    generation: int
    quorum: bool
    complete_until: str | None
    this: str  # the id of this host
    alone: str | None
    cut_off_since: str | None
    failure: str | None
    unsent_sessions: int
    lag_s: int
    meanwhile: tuple[str, ...]
    behind: int = 0
    taken: int = 0
    taken_of: tuple[str, ...] = ()
    hubs_since: int = 0


@dataclass(frozen=True, slots=True)
class ReportState:
    """Holds what is reported. `unsent`: sessions of this exit with changes that no hub has; `waiting_since`: the oldest
    of those changes, wall ms. `told_until`: by exit, up to when everything of it is reported, as a hub knows it."""

    unsent: int = 0
    waiting_since: int | None = None
    told_until: Mapping[str, int] | None = None


@dataclass(frozen=True, slots=True)
class KnownHubs:
    """Says what this host knows as a hub. `since`: when it became one of several; 0: it is not. `agreed`: it is certain
    which one leads. `dialled`: by member, where it would be dialled as a hub."""

    since: int = 0
    agreed: bool = True
    dialled: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class KnownTokens:
    """Tells what tokens that are known here may do. `hold`: they open sessions now; `until`: up to when they do, or
    did, if no hub is reached, wall ms; None: this exit has never had the fleet's accounts."""

    hold: bool
    until: int | None


NO_HUBS = KnownHubs()


def fleet_status(
    presences: Sequence[Presence],
    own_id: str,
    alone: str | None,
    link: LinkState,
    report: ReportState,
    tokens: KnownTokens,
    now: Moment,
    taken: TakenClaims = NOTHING_TAKEN,
    hubs: KnownHubs = NO_HUBS,
) -> FleetStatus:
    """Puts together what is known. `alone`: see Directory.apart."""
    own = next(each for each in presences if each.member.id == own_id)
    told = report.told_until
    everyone = None if told is None else [told.get(each.member.id) for each in presences]
    # An exit whose clock is ahead says so of moments that are yet to come here.
    complete = None if everyone is None or None in everyone else min(now.wall_ms, *(ms for ms in everyone if ms))
    lag_s = 0 if report.waiting_since is None else max(0, now.wall_ms - report.waiting_since) // 1000
    return FleetStatus(
        nodes=tuple(
            replace(
                _node(each, told or {}, lag_s if each is own else None, now), dialled=hubs.dialled.get(each.member.id)
            )
            for each in presences
        ),
        generation=0 if own.beat is None else own.beat.gen,
        quorum=link.connected and hubs.agreed,
        complete_until=None if complete is None else rfc3339(complete),
        this=own_id,
        alone=alone,
        cut_off_since=None if link.connected else rfc3339(link.since.wall_ms),
        failure=None if link.failure is None else str(link.failure),
        unsent_sessions=report.unsent,
        lag_s=lag_s,
        meanwhile=() if link.connected else (*meanwhile(own.member.role, tokens), *_succession(own, presences)),
        behind=0 if own.member.role == "hub" else _behind(own.beat, presences),
        taken=taken.number,
        taken_of=taken.shown,
        hubs_since=hubs.since,
    )


def _succession(own: Presence, presences: Sequence[Presence]) -> tuple[str, ...]:
    if own.member.role == "hub":
        return ()
    named = {role: [each.member.name for each in presences if each.member.role == role] for role in ("hub", "standby")}
    words = succession(" or ".join(named["hub"]) or "the hub", named["standby"], own.member.name)
    return (words,) if words else ()


def _behind(own: Beat | None, presences: Sequence[Presence]) -> int:
    told = [each.beat.acc_rev for each in presences if each.beat and own and each.beat.gen == own.gen]
    return max(told, default=0) - own.acc_rev if own is not None else 0


def _node(each: Presence, told: Mapping[str, int], own_lag_s: int | None, now: Moment) -> NodeStatus:
    member, until = each.member, told.get(each.member.id)
    lag_s = own_lag_s if until is None else max(0, now.wall_ms - until) // 1000
    return NodeStatus(
        name=member.name,
        id=member.id,
        region=member.region,
        role=member.role,
        alive=each.alive,
        fault=each.fault,
        lag_s=lag_s,
        skew_ms=each.skew_ms,
        live=None if each.beat is None else each.beat.live,
        version=None if each.beat is None else each.beat.version,
    )


def meanwhile(role: str, tokens: KnownTokens) -> tuple[str, ...]:
    """Returns what holds while this host is cut off, a sentence each."""
    if role == "hub":
        return (
            "accounts and tokens are kept here, and work here as ever",
            "the other exits are on their own until this host's nats-server runs: systemctl status wg-appliance-hub",
        )
    if tokens.until is None:
        opened = "no token opens a session here: this exit has not had the fleet's accounts yet"
    elif tokens.hold:
        opened = f"tokens that are known here open sessions on this exit until {rfc3339(tokens.until)}, others do not"
    else:
        opened = f"no token opens a session here since {rfc3339(tokens.until)} (fleet.offline_tokens)"
    return (
        opened,
        "a token that is revoked meanwhile, or an account that is disabled, is not known to be",
        "live sessions go on, and are counted; what they use is reported once a hub is reached",
    )


# For people ------------------------------------------------------------------------------------------


def fields(status: FleetStatus) -> list[tuple[str, str]]:
    """Returns what holds for the whole fleet and for this host, as names and values."""
    own = next(each for each in status.nodes if each.id == status.this)
    lines = [("this host", f"{own.name}, {own.role} in {own.region}, {own.id}")]
    connected = status.cut_off_since is None
    lines.append(("hub", "connected" if connected else f"cut off since {status.cut_off_since}"))
    if status.hubs_since:
        lines.append(("hubs", _hubs(status)))
    if status.behind:
        lines.append(("accounts", f"{status.behind} changes are told of that this host does not have yet"))
    failure = () if status.failure is None else (status.failure,)
    lines += [("", sentence) for sentence in (*failure, *status.meanwhile)]
    if connected and status.alone is not None:
        lines.append(("works alone", status.alone))
    if own.fault is not None:
        lines.append(("takes no sessions", own.fault))
    if status.taken:
        lines.append(("on other exits too", str(TakenClaims(status.taken, status.taken_of))))
    waiting = f", the first for {span(status.lag_s * 1000)}" if status.unsent_sessions else ""
    sessions = "1 session" if status.unsent_sessions == 1 else f"{status.unsent_sessions} sessions"
    lines.append(("not reported yet", f"{sessions}{waiting}"))
    if status.complete_until is not None:
        lines.append(("complete until", status.complete_until))
    return [*lines, ("generation", str(status.generation))]


def _hubs(status: FleetStatus) -> str:
    hubs = [each for each in status.nodes if each.role != "spoke"]
    names = ", ".join(each.name for each in hubs)
    if not status.quorum:
        return f"{names}: no majority of them says which one leads, so that accounts cannot be changed for certain"
    away = [each.name for each in hubs if not each.alive]
    more = (len(hubs) - 1) // 2 - len(away)
    if more > 0:
        return f"{names}: one of them leads, and another does by itself where that one is lost"
    where = f", while {', '.join(away)} is away" if away else ""
    return f"{names}: one of them leads, and no other may be lost{where}"


def rows(status: FleetStatus) -> list[tuple[str, ...]]:
    """Returns a row of a table for each exit, under HEADINGS."""
    return [
        (
            each.name,
            each.region,
            each.role,
            each.fault or "takes sessions",
            _or_unknown(each.live),
            "-" if each.lag_s is None else span(each.lag_s * 1000),
            "-" if each.skew_ms is None else f"{round(each.skew_ms / 1000, 1) or 0:+.1f} s",  # never -0.0
            _or_unknown(each.version),
        )
        for each in status.nodes
    ]


def _or_unknown(value: object) -> str:
    return "-" if value is None else str(value)
