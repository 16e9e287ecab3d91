"""What has to hold when a server that was killed is ready again: the store, the tunnel and what clients were told."""

from __future__ import annotations

from ipaddress import ip_network
from typing import TYPE_CHECKING, NamedTuple

from appliance.network.wireguard import keys
from tests.support.faults.clients import Ending, Told
from tests.support.faults.real_exit import SHORT_LIVED, SUBNET, SUBNET6
from tests.support.faults.violations import require
from tests.support.tunnel.waiting import until

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence
    from pathlib import Path

    from tests.support.faults.clients import Client, Operator
    from tests.support.faults.real_exit import RealExit, UnixConnection

# Each query lists what breaks the rule beside it.
BROKEN = {
    "no row is left of a request that was cut short": "SELECT id FROM sessions WHERE state = 'pending'",
    "who has to end has ended": "SELECT id FROM sessions WHERE state = 'closing'",
    "peers' rows go with their sessions": """
        SELECT address_offset FROM peers
        WHERE address_offset NOT IN (SELECT address_offset FROM sessions WHERE state = 'live')
    """,
    "a paid session has an invoice line, open while it is live": """
        SELECT s.id, s.state, l.ended_at FROM sessions s LEFT JOIN invoice_lines l ON l.session_id = s.id
        WHERE s.tier = 'paid' AND (l.session_id IS NULL OR (l.ended_at IS NULL) <> (s.state = 'live'))
    """,
    "invoice lines and days are a session's": """
        SELECT session_id FROM invoice_lines WHERE session_id NOT IN (SELECT id FROM sessions)
        UNION SELECT session_id FROM usage_days WHERE session_id NOT IN (SELECT id FROM sessions)
    """,
    "references hold": "SELECT * FROM pragma_foreign_key_check",
    "the file is whole": "SELECT * FROM pragma_integrity_check WHERE integrity_check <> 'ok'",
}


class Row(NamedTuple):
    """A session that is not terminated, as stored."""

    id: str
    key: str
    offset: int
    ipv6: bool
    tier: str
    state: str
    reason: str | None

    @property
    def addresses(self) -> frozenset[str]:
        found = {f"{ip_network(SUBNET)[self.offset]}/32"}
        return frozenset(found | ({f"{ip_network(SUBNET6)[self.offset]}/128"} if self.ipv6 else set()))


def unfinished(exit_: RealExit, store: Path | None = None) -> list[Row]:
    query = "SELECT id, public_key, address_offset, ipv6, tier, state, reason FROM sessions WHERE state <> 'terminated'"
    return [Row(id_, keys.encode(key), *rest) for id_, key, *rest in exit_.rows(query, store)]


def half_done(rows: Sequence[Row], peers: Collection[str]) -> set[str]:
    """What the process was in the middle of, as far as it can be seen from outside."""
    closed = [row for row in rows if row.reason == "closed"]  # by clients; their last figures are stored
    others = [row for row in rows if row.reason != "closed"]
    found = {
        "create with its peer alone": set(peers) - {row.key for row in rows},
        "delete with its peer": [row for row in closed if row.key in peers],
        "delete with its peer gone": [row for row in closed if row.key not in peers],
        "tick with a peer gone": [row for row in others if row.key not in peers],
    }
    return {what for what, those in found.items() if those}


def check(exit_: RealExit, clients: Sequence[Client], operator: Operator) -> None:
    """Raises Violated. Nobody else is at work on the exit."""
    expiring = f"SELECT id FROM sessions WHERE tier = '{SHORT_LIVED}' AND state IN ('live', 'closing')"  # noqa: S608 (a constant)
    until(lambda: not exit_.rows(expiring), "short-lived sessions have expired")
    for rule, query in BROKEN.items():
        broken = exit_.rows(query)
        require(not broken, rule, broken)
    rows = {row.id: row for row in unfinished(exit_)}
    peers = exit_.peers()
    require({row.key: row.addresses for row in rows.values()} == peers, "peers are the live sessions'", rows, peers)
    # The addresses of those that have just ended are free once their flows are forgotten.
    until(lambda: exit_.metric("wg_appliance_addresses_used") == len(rows), f"taken are the addresses of {rows}")
    with exit_.connection() as connection:
        for client in clients:
            _check_client(connection, client, rows, operator.ended)
    owned = {session_id for client in clients for session_id in client.sessions}
    require(rows.keys() <= owned, "every live session is a client's", rows.keys() - owned)
    _check_process(exit_)


def _check_process(exit_: RealExit) -> None:
    wireguard_go = exit_.programs()["wireguard-go"]
    require(wireguard_go == (exit_.backend == "userspace"), "one wireguard-go at most is left", exit_.programs())
    written = exit_.log.read_text(encoding="utf-8", errors="replace")
    require("Traceback" not in written and " ERROR " not in written, "nothing crashed", written)
    exit_.log.write_bytes(b"")


def _check_client(
    connection: UnixConnection, client: Client, rows: Mapping[str, Row], ended: Mapping[str, Ending]
) -> None:
    """What it was told of its sessions is so; what it was not told of is what it asked for."""
    require(not client.odd, "every answer is the expected one", client.odd)
    status, answer = connection.ask("GET", "/v1/sessions?live=true&limit=200", client.token)
    require(status == 200, "live sessions are listed", answer)
    live = {session["id"] for session in answer["sessions"]}
    _settle_cut_short(client, live, rows)
    for session_id, told in client.sessions.items():
        ending = max(told.ending, ended.get(session_id, Ending.NONE))
        facts = (session_id, told, ended.get(session_id), rows.get(session_id))
        if session_id in live:
            require(ending < Ending.DONE and not told.settled, "who was ended is not live", *facts)
            row = rows[session_id]
            require(row.key == told.key, "a session keeps its key", *facts)
            require(told.addresses in (None, row.addresses), "a session keeps its addresses", *facts)
            # Cut short before it did anything: it may be ended again.
            told.ending = Ending.NONE
        elif not told.settled:
            require(ending > Ending.NONE or client.short_lived, "who was told 201 is live", *facts)
            status, shown = connection.ask("GET", f"/v1/sessions/{session_id}", client.token)
            require(status == 200 and "terminated_at" in shown, "who has ended keeps being answered for", shown, *facts)
            told.settled = True


def _settle_cut_short(client: Client, live: set[str], rows: Mapping[str, Row]) -> None:
    """The request that nobody answered was done or was not; a session that it made is its client's from here on."""
    unknown = live - client.sessions.keys()
    request, client.under_way = client.under_way, None
    expected = {request.subject} if request is not None and request.method == "POST" else set()
    require({rows[session_id].key for session_id in unknown} <= expected, "a live session was asked for", unknown)
    for session_id in unknown:
        client.sessions[session_id] = Told(rows[session_id].key, None)
    if request is not None and request.method != "GET":
        done = bool(unknown) if request.method == "POST" else request.subject not in live
        client.answers[f"{request.method} {'done' if done else 'undone'} without an answer"] += 1
