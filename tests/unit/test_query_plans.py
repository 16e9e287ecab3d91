"""Queries of the running server cost what they find, not what is kept: SQLite plans a range of an index."""

from __future__ import annotations

import asyncio
import sqlite3
from contextlib import closing
from typing import TYPE_CHECKING

import pytest

from appliance.domain.accounting import Reading
from appliance.domain.charges import Amount
from appliance.domain.clock import Moment
from appliance.domain.device import Device
from appliance.domain.entities import Baseline, Reason
from appliance.domain.tiers import Tier
from appliance.store.database import Store
from appliance.store.queries import accounts, devices, invoices, peers, retention, session_list, sessions, tokens
from tests.support.unit.a_session import A_SESSION

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable
    from pathlib import Path

    import aiosqlite

    Query = Callable[[aiosqlite.Connection], Awaitable[object]]


async def every_device(db: aiosqlite.Connection) -> list[Device]:
    return [found async for found in devices.each(db)]


async def every_baseline(db: aiosqlite.Connection) -> list[tuple[bytes, Baseline]]:
    return [found async for found in peers.baselines(db)]


PHONE = Device("dev_1", "acc_1", "ada", Tier.PAID, False, "phone", "fsn", bytes(32), 2, True, 1, False, "")
A_DEVICE = "SEARCH devices USING INDEX sqlite_autoindex_devices_1 (id=?)"
ITS_ACCOUNT = "SEARCH a USING INDEX sqlite_autoindex_accounts_1 (id=?)"
SESSIONS_OF_IT = "SEARCH s USING COVERING INDEX sessions_by_device (device_id=?)"

# Each with what SQLite is to read: a range of an index, or an index that has unfinished sessions alone.
QUERIES: dict[str, tuple[Query, set[str]]] = {
    "what a start reads of unfinished sessions": (
        sessions.places,
        {"SCAN sessions USING INDEX sessions_unfinished"},
    ),
    "what requests that were cut short have left": (
        sessions.delete_pending,
        {"SEARCH sessions USING INDEX sessions_unfinished (state=?)"},
    ),
    "sessions that are due": (
        lambda db: retention.ended_before(db, 7, 5),
        {"SEARCH sessions USING INDEX sessions_by_end (terminated_at<?)"},
    ),
    "lines that are due": (
        lambda db: retention.lines_ended_before(db, 7, retention.FIRST, 5),
        {"SEARCH invoice_lines USING COVERING INDEX invoice_lines_by_end ((ended_at,session_id)>(?,?) AND ended_at<?)"},
    ),
    "sessions whose lines are all due": (
        lambda db: retention.settled(db, ["ses_1"], 7),
        {
            "SEARCH l USING PRIMARY KEY (session_id=?)",
            "SEARCH s USING INDEX sqlite_autoindex_sessions_1 (id=?)",
        },
    ),
    "deleting sessions": (
        lambda db: retention.delete_sessions(db, ["ses_1"]),
        {
            "SEARCH usage_days USING PRIMARY KEY (session_id=?)",
            "SEARCH l USING PRIMARY KEY (session_id=?)",
            "SEARCH sessions USING INDEX sqlite_autoindex_sessions_1 (id=?)",
        },
    ),
    "deleting lines and days": (
        lambda db: retention.delete_invoiced(db, ["ses_1"], 7),
        {
            "SEARCH usage_days USING PRIMARY KEY (session_id=?)",
            "SEARCH invoice_lines USING PRIMARY KEY (session_id=?)",
            "SEARCH l USING PRIMARY KEY (session_id=?)",
            "SEARCH s USING INDEX sqlite_autoindex_sessions_1 (id=?)",
        },
    ),
    "a session's short id": (
        lambda db: sessions.ids_like(db, "ses_1", 5),
        {"SEARCH sessions USING INDEX sqlite_autoindex_sessions_1 (id>? AND id<?)"},
    ),
    "a token's short id": (
        lambda db: tokens.ids_like(db, "1", 5),
        {"SEARCH tokens USING COVERING INDEX sqlite_autoindex_tokens_1 (id>? AND id<?)"},
    ),
    "ending a token's sessions": (
        lambda db: sessions.close_of_token(db, "tok_1"),
        {"SEARCH sessions USING INDEX sessions_live_token (token_id=?)"},
    ),
    "ending disabled accounts' sessions": (
        sessions.close_for_disabled_accounts,
        {"SEARCH sessions USING INDEX sessions_unfinished (state=?)", "SCAN accounts"},
    ),
    "all unfinished sessions": (
        sessions.unfinished,
        {
            "SCAN s USING INDEX sessions_unfinished",
            "SEARCH p USING INTEGER PRIMARY KEY (rowid=?) LEFT-JOIN",
            "SEARCH a USING INDEX sqlite_autoindex_accounts_1 (id=?)",
        },
    ),
    "an account's unfinished sessions": (
        lambda db: sessions.unfinished_of(db, "acc_1"),
        {
            "SEARCH s USING INDEX sessions_unfinished_of (account_id=?)",
            "SEARCH p USING INTEGER PRIMARY KEY (rowid=?) LEFT-JOIN",
            "SEARCH a USING INDEX sqlite_autoindex_accounts_1 (id=?)",
        },
    ),
    "an account's page": (
        lambda db: sessions.page(db, sessions.Page(account_id="acc_1", limit=5)),
        {
            "SEARCH s USING INDEX sessions_by_account (account_id=? AND number<?)",
            "SEARCH p USING INTEGER PRIMARY KEY (rowid=?) LEFT-JOIN",
            "SEARCH a USING INDEX sqlite_autoindex_accounts_1 (id=?)",
        },
    ),
    "an account's page of live sessions": (
        lambda db: sessions.page(db, sessions.Page(account_id="acc_1", live=True, limit=5)),
        {
            "SEARCH s USING INDEX sessions_unfinished_of (account_id=? AND rowid<?)",
            "SEARCH p USING INTEGER PRIMARY KEY (rowid=?) LEFT-JOIN",
            "SEARCH a USING INDEX sqlite_autoindex_accounts_1 (id=?)",
        },
    ),
    "all live sessions": (
        lambda db: sessions.page(db, sessions.Page(live=True, limit=5)),
        {
            "SEARCH s USING INDEX sessions_unfinished (state=? AND rowid<?)",
            "SEARCH p USING INTEGER PRIMARY KEY (rowid=?) LEFT-JOIN",
            "SEARCH a USING INDEX sqlite_autoindex_accounts_1 (id=?)",
        },
    ),
    "a list's page": (
        lambda db: session_list.page(db, session_list.Selection(), 7, 5),
        {
            "SEARCH s USING INTEGER PRIMARY KEY (rowid<?)",
            "SEARCH d USING INDEX sqlite_autoindex_devices_1 (id=?) LEFT-JOIN",
            "SEARCH p USING INTEGER PRIMARY KEY (rowid=?) LEFT-JOIN",
            "SEARCH a USING INDEX sqlite_autoindex_accounts_1 (id=?)",
        },
    ),
    "a list's page of live sessions": (
        lambda db: session_list.page(db, session_list.Selection(live=True), 7, 5),
        {
            "SEARCH s USING INDEX sessions_unfinished (state=? AND rowid<?)",
            "SEARCH d USING INDEX sqlite_autoindex_devices_1 (id=?) LEFT-JOIN",
            "SEARCH p USING INTEGER PRIMARY KEY (rowid=?) LEFT-JOIN",
            "SEARCH a USING INDEX sqlite_autoindex_accounts_1 (id=?)",
        },
    ),
    "a list's page of an account": (
        lambda db: session_list.page(db, session_list.Selection("acc_1"), 7, 5),
        {
            "SEARCH s USING INDEX sessions_by_account (account_id=? AND number<?)",
            "SEARCH d USING INDEX sqlite_autoindex_devices_1 (id=?) LEFT-JOIN",
            "SEARCH p USING INTEGER PRIMARY KEY (rowid=?) LEFT-JOIN",
            "SEARCH a USING INDEX sqlite_autoindex_accounts_1 (id=?)",
        },
    ),
    "a list's page of an account's live sessions": (
        lambda db: session_list.page(db, session_list.Selection("acc_1", live=True), 7, 5),
        {
            "SEARCH s USING INDEX sessions_unfinished_of (account_id=? AND rowid<?)",
            "SEARCH d USING INDEX sqlite_autoindex_devices_1 (id=?) LEFT-JOIN",
            "SEARCH p USING INTEGER PRIMARY KEY (rowid=?) LEFT-JOIN",
            "SEARCH a USING INDEX sqlite_autoindex_accounts_1 (id=?)",
        },
    ),
    "whether a list of live sessions is longer": (
        lambda db: session_list.are_more_than(db, session_list.Selection(live=True), 5),
        {"SEARCH s USING COVERING INDEX sessions_unfinished (state=? AND rowid<?)"},
    ),
    "whether sessions may be opened": (
        lambda db: tokens.permits(db, [("acc_1", b"\1" * 32), ("acc_2", b"\2" * 32)]),
        {
            "SEARCH a USING INDEX sqlite_autoindex_accounts_1 (id=?) LEFT-JOIN",
            "SEARCH t USING INDEX sqlite_autoindex_tokens_2 (hash=?) LEFT-JOIN",
            "SCAN node",
            "SCAN 2 CONSTANT ROWS",
            "SCAN asked",
        },
    ),
    "the accounts of a batch": (
        lambda db: accounts.by_ids(db, ["acc_1", "acc_2"]),
        {"SEARCH accounts USING INDEX sqlite_autoindex_accounts_1 (id=?)"},
    ),
    "bringing a replaced session's line back": (
        lambda db: invoices.bring_back(db, ["ses_1"]),
        {
            "SEARCH invoice_lines USING PRIMARY KEY (session_id=?)",
            "SEARCH invoice_lines USING PRIMARY KEY (session_id=? AND month=?)",
            "SEARCH s USING INDEX sqlite_autoindex_sessions_1 (id=?)",
        },
    ),
    "marking sessions as ended": (
        lambda db: sessions.mark_terminated(db, [("ses_1", Reason.CLOSED, 7)]),
        {
            "SEARCH sessions USING INDEX sqlite_autoindex_sessions_1 (id=?)",
            "SEARCH s USING INDEX sqlite_autoindex_sessions_1 (id=?)",
            "SEARCH p USING INTEGER PRIMARY KEY (rowid=?) LEFT-JOIN",
        },
    ),
    "bringing replaced sessions back": (
        lambda db: sessions.bring_back(db, [("ses_1", None)], Moment(1, 2, "boot")),
        {"SEARCH sessions USING INDEX sqlite_autoindex_sessions_1 (id=?)"},
    ),
    "dropping peers": (
        lambda db: peers.drop(db, [2]),
        {
            "SEARCH peers USING INTEGER PRIMARY KEY (rowid=?)",
            "SEARCH s USING INDEX sessions_live_address (address_offset=?)",
        },
    ),
    "adding readings": (
        lambda db: peers.add_readings(db, [Reading(Amount(1, 2, 3), 1, 2, A_SESSION, None)]),
        {"SEARCH peers USING INTEGER PRIMARY KEY (rowid=?)"},
    ),
    "all baselines": (
        every_baseline,
        {"SEARCH s USING INDEX sessions_unfinished (state=?)", "SEARCH p USING INTEGER PRIMARY KEY (rowid=?)"},
    ),
    "forgetting baselines": (
        lambda db: peers.forget_baselines(db, [2]),
        {"SEARCH peers USING INTEGER PRIMARY KEY (rowid=?)"},
    ),
    "baselines of devices that begin sessions": (
        lambda db: peers.put_baselines(db, [(2, Baseline("a", 1, 2, 3))]),
        {"SEARCH peers USING INTEGER PRIMARY KEY (rowid=?)"},
    ),
    "addresses and keys of devices": (
        lambda db: devices.having(db, [2, 3], [bytes(32)]),
        {
            "SEARCH devices USING INDEX devices_by_address (address_offset=?)",
            "SEARCH devices USING INDEX devices_by_key (public_key=?)",
        },
    ),
    "a device": (
        lambda db: devices.by_id(db, "acc_1", "dev_1"),
        {"SEARCH d USING INDEX sqlite_autoindex_devices_1 (id=?)", ITS_ACCOUNT},
    ),
    "a device of a name": (
        lambda db: devices.by_name(db, "acc_1", "phone"),
        {"SEARCH d USING INDEX devices_by_name (account_id=? AND name_key=?)", ITS_ACCOUNT},
    ),
    "a device of a key": (
        lambda db: devices.by_key(db, bytes(32)),
        {"SEARCH d USING INDEX devices_by_key (public_key=?)", ITS_ACCOUNT},
    ),
    "an account's page of devices": (
        lambda db: devices.page(db, "acc_1", 5, "dev_1"),
        {
            "SEARCH d USING INDEX devices_by_account (account_id=? AND number<?)",
            "SEARCH devices USING COVERING INDEX sqlite_autoindex_devices_1 (id=?)",
            ITS_ACCOUNT,
        },
    ),
    "all devices": (every_device, {"SCAN d USING INDEX devices_by_address", ITS_ACCOUNT}),
    "how many devices an account has": (
        lambda db: devices.count_of(db, "acc_1"),
        {"SEARCH devices USING INDEX devices_by_account (account_id=?)"},
    ),
    "how many devices there are": (devices.count, {"SCAN devices USING INDEX devices_by_address"}),
    "the addresses of devices": (devices.places, {"SCAN devices USING INDEX devices_by_address"}),
    "devices that stand": (lambda db: devices.standing(db, ["dev_1"]), {A_DEVICE}),
    "handshakes of devices that came to nothing": (lambda db: devices.put_unfinished(db, [PHONE]), {A_DEVICE}),
    "those that a session has now": (lambda db: devices.forget_unfinished(db, ["dev_1"]), {A_DEVICE}),
    "another name of a device": (lambda db: devices.rename(db, "dev_1", "phone"), {A_DEVICE}),
    "a pause of a device": (lambda db: devices.pause(db, "dev_1", paused=True), {A_DEVICE}),
    "another key of a device": (lambda db: devices.rotate(db, "dev_1", bytes(32), ""), {A_DEVICE}),
    "forgetting what was seen of devices": (
        lambda db: devices.forget_baselines(db, [("dev_1", bytes(32))]),
        {A_DEVICE},
    ),
    "adding ended sessions to their devices": (
        lambda db: devices.add_ended(db, ["ses_1"]),
        {
            A_DEVICE,
            "SEARCH s USING INDEX sqlite_autoindex_sessions_1 (id=?)",
            "SEARCH p USING INTEGER PRIMARY KEY (rowid=?)",
        },
    ),
    "removing devices": (lambda db: devices.remove(db, ["dev_1"], 7), {A_DEVICE, SESSIONS_OF_IT}),
    "removing an account's devices": (
        lambda db: devices.remove_of(db, "acc_1", 7),
        {"SEARCH devices USING INDEX devices_by_account (account_id=?)", A_DEVICE, SESSIONS_OF_IT},
    ),
    "removed devices that are due": (
        lambda db: devices.removed_before(db, 7, 5),
        {"SEARCH devices USING INDEX devices_by_removal (removed_at<?)", SESSIONS_OF_IT},
    ),
    "forgetting removed devices": (lambda db: devices.forget(db, ["dev_1"]), {A_DEVICE, SESSIONS_OF_IT}),
    "accounts with unfinished sessions": (
        accounts.of_unfinished_sessions,
        {
            "SEARCH accounts USING INDEX sqlite_autoindex_accounts_1 (id=?)",
            "SCAN sessions USING INDEX sessions_unfinished",
        },
    ),
}


def statements(path: Path, query: Query) -> list[str]:
    """The statements of a query, with their parameters, as SQLite is given them."""
    seen: list[str] = []

    async def run() -> None:
        store = await Store.open(path)
        async with store.write() as db:
            await db.set_trace_callback(seen.append)
            await query(db)
            await db.set_trace_callback(None)  # type: ignore[arg-type]  # to end it
        await store.close()

    asyncio.run(run())
    return [statement for statement in seen if not statement.startswith(("--", "BEGIN", "COMMIT"))]


def reads(plan: Iterable[str]) -> set[str]:
    """Of tables and indices, without what was read from them."""
    tables = (step for step in plan if step.startswith(("SEARCH", "SCAN")))
    return {step for step in tables if "VIRTUAL TABLE" not in step and "(subquery" not in step}


@pytest.mark.parametrize(("query", "expected"), QUERIES.values(), ids=QUERIES)
def test_no_query_reads_all_that_is_kept(tmp_path: Path, query: Query, expected: set[str]) -> None:
    """Each statement reads by an index, and no table of what has ended is read from end to end."""
    path = tmp_path / "store.sqlite"
    found: set[str] = set()
    seen = statements(path, query)
    assert seen
    with closing(sqlite3.connect(path)) as db:
        for statement in seen:
            found |= reads(detail for *_, detail in db.execute(f"EXPLAIN QUERY PLAN {statement}"))
    assert found == expected
