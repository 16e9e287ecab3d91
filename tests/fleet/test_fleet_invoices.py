"""An account's invoice over all exits: the sum of what each bills, and complete only when nothing is to come."""

from __future__ import annotations

import asyncio
import functools
import sqlite3
from contextlib import closing
from typing import TYPE_CHECKING

import msgspec
import pytest

from appliance.cli import fleet_verifying
from appliance.cli.fleet_verifying import requests
from appliance.domain.charges import month_bounds
from appliance.domain.errors import FleetError
from appliance.domain.fleet_invoice import unreported
from appliance.domain.invoice import totals
from appliance.fleet.reports.reports import ReportMark, mark_subject
from appliance.fleet.rpc.operations import VERIFY, VerifyLines
from appliance.store.queries import fleet_fold, fleet_members, fleet_moved, fleet_reports, fleet_requests, retention
from tests.support.fleet.billed_fleet import BEFORE_S, OCTOBER, SEPTEMBER, BilledFleet, billed_fleet
from tests.support.fleet.reporting_world import copy_store, put_back

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from pathlib import Path

    from appliance.domain.entities import Account
    from appliance.domain.invoice import Line, Total

_, ENDS = month_bounds(SEPTEMBER)


def in_fleet(test: Callable[[BilledFleet], Awaitable[None]]) -> Callable[[Path], None]:
    """Runs `async def test_x(billed)` with a hub and a spoke of its own, a minute before the end of September."""

    async def story(tmp_path: Path) -> None:
        async with billed_fleet(tmp_path) as billed:
            await test(billed)

    @functools.wraps(test)
    def run(tmp_path: Path) -> None:
        asyncio.run(story(tmp_path))

    del run.__wrapped__  # type: ignore[attr-defined]  # what pytest reads the parameters from
    return run


async def sums(billed: BilledFleet, account: Account, month: str) -> list[Total]:
    """What the invoice sums up to, which is what the exits' own invoices do, line by line."""
    found = await billed.invoice(account, month)
    own: list[Line] = []
    for name in billed.exits.hosts:
        own += (await billed.own_invoice(name, account, month)).lines
    assert [each.line for each in found.lines] == sorted(own, key=lambda line: (line.started_at, line.session_id))
    return totals(each.line for each in found.lines)


async def missing(billed: BilledFleet, account: Account, month: str = SEPTEMBER) -> list[str]:
    """The exits for which the invoice is provisional."""
    return [each.name for each in unreported((await billed.invoice(account, month)).exits, month)]


@in_fleet
async def test_the_invoice_is_the_sum_of_the_exits_own(billed: BilledFleet) -> None:
    """Of sessions on both exits that ended, were replaced, and go on over the month's end: to the millicent."""
    ada = await billed.exits.client("ada")
    bob = await billed.exits.client("bob")
    here, there = await ada.at("fra").connect(region="fra"), await ada.at("ams").connect(region="ams")
    other = await bob.at("ams").connect(region="ams")
    await billed.use("fra", here["id"], 100_003)
    await billed.use("ams", there["id"], 70_001)
    await billed.use("ams", other["id"], 5)
    await ada.at("ams").delete(there["id"])
    second = await ada.at("ams").connect(region="ams")
    await billed.use("ams", second["id"], 333)
    ams = billed.exits["ams"].exit_
    ams.tunnel.add_traffic(ams.key_of(other["id"]), rx=1, tx=0)
    for name, opened in (("fra", here), ("ams", second)):
        await billed.use(name, opened["id"], 1_000_000_007, after=2 * BEFORE_S)
    await billed.report()
    september, october = await sums(billed, ada.account, SEPTEMBER), await sums(billed, ada.account, OCTOBER)
    assert [(each.currency, each.lines) for each in (*september, *october)] == [("eur", 3), ("eur", 2)]
    assert september[0].total_bytes + october[0].total_bytes == 100_003 + 70_001 + 333 + 2 * 1_000_000_007
    assert min(september[0].millicents, october[0].millicents) > 0
    found = await billed.invoice(ada.account, SEPTEMBER)
    assert {each.node for each in found.lines} == {host.node_id for host in billed.exits.hosts.values()}
    assert await missing(billed, ada.account) == []


@in_fleet
async def test_a_month_is_provisional_until_every_exit_has_told_all_of_it(billed: BilledFleet) -> None:
    """Of an exit that is cut off, that moved nothing, and that opened a session which is still to be told."""
    ada = await billed.exits.client("ada")
    opened = await ada.at("ams").connect(region="ams")
    await billed.use("ams", opened["id"], 1000)
    await ada.at("ams").delete(opened["id"])
    await billed.report()
    assert await missing(billed, ada.account) == ["fra1", "ams1"]
    billed.bus.cut(billed.exits["ams"].node_id)
    await billed.pass_by(2 * BEFORE_S)
    await billed.report("fra")
    assert await missing(billed, ada.account) == ["ams1"]
    billed.bus.heal(billed.exits["ams"].node_id)
    await billed.report("ams")
    assert await missing(billed, ada.account) == []


@in_fleet
async def test_no_mark_passes_what_is_not_counted_or_not_told(billed: BilledFleet) -> None:
    """Time of a session that moves nothing is counted later: until then the mark stands where it was counted last.

    So it does where a report is lost.
    """
    ada = await billed.exits.client("ada")
    opened = await ada.at("ams").connect(region="ams")
    ams = billed.exits["ams"]
    await billed.use("ams", opened["id"], 1000)
    counted = ams.exit_.clock.wall_ms
    await billed.pass_by(2 * BEFORE_S)
    await billed.report()
    assert await missing(billed, ada.account) == ["ams1"]
    async with billed.exits["fra"].exit_.store.read() as db:
        assert (await fleet_fold.reported_until(db))[ams.node_id] == counted
    await billed.use("ams", opened["id"], 1)
    await billed.begin_process("ams", answer_s=0.3)
    billed.bus.lose_requests(f"wga.state.{ams.node_id}.s.>")
    with pytest.raises(FleetError):
        await billed.report("ams")
    await billed.begin_process("ams")
    assert await missing(billed, ada.account) == ["ams1"]
    await billed.report("ams")
    assert await missing(billed, ada.account) == []
    assert (await sums(billed, ada.account, SEPTEMBER))[0].seconds == BEFORE_S


@in_fleet
async def test_a_session_that_is_being_opened_holds_the_mark(billed: BilledFleet) -> None:
    """It began when it was asked for, and is told of once it is live."""
    ada = await billed.exits.client("ada")
    opened = await ada.at("ams").open(region="ams")
    exit_ = billed.exits["ams"].exit_
    began = exit_.clock.wall_ms
    await exit_.tick(2 * BEFORE_S)

    async def counted() -> int | None:
        async with exit_.store.snapshot() as db:
            return await fleet_moved.counted_until(db)

    assert await counted() == exit_.clock.wall_ms
    with closing(sqlite3.connect(exit_.path)) as db, db:
        db.execute("UPDATE sessions SET state = 'pending' WHERE id = ?", (opened["id"],))
    assert await counted() == began


@in_fleet
async def test_a_restored_exit_is_billed_what_it_had_told(billed: BilledFleet) -> None:
    """What its store lacks was told before; what it uses since is added: nothing is billed twice or lost."""
    ada = await billed.exits.client("ada")
    opened = await ada.at("ams").connect(region="ams")
    ams = billed.exits["ams"]
    await billed.use("ams", opened["id"], 1000)
    copy_store(ams.exit_.path, ams.exit_.path.parent / "backup")
    await billed.use("ams", opened["id"], 50_000, after=10)
    await billed.report()
    (before,) = (await billed.invoice(ada.account, SEPTEMBER)).lines
    await ams.exit_.stop()
    put_back(ams.exit_.path.parent / "backup", ams.exit_.path)
    with closing(sqlite3.connect(ams.exit_.path)) as db, db:
        fleet_reports.mark_restored(db)
    await ams.start()
    await billed.begin_process("ams")
    await billed.report()
    await billed.use("ams", opened["id"], 70, after=3)
    await billed.report()
    (after,) = (await billed.invoice(ada.account, SEPTEMBER)).lines
    assert before.line.charge.total_bytes == 51_000
    assert after.line.charge.total_bytes == 51_070
    assert before.line.charge.seconds < after.line.charge.seconds


@in_fleet
async def test_the_hubs_own_lines_are_of_now(billed: BilledFleet) -> None:
    """What it has not reported yet is in them; of its sessions that it took over, what was told holds."""
    ada = await billed.exits.client("ada")
    opened = await ada.at("fra").connect(region="fra")
    await billed.use("fra", opened["id"], 1000)
    await billed.report()
    await billed.use("fra", opened["id"], 234)
    (line,) = (await billed.invoice(ada.account, SEPTEMBER)).lines
    assert line.line.charge.total_bytes == 1234
    with closing(sqlite3.connect(billed.exits["fra"].exit_.path)) as db, db:
        db.execute("UPDATE fleet_reports SET basis = '{}'")
    (line,) = (await billed.invoice(ada.account, SEPTEMBER)).lines
    assert line.line.charge.total_bytes == 1000


@in_fleet
async def test_a_forgotten_exit_is_billed_as_last_reported(billed: BilledFleet) -> None:
    """Its lines stay; the invoice waits for it no more."""
    ada = await billed.exits.client("ada")
    opened = await ada.at("ams").connect(region="ams")
    await billed.use("ams", opened["id"], 1000)
    await billed.report()
    billed.bus.cut(billed.exits["ams"].node_id)
    await billed.pass_by(2 * BEFORE_S)
    await billed.report("fra")
    assert await missing(billed, ada.account) == ["ams1"]
    async with billed.exits["fra"].exit_.store.write() as db:
        await fleet_members.mark_left(db, billed.exits["ams"].node_id, ENDS)
    assert await missing(billed, ada.account) == []
    (line,) = (await billed.invoice(ada.account, SEPTEMBER)).lines
    assert (line.line.session_id, line.line.charge.total_bytes, line.line.ended_at) == (opened["id"], 1000, ENDS)


@in_fleet
async def test_marks_come_late_and_clocks_are_set(billed: BilledFleet) -> None:
    """The mark of the last batch holds, also if it is earlier, as the exit's clock was ahead; one of less does not.

    Nor does one that sums up more than the fold has, as after the hub was restored from an old image.
    """
    node, hub = billed.exits["ams"].node_id, billed.exits["fra"].exit_
    link = billed.bus.node(node)

    async def after(mark: ReportMark) -> int:
        await link.keep(mark_subject(node), msgspec.json.encode(mark), 30)
        await billed.fold.catch_up(node)
        async with hub.store.read() as db:
            return (await fleet_fold.reported_until(db)).get(node, 0)

    assert await after(ReportMark(5, "a", 9000)) == 9000  # of an older version, without sums
    assert await after(ReportMark(4, "b", 9500)) == 9000
    assert await after(ReportMark(5, "a", 8000)) == 9000
    assert await after(ReportMark(6, "c", 7000, 0, 0)) == 7000
    assert await after(ReportMark(7, "d", 9900, 1, 1)) == 7000
    assert await after(ReportMark(8, "e", 9900, 0, 0)) == 9900


async def lose_folded(billed: BilledFleet) -> None:
    """What the hub has of ams is lost, with the stream."""
    billed.streams.wipe(billed.exits["ams"].node_id)
    billed.fold.reconnected()
    async with billed.exits["fra"].exit_.store.write() as db:
        for table in ("fleet_sessions", "fleet_lines", "fleet_months", "fleet_nodes"):
            await db.execute(f"DELETE FROM {table}")  # noqa: S608 (names from above)


@in_fleet
async def test_lines_of_deleted_sessions_are_told_to_a_new_hub(billed: BilledFleet) -> None:
    """Retention removes sessions before their lines: a hub whose disk was lost has these again."""
    ada = await billed.exits.client("ada")
    opened = await ada.at("ams").connect(region="ams")
    await billed.use("ams", opened["id"], 1000)
    await ada.at("ams").delete(opened["id"])
    await billed.report()
    ams = billed.exits["ams"]
    async with ams.exit_.store.write() as db:
        await retention.delete_sessions(db, await retention.ended_before(db, ams.exit_.clock.wall_ms + 1, 100))
    await lose_folded(billed)
    await billed.report()
    (line,) = (await billed.invoice(ada.account, SEPTEMBER)).lines
    assert (line.line.session_id, line.line.charge.total_bytes) == (opened["id"], 1000)
    await sums(billed, ada.account, SEPTEMBER)
    assert billed.exits.folds is not None
    assert await billed.exits.folds.page(ada.account.id, [ams.node_id], live=False, before=None, limit=9) == []


# --verify ------------------------------------------------------------------------------------------


async def verified(billed: BilledFleet, account: Account, month: str = SEPTEMBER) -> list[str]:
    """What ams answers to each request; "": all is the same."""
    hub, ams = billed.exits["fra"], billed.exits["ams"]
    found = await billed.invoice(account, month)
    (there,) = [each for each in found.exits if each.node == ams.node_id]
    numbers, now = [], hub.exit_.clock.wall_ms
    for request in requests(account.id, month, found, there):
        async with hub.exit_.store.write() as db:
            number = await fleet_requests.intend(db, ams.node_id, VERIFY.name, msgspec.json.encode(request), now)
            assert number is not None
            numbers.append(number)
    assert await hub.any.intents.carry_out() == len(numbers)
    answers = []
    async with hub.exit_.store.write() as db:
        for number in numbers:
            left = await fleet_requests.outcome(db, number)
            answers.append("" if left is None else fleet_requests.words(left))
            await fleet_requests.done(db, number)
    return answers


@pytest.fixture
def small_pages(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fleet_verifying, "AT_ONCE", 2)


ALTERED = {
    "a line of the hub": ("fra", "UPDATE fleet_lines SET seconds = seconds + 1 WHERE session_id = ?", "from what"),
    "a line that the hub lacks": ("fra", "DELETE FROM fleet_lines WHERE session_id = ?", "from what"),
    "a line that nobody made": (
        "fra",
        "UPDATE fleet_lines SET session_id = 'ses_0' WHERE session_id = ?",
        "ses_0",
    ),
    "a line of the exit": ("ams", "UPDATE invoice_lines SET seconds = 1 WHERE session_id = ?", "daily totals"),
}


@pytest.mark.parametrize("altered", ALTERED.values(), ids=ALTERED)
@pytest.mark.usefixtures("small_pages")
def test_an_exit_finds_what_the_hub_has_otherwise(tmp_path: Path, altered: tuple[str, str, str]) -> None:
    """A line by hand on either host: the exit names the session. Before, all is the same, in pages too."""
    where, sql, words = altered

    async def story() -> None:
        async with billed_fleet(tmp_path) as billed:
            ada = await billed.exits.client("ada")
            opened = []
            for _ in range(3):
                opened.append(await ada.at("ams").connect(region="ams"))
                await billed.use("ams", opened[-1]["id"], 1000)
                await ada.at("ams").delete(opened[-1]["id"])
            running = await ada.at("ams").connect(region="ams")
            await billed.use("ams", running["id"], 50)
            await billed.report()
            await billed.use("ams", running["id"], 60, after=1)
            assert await verified(billed, ada.account) == ["", ""]
            with closing(sqlite3.connect(billed.exits[where].exit_.path)) as db, db:
                assert db.execute(sql, (opened[1]["id"],)).rowcount == 1
            told = "; ".join(await verified(billed, ada.account))
            assert words in told
            assert opened[1]["id"] in told

    asyncio.run(story())


@in_fleet
async def test_a_restored_exit_has_the_lines_that_it_told(billed: BilledFleet) -> None:
    """Those of sessions that it lost, too: they are as the hub has them, and are told to another hub."""
    ada = await billed.exits.client("ada")
    first = await ada.at("ams").connect(region="ams")
    ams = billed.exits["ams"]
    copy_store(ams.exit_.path, ams.exit_.path.parent / "backup")
    second = await ada.at("ams").connect(region="ams")
    for each in (first, second):
        await billed.use("ams", each["id"], 1000)
        await ada.at("ams").delete(each["id"])
    await billed.report()
    await ams.exit_.stop()
    put_back(ams.exit_.path.parent / "backup", ams.exit_.path)
    with closing(sqlite3.connect(ams.exit_.path)) as db, db:
        fleet_reports.mark_restored(db)
    await ams.start()
    await billed.begin_process("ams")
    await billed.report()
    before = (await billed.invoice(ada.account, SEPTEMBER)).lines
    assert {line.session_id for _, line in before} == {first["id"], second["id"]}
    assert await verified(billed, ada.account) == [""]
    await lose_folded(billed)
    await billed.report()
    assert (await billed.invoice(ada.account, SEPTEMBER)).lines == before


@in_fleet
async def test_only_a_hub_has_lines_compared(billed: BilledFleet) -> None:
    asked = msgspec.json.encode(VerifyLines("acc_1", SEPTEMBER, 0, "", "", []))
    answer = await billed.exits["fra"].any.owner.answer(billed.exits["ams"].node_id, "verify", asked)
    assert b"only a hub" in answer


# Use of windows ------------------------------------------------------------------------------------


@in_fleet
async def test_use_is_of_all_exits_also_of_those_that_do_not_answer(billed: BilledFleet) -> None:
    """Through either API: of an exit that is away, as it has reported last; of one that answers, what it says."""
    ada = await billed.exits.client("ada")
    here, there = await ada.at("fra").connect(region="fra"), await ada.at("ams").connect(region="ams")
    await billed.use("fra", here["id"], 1000)
    await billed.use("ams", there["id"], 70)
    await billed.report()
    await billed.use("ams", there["id"], 5)

    async def used(api: str) -> tuple[int, int]:
        found = (await ada.at(api).get("/v1/usage")).json()
        return found["bytes_used"], found["session_seconds"]

    assert await used("fra") == await used("ams") == (1075, 2 + 4)
    ams, fra = billed.exits["ams"].node_id, billed.exits["fra"].node_id
    billed.exits.wire.cut.add(ams)
    assert await used("fra") == (1070, 2 + 2)
    assert await used("ams") == (75, 4)  # no hub tells it anything
    billed.exits.wire.cut.remove(ams)
    billed.exits.wire.fault("fra", "usage", "lost")
    assert await used("ams") == (1075, 2 + 4)
    assert fra in {node for node, operation in billed.exits.wire.calls if operation == "reported_use"}


@in_fleet
async def test_use_of_a_window_that_is_over_counts_no_more(billed: BilledFleet) -> None:
    """An exit that is away may have reported it months ago. A later batch replaces what an earlier one told."""
    ada = await billed.exits.client("ada")
    there = await ada.at("ams").connect(region="ams")
    await billed.use("ams", there["id"], 70)
    await billed.report()
    await billed.use("ams", there["id"], 7)
    await billed.report()
    billed.exits.wire.cut.add(billed.exits["ams"].node_id)
    used = (await ada.at("fra").get("/v1/usage")).json()
    assert used["bytes_used"] == 77
    await billed.pass_by(40 * 86_400)
    used = (await ada.at("fra").get("/v1/usage")).json()
    assert (used["bytes_used"], used["session_seconds"]) == (0, 0)
