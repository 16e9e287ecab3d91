"""Checks how this host stands in its fleet, on a host that is in one. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from appliance.client.humanize import span
from appliance.domain.clock import rfc3339
from appliance.domain.hub_loss import succession
from appliance.ops.doctor.finding import START, Finding, failed, ok, unseen, warning

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

SKEW_WARNED_MS, SKEW_FAILED_MS = 2000, 30_000
DAY_MS = 86_400_000
WARNED_MS = 30 * DAY_MS  # what ends sooner is warned of
LATE_MS = 28 * DAY_MS  # what a hub renews has been renewed by then
TWO_MACHINES = "two machines"
TAKEN_OUT = "was taken out of the fleet"  # how the reason ends; as fleet.presence.directory says it
STATUS = "wg-appliance fleet status"
CONFLICTS = "wg-appliance fleet conflicts"
ROTATE = "wg-appliance fleet rotate-ca"
SYNCHRONISE = "timedatectl set-ntp true"
MOST_LISTED = 20  # as the server notes them
HUB_UNIT = "wg-appliance-hub"


@dataclass(frozen=True, slots=True)
class FleetPeer:
    """Describes another exit, as the server knows it. `fault`: why no session is opened on it; None: some may be."""

    name: str
    alive: bool
    fault: str | None
    skew_ms: int | None


@dataclass(frozen=True, slots=True)
class FleetStanding:
    """Holds what the server noted of the fleet. `alone`: why it works as a single exit; None: it does not.

    `cut_off_since`: wall ms; `failure`: what keeps it from the hub, such as that the hub has forgotten it; `unsent`:
    sessions with changes that no hub has. `standbys`: their names, and whether they are alive; several are hubs too.
    `behind`: how many changes of accounts this host lacks. `taken`: how many keys and names of this host's devices
    other exits have too, and some of these devices. `agreed`: of one of several hubs, whether a majority says which one
    leads; None: this host is none.
    """

    alone: str | None
    cut_off_since: int | None
    unsent: int
    peers: tuple[FleetPeer, ...]
    standbys: tuple[tuple[str, bool], ...] = ()
    behind: int = 0
    failure: str | None = None
    taken: tuple[int, tuple[str, ...]] = (0, ())
    agreed: bool | None = None


@dataclass(frozen=True, slots=True)
class CertificateDates:
    """Says from when to when a certificate is valid, wall ms. `renewed`: a hub replaces it by itself in time."""

    name: str
    begins: int
    ends: int
    renewed: bool


@dataclass(frozen=True, slots=True)
class HubPort:
    """Holds which programs listen on a hub's port, by name."""

    port: int
    holders: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class FleetFacts:
    """Holds what the checks need. `hubs`: the addresses that are dialled; `hub_port`: of a host that is a hub.

    `routes`: of one of several hubs, where it dials each other one, and whether that answers.
    `standing`: None: no server that runs has noted it lately. `certificates`: None: only root can read them.
    `conflicts`: how many changes of this host's the fleet took back; None: the store could not be read.
    """

    role: Literal["hub", "standby", "spoke"]
    now_ms: int
    served: bool
    hubs: tuple[str, ...]
    standing: FleetStanding | None
    certificates: tuple[CertificateDates, ...] | None
    hub_port: HubPort | None = None
    conflicts: int | None = None
    routes: tuple[tuple[str, bool], ...] = ()


def hub(facts: FleetFacts) -> Finding:
    """Checks whether a hub is reached, and says since when not."""
    if not facts.served:
        return warning("fleet-hub", "the server is not running", START)
    if facts.standing is None:
        return warning("fleet-hub", "the server has not noted how the fleet stands", "journalctl -u wg-appliance -n 20")
    since = facts.standing.cut_off_since
    alone = facts.standing.alone
    if since is None and alone is not None and not _is_of_this_host(alone):
        return warning("fleet-hub", f"connected, but {alone}: this exit goes on alone", STATUS)
    if since is None:
        return ok("fleet-hub", f"connected, {_waiting(facts.standing)}")
    lasts = span(facts.now_ms - since)
    where = f"cut off since {rfc3339(since)} ({lasts}), {_waiting(facts.standing)}: this exit goes on alone"
    if facts.role == "hub":
        return failed("fleet-hub", where, f"systemctl start {HUB_UNIT}; journalctl -u {HUB_UNIT} -n 20")
    if alone is not None and alone.endswith(TAKEN_OUT):
        return warning("fleet-hub", where, STATUS)
    if facts.standing.failure is not None:
        return warning("fleet-hub", f"{where}; {facts.standing.failure}", f"{STATUS}{_succession(facts)}")
    up = f"see that {' or '.join(facts.hubs)} is up and lets this host in"
    return warning("fleet-hub", where, f"{STATUS}; {up}{_succession(facts)}")


def _succession(facts: FleetFacts) -> str:
    standbys = [] if facts.standing is None else [name for name, _ in facts.standing.standbys]
    words = succession("the hub", standbys, standbys[0] if standbys and facts.role == "standby" else "")
    return words and f"; {words}"


def _is_of_this_host(alone: str) -> bool:
    """Tells whether the reason to work as a single exit lies in this host."""
    return alone.startswith(TWO_MACHINES) or alone.endswith(TAKEN_OUT)


def _waiting(standing: FleetStanding) -> str:
    return f"{standing.unsent} sessions are not reported yet" if standing.unsent else "all is reported"


def machines(facts: FleetFacts) -> Finding:
    """Checks whether this host is the only one with its id, and still in the fleet."""
    if facts.standing is None:
        return warning("fleet-member", "whether this host is one of a kind is not known", STATUS)
    if facts.standing.alone is None or not _is_of_this_host(facts.standing.alone):
        return ok("fleet-member", "no other machine has this host's id")
    mend = "stop the copy; to make it a host of its own, wg-appliance restore --as-new-node there: help fleet"
    if facts.standing.alone.startswith(TWO_MACHINES):
        return failed("fleet-member", f"{facts.standing.alone}: both refuse work for the fleet", mend)
    return failed("fleet-member", facts.standing.alone, "wg-appliance fleet leave")


def clocks(facts: FleetFacts) -> Finding:
    """Checks whether the other hosts' clocks agree with this one's."""
    peers = () if facts.standing is None else facts.standing.peers
    skews = {each.name: each.skew_ms for each in peers if each.alive and each.skew_ms is not None}
    off = {name: ms for name, ms in skews.items() if abs(ms) > SKEW_WARNED_MS}
    if not off:
        return ok("fleet-clock", f"{len(skews)} other exits agree within {SKEW_WARNED_MS // 1000} s")
    worst = max(off.values(), key=abs)
    say = failed if abs(worst) > SKEW_FAILED_MS else warning
    if len(off) == len(skews) > 1 and max(skews.values()) - min(skews.values()) <= SKEW_WARNED_MS:
        word = "behind" if worst > 0 else "ahead of"
        return say("fleet-clock", f"this host is {abs(worst) / 1000:.1f} s {word} all others", SYNCHRONISE)
    named = ", ".join(f"{name} by {ms / 1000:+.1f} s" for name, ms in sorted(off.items()))
    return say("fleet-clock", f"clocks that differ from this host's: {named}", f"there: {SYNCHRONISE}")


def certificates(facts: FleetFacts) -> Finding:
    """Checks when the fleet's certificates begin and end, by this host's clock."""
    if facts.certificates is None:
        return unseen("fleet-certificates", "the fleet's certificates")
    now = facts.now_ms
    for each in facts.certificates:
        if now < each.begins:
            what = f"{each.name} is valid from {rfc3339(each.begins)} on: this host's clock says {rfc3339(now)}"
            return failed("fleet-certificates", what, SYNCHRONISE)
        if now >= each.ends:
            what = f"{each.name} was valid until {rfc3339(each.ends)}: by this host's clock no exit connects"
            return failed("fleet-certificates", what, _renewal(each, facts.role))
    first = min(facts.certificates, key=lambda each: each.ends, default=None)
    if first is None:
        return ok("fleet-certificates", "none is kept here")
    until, left_ms = f"{first.name} is valid until {rfc3339(first.ends)}", first.ends - now
    if left_ms >= (LATE_MS if first.renewed else WARNED_MS):
        return ok("fleet-certificates", until)
    late = ", and was to be renewed by now" if first.renewed else ""
    return warning("fleet-certificates", until + late, _renewal(first, facts.role))


def _renewal(certificate: CertificateDates, role: str) -> str:
    if certificate.renewed:
        return "journalctl -u wg-appliance -n 50"
    return ROTATE if role == "hub" else f"on the hub: {ROTATE}"


def port(facts: FleetFacts) -> Finding:
    """Checks, on a hub, that its nats-server listens where the other exits dial."""
    if facts.hub_port is None:
        return ok("fleet-port", "this host is no hub")
    number, holders = facts.hub_port.port, facts.hub_port.holders
    if not holders:
        mend = f"systemctl start {HUB_UNIT}; journalctl -u {HUB_UNIT} -n 20"
        return failed("fleet-port", f"nothing listens on {number}/tcp: no exit reaches this hub", mend)
    others = [name for name in holders if name != "nats-server"]
    if others:
        mend = f"stop it, or set fleet.listen to another port; ss -ltnp sport = :{number}"
        return failed("fleet-port", f"{', '.join(others)} listens on {number}/tcp, which is the hub's", mend)
    return ok("fleet-port", f"nats-server listens on {number}/tcp")


def nodes(facts: FleetFacts) -> Finding:
    """Checks whether the other exits take sessions."""
    peers = () if facts.standing is None else facts.standing.peers
    if facts.standing is not None and facts.standing.alone is not None:
        return warning("fleet-nodes", "what the other exits do is not known", STATUS)
    faults = [f"{each.name} ({each.fault})" for each in peers if each.fault is not None]
    if faults:
        return warning("fleet-nodes", f"no session is opened on {', '.join(faults)}", "wg-appliance doctor there")
    return ok("fleet-nodes", f"sessions are opened on {len(peers)} other exits")


def standby(facts: FleetFacts) -> Finding:
    """Checks whether another host can take the hub's place, with all that the hub has. None is no fault."""
    name = "fleet-standby"
    found = facts.standing
    if found is None:
        return ok(name, "not known while the server does not run")
    if facts.role == "standby":
        if found.behind:
            lacking = f"this host is the standby, and lacks {found.behind} changes of accounts, tokens or hosts"
            return warning(name, lacking, f"{STATUS}; journalctl -u wg-appliance -n 20")
        return ok(name, "this host is the standby, and has all that it was told of")
    if facts.role == "spoke":
        return ok(name, "this host is neither the hub nor its standby")
    if not found.standbys:
        adds = "fleet invite --hub adds one, fleet hubs makes three hosts hubs"
        return ok(name, f"the fleet has none, so that only a backup replaces this host; {adds}")
    gone = [name for name, alive in found.standbys if not alive]
    if gone:
        mend = f"wg-appliance doctor on {gone[0]}; if it is lost for good, here: wg-appliance fleet forget {gone[0]}"
        return warning(name, f"{', '.join(gone)}, a standby, is not there", mend)
    names = " or ".join(name for name, _ in found.standbys)
    return ok(name, f"{names} can take this host's place")


def hubs(facts: FleetFacts) -> Finding:
    """Checks, on one of several hubs, whether the others are reached, and a majority says which one leads."""
    name = "fleet-hubs"
    if facts.standing is None or facts.standing.agreed is None:
        return ok(name, "this host is not one of several hubs")
    silent = [address for address, answers in facts.routes if not answers]
    if not facts.standing.agreed:
        where = f" ({', '.join(silent)} does not answer)" if silent else ""
        what = f"no majority of the hubs says which one leads{where}: accounts cannot be changed for certain"
        return failed(name, what, f"{STATUS}; on each other hub: wg-appliance doctor")
    if silent:
        lost = "if that host is lost for good: wg-appliance fleet forget, on the hub that leads"
        mend = f"let it through, there and at its provider; there: systemctl status {HUB_UNIT}; {lost}"
        return warning(name, f"{', '.join(silent)} does not answer, where hubs dial each other", mend)
    return ok(name, f"the other {len(facts.routes)} hubs answer, and it is known which one leads")


def conflicts(facts: FleetFacts) -> Finding:
    """Checks whether changes that this host made as the hub are still to be made again on the hub that replaced it."""
    name = "fleet-conflicts"
    if facts.conflicts is None:
        return warning(name, "whether the fleet took changes back is not known: the store cannot be read", CONFLICTS)
    if facts.conflicts:
        what = f"changes of this host's that the fleet took back: {facts.conflicts}"
        return warning(name, what, f"{CONFLICTS} lists them: make them again on the hub, then {CONFLICTS} --dismiss")
    return ok(name, "the fleet lacks no change of this host's")


def devices(facts: FleetFacts) -> Finding:
    """Checks whether a device of this exit has a key or a name that another exit has by now: it was forgotten once."""
    name = "fleet-devices"
    if facts.standing is None:
        return ok(name, "not known while the server does not run")
    number, some = facts.standing.taken
    if not number:
        return ok(name, "no other exit has a key or a name of a device here")
    listed = f": {', '.join(some)}" if some else ""
    more = " and more" if 0 < len(some) < number and len(some) >= MOST_LISTED else ""
    what = f"keys or names of devices here that another exit has too: {number}{listed}{more}"
    return warning(name, what, "wg-appliance device rename, rotate or remove ACCOUNT/NAME, here or there")


CHECKS: Sequence[Callable[[FleetFacts], Finding]] = (
    hub,
    machines,
    clocks,
    certificates,
    port,
    nodes,
    standby,
    hubs,
    conflicts,
    devices,
)
