"""Exits of the first version of fleets and of this one understand each other, as hosts are upgraded one at a time.

The first version knew of one hub, and lent nothing of accounts' limits.
"""

from __future__ import annotations

import json
from types import NoneType
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec
import pytest

from appliance.domain.fleet_member import FleetMember
from appliance.domain.quota import Quota
from appliance.fleet.accounts.sync_messages import LedgerRefusal, SyncAnswer, SyncRequest
from appliance.fleet.claims.messages import Claim, ClaimKey, ClaimName, Done, Granted, Release, ReleaseKey, Taken
from appliance.fleet.joining.messages import JoinAnswer, JoinRequest
from appliance.fleet.link.reading import read
from appliance.fleet.presence.beats import Beat
from appliance.fleet.reports.reports import ReportedWindows, ReportMark, SessionReport, UsageRequest
from appliance.fleet.rpc.facts import SessionFacts
from appliance.fleet.rpc.failures import Failure
from appliance.fleet.rpc.operations import (
    DRAIN,
    LIST,
    OPEN,
    REPORTED,
    REPORTED_LIST,
    USAGE,
    DrainExit,
    ListOfAccount,
    OneOfAccount,
    OpenSession,
    ReportedOfAccount,
    UsageOfAccount,
    UsedHere,
)
from appliance.store.queries.fleet_replica import KeptMember

if TYPE_CHECKING:
    from collections.abc import Mapping

NODE, ACCOUNT, AT = "nod_0123456789abcdef01234567", "acc_0123456789abcdef01234567", 1_790_000_000_000
KEY, OP = "ab" * 32, "cd" * 16

BEAT = (
    f'{{"node":"{NODE}","p":[1,1],"inst":"i","since":{AT},"n":7,"t":{AT},"name":"ams1","region":"ams",'
    '"public_ip":"192.0.2.1","version":"0.1.0","ready":true,"drained":false,"live":3,"room":250,"mbps":0,"line":0,'
    '"gen":1,"acc_rev":12}'
)
REPORT = (
    f'{{"v":4,"e":"0a","turn":1,"batch":9,"mark":"m","created_at":{AT},"in":10,"out":20,"ms":5,"state":"live",'
    f'"acc":"{ACCOUNT}","tier":"paid","region":"ams","ip":"192.0.2.1","expires_at":{AT + 1},"until_ms":{AT},'
    '"until_boot":"b","lives":[["b",3,10,20,"m"]],"lines":[{"month":"2026-09","from":1,"s":5,"in":10,"out":20,'
    '"rates":["eur",1,2],"time_mc":1,"bytes_mc":0}]}'
)
SESSION = (
    f'{{"id":"ses_1","tier":"paid","account_tier":"paid","region":"ams","public_ip":"192.0.2.1","public_key":"",'
    f'"state":"live","created_at":{AT},"expires_at":{AT + 1},"quota":{{"bytes_used":1,"bytes_limit":2,'
    f'"bytes_resets_at":{AT},"time_used_ms":3,"seconds_limit":4,"seconds_resets_at":{AT}}}}}'
)
MEMBER = f'{{"id":"{NODE}","name":"ams1","region":"ams","role":"spoke","nkey":"U","xkey":"{KEY}","joined_at":1}}'
JOINED = MEMBER.replace(f'"{KEY}"', '"AAAA"')

FROM_THE_FIRST = [
    (Beat, BEAT),
    (SessionReport, REPORT),
    (ReportMark, f'{{"batch":9,"mark":"m","upto":{AT}}}'),
    (UsageRequest, '{"batch":0,"month":"2026-09","after":""}'),
    (SyncRequest, '{"after":3,"mark":"m"}'),
    (SyncRequest, '{"all_after":["",""]}'),
    (
        SyncAnswer | LedgerRefusal,
        f'{{"type":"synced","gen":1,"rev":4,"mark":"m","rows":[["member","{NODE}",{MEMBER}]],"claims":"c"}}',
    ),
    (KeptMember, MEMBER),
    (Claim, f'{{"type":"key","key":"{KEY}","account":"{ACCOUNT}","op":"{OP}"}}'),
    (Claim, f'{{"type":"name","account":"{ACCOUNT}","name":"phone","op":"{OP}"}}'),
    (Claim, f'{{"type":"renew","keys":[{{"key":"{KEY}","account":"{ACCOUNT}","id":"ses_1","device":false}}]}}'),
    (Granted | Taken | Done, '{"type":"done","lost":2}'),
    (Release, f'{{"type":"release_key","key":"{KEY}"}}'),
    (
        JoinRequest,
        f'{{"node_id":"{NODE}","name":"ams1","region":"ams","nkey":"U","xkey":"AAAA","p":[1,1],"t":{AT},'
        '"accounts":["ada"],"unused":["owner"],"offer":[]}',
    ),
    (
        JoinAnswer,
        '{"refused":"","taken":[],"fleet_id":"flt_1","gen":1,"role":"spoke","hubs":[{"address":"192.0.2.1:7422",'
        f'"server_name":"f.hub.internal"}}],"fleet_key":"AAAA","ca":"PEM","members":[{JOINED}]}}',
    ),
    (OPEN.request, f'{{"op":"{OP}","token":"wga_1","region":"ams","public_key":"AAAA","ipv6":true}}'),
    (LIST.request, '{"token":"wga_1","before":null,"limit":100,"live":true}'),
    (USAGE.request, '{"token":"wga_1"}'),
    (REPORTED.request, '{"token":"wga_1","id":"ses_1"}'),
    (
        REPORTED_LIST.request,
        f'{{"token":"wga_1","node_ids":["{NODE}"],"before":[{AT},"ses_1"],"limit":9,"live":false}}',
    ),
    (DRAIN.request, '{"drained":true}'),
    (LIST.answer, f'{{"sessions":[{SESSION}]}}'),
    (USAGE.answer, '{"bytes_used":1,"time_used_ms":2}'),
    (Failure, f'{{"kind":"QuotaExceeded","tier":"free","quota":{json.dumps(json.loads(SESSION)["quota"])}}}'),
]


@pytest.mark.parametrize(("shape", "text"), FROM_THE_FIRST)
def test_what_the_first_version_says_is_read(shape: Any, text: str) -> None:
    read(text.encode(), shape)


def test_what_the_first_version_does_not_tell_is_known_to_be_missing() -> None:
    """Its reports have no windows, its marks no sums, and its exits ask in nobody's name but their client's."""
    assert read(REPORT.encode(), SessionReport).windows is None
    mark = read(b'{"batch":9,"mark":"m","upto":1}', ReportMark)
    assert (mark.sessions, mark.sum_v) == (0, 0)
    assert read(b'{"token":"wga_1"}', UsageOfAccount).for_account == ""
    assert read(b'{"after":3,"mark":"m"}', SyncRequest).dialled is None
    assert read(b'{"type":"synced","gen":1,"rev":0,"mark":"","anew":true,"base":[3,"m"]}', SyncAnswer).hubs == ()
    known = read(MEMBER.encode(), KeptMember).member()
    assert (known.dialled, known.hub_since) == ("", 0)


class Needed(NamedTuple):
    """Says what a message of this version must have, and of which type, for the first version to read it."""

    message: msgspec.Struct
    fields: Mapping[str, type | tuple[type, ...]]


NUMBER_OR_NONE = (int, NoneType)
QUOTA = Quota(1, 2, AT, 3, 4, AT)
FACTS = SessionFacts(
    id="ses_1",
    tier="paid",  # type: ignore[arg-type]  # as it is written
    account_tier="paid",  # type: ignore[arg-type]
    region="ams",
    public_ip="192.0.2.1",
    public_key=b"",
    state="live",  # type: ignore[arg-type]
    created_at=AT,
    expires_at=AT,
    quota=QUOTA,
)
STANDBY = FleetMember(NODE, "ams1", "ams", "spoke", "U", b"x", 1, None, "192.0.2.2:7422", AT)

TO_THE_FIRST = [
    Needed(
        read(BEAT.encode(), Beat),
        dict.fromkeys(("node", "inst", "name", "region", "public_ip", "version"), str)
        | dict.fromkeys(("since", "n", "t", "live", "room", "mbps", "line", "gen", "acc_rev"), int)
        | {"p": list, "ready": bool, "drained": bool},
    ),
    Needed(
        msgspec.structs.replace(read(REPORT.encode(), SessionReport), windows=ReportedWindows(AT, 1, None, 0)),
        dict.fromkeys(("v", "turn", "batch", "created_at", "in", "out", "ms"), int) | {"e": str, "mark": str},
    ),
    Needed(ReportMark(9, "m", AT, 4, 5), {"batch": int, "mark": str, "upto": int}),
    Needed(SyncRequest(3, "m", dialled="192.0.2.2:7422"), {"after": int, "mark": str}),
    Needed(SyncAnswer(1, 4, "m", base=(3, "m"), hubs=(NODE,)), {"type": str, "gen": int, "rev": int, "mark": str}),
    Needed(ClaimKey(KEY, ACCOUNT, OP), {"type": str, "key": str, "account": str, "op": str}),
    Needed(ClaimName(ACCOUNT, "phone", OP), {"type": str, "account": str, "name": str, "op": str}),
    Needed(ReleaseKey(KEY), {"type": str, "key": str}),
    Needed(Done(2, [0, 7]), {"type": str, "lost": int}),
    Needed(Granted(NODE, "ses_1"), {"type": str, "node": str, "id": str}),
    Needed(
        JoinRequest(NODE, "ams1", "ams", "U", b"x", (1, 1), AT, dialled="192.0.2.2:7422"),
        dict.fromkeys(("node_id", "name", "region", "nkey", "xkey"), str) | {"p": list, "t": int},
    ),
    Needed(
        JoinAnswer(fleet_id="flt_1", gen=2, told=(STANDBY,), standbys=(NODE,)),
        {"refused": str, "fleet_id": str, "gen": int, "role": str, "hubs": list, "members": list, "fleet_key": str},
    ),
    Needed(
        STANDBY,
        dict.fromkeys(("id", "name", "region", "role", "nkey", "xkey"), str)
        | {"joined_at": int, "left_at": NUMBER_OR_NONE},
    ),
    Needed(
        OpenSession(OP, "wga_1", "ams", b"k", ipv6=True),
        {"op": str, "token": str, "region": str, "public_key": str, "ipv6": bool},
    ),
    Needed(OneOfAccount("wga_1", "ses_1"), {"token": str, "id": str}),
    Needed(
        ListOfAccount("", None, 9, live=True, for_account=ACCOUNT),
        {"token": str, "before": (list, NoneType), "limit": int, "live": bool},
    ),
    Needed(UsageOfAccount("", for_account=ACCOUNT), {"token": str}),
    Needed(
        ReportedOfAccount("wga_1", (NODE,), None, 9, live=False),
        {"token": str, "node_ids": list, "before": (list, NoneType), "limit": int, "live": bool},
    ),
    Needed(UsedHere(1, 2), {"bytes_used": int, "time_used_ms": int}),
    Needed(DrainExit(drained=True), {"drained": bool}),
    Needed(
        FACTS,
        dict.fromkeys(
            ("id", "tier", "account_tier", "region", "public_ip", "public_key", "state"),
            str,
        )
        | {"created_at": int, "expires_at": int, "quota": dict},
    ),
    Needed(
        QUOTA,
        dict.fromkeys(
            ("bytes_used", "bytes_limit", "bytes_resets_at", "time_used_ms", "seconds_limit", "seconds_resets_at"), int
        ),
    ),
]


@pytest.mark.parametrize("needed", TO_THE_FIRST, ids=lambda needed: type(needed.message).__name__)
def test_what_this_version_says_has_all_that_the_first_requires(needed: Needed) -> None:
    told = json.loads(msgspec.json.encode(needed.message))
    wrong = {
        name: told.get(name) for name, type_ in needed.fields.items() if not isinstance(told.get(name, ...), type_)
    }
    assert not wrong


def test_a_host_that_joins_is_told_which_members_are_standbys_beside_what_the_first_version_reads() -> None:
    answer = read(msgspec.json.encode(JoinAnswer(told=(STANDBY,), standbys=(NODE,))), JoinAnswer)
    assert [each.role for each in answer.told] == ["spoke"]
    assert [each.role for each in answer.members] == ["standby"]
