"""The hub's fold: woken by what passes, unharmed by what is no report, the same in whatever order reports come."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.domain.errors import FleetError, NotAnswered
from appliance.fleet.reports.away import folded_of_account, id_ending
from appliance.fleet.reports.fold import AT_A_TIME, AT_ONCE, DISK_LEFT, OF_ONE, STORED, Fold
from appliance.fleet.reports.fold_answers import FoldAnswers
from appliance.fleet.reports.folding import merged
from appliance.fleet.reports.reporting import ReportingPace
from appliance.fleet.reports.reports import LINES_END, ReportedLife, ReportedLine, ReportedRates, SessionReport
from appliance.store.queries import fleet_fold
from tests.support.api.exit_under_test import until
from tests.support.fleet.reporting_world import NODE, BusWorld, reporting_world

if TYPE_CHECKING:
    import random
    from collections.abc import AsyncIterator
    from pathlib import Path

    import aiosqlite

OTHER = "nod_" + "b" * 24
LINE = ReportedLine("2026-11", 5, None, 1, 2, 3, ReportedRates("eur", 4, 5), 6, 7)
REPORT = SessionReport(
    3, "ab", 0, 7, "cd", 1_790_000_000_000, 2, 3, 1000, "live", "acc_1", "paid", "fsn", lines=(LINE,)
)


async def keep(world: BusWorld, session_id: str, report: SessionReport | bytes, node: str = NODE) -> None:
    data = report if isinstance(report, bytes) else msgspec.json.encode(report)
    await world.bus.hub().keep(f"wga.state.{node}.s.{session_id}.0-ab", data, 1)


def test_an_exit_that_joins_has_its_stream_with_its_first_question(tmp_path: Path) -> None:
    """Before it reports it asks what the hub has. Others that report all the while are no reason to wait."""

    async def story() -> None:
        async with reporting_world(tmp_path) as world:
            assert OTHER not in world.streams.made
            await world.fold.catch_up(OTHER)
            assert await world.streams.last_sequence(OTHER) == 0

    asyncio.run(story())


def test_both_ends_run_by_themselves(tmp_path: Path) -> None:
    """What is opened is with the hub soon, without a digest that asks for it; so is what ends."""

    async def story() -> None:
        async with reporting_world(tmp_path) as world:
            await world.fold.listen(world.bus.hub())
            tasks = [asyncio.create_task(world.fold.run()), asyncio.create_task(world.reporting.run())]
            client = await world.exit_.client()
            opened = await client.connect()
            await world.use(opened["id"])
            await until(lambda: world.reporting.settled, "all is told")
            await client.delete(opened["id"])
            async with asyncio.timeout(60):
                while (told := await world.folded(opened["id"])) is None or told.state != "terminated":  # noqa: ASYNC110
                    await asyncio.sleep(0.02)
            assert told.report.total_bytes == 1000
            for task in tasks:
                task.cancel()
                with suppress(asyncio.CancelledError):
                    await task

    asyncio.run(story())


NONSENSE = (
    b"",
    b"[]",
    b'{"v": 1}',
    msgspec.json.encode(msgspec.structs.replace(REPORT, bytes_in=-1)),
    msgspec.json.encode(msgspec.structs.replace(REPORT, bytes_in=2**63)),
    msgspec.json.encode(msgspec.structs.replace(REPORT, created_at=2**60)),
    msgspec.json.encode(msgspec.structs.replace(REPORT, epoch="x")),
    msgspec.json.encode(msgspec.structs.replace(REPORT, lines=(msgspec.structs.replace(LINE, month="2026-13"),))),
    b"[" * 100_000,
    msgspec.json.encode(REPORT).replace(b"acc_1", rb"\ud800"),
    msgspec.json.encode(REPORT).replace(b"acc_1", b"\xff"),
    msgspec.json.encode(REPORT)[:-1] + b',"x":' + b"[" * 100_000,
    msgspec.json.encode(msgspec.structs.replace(REPORT, lives=(ReportedLife("", 0, 0, 0),) * 20_000)),
    msgspec.json.encode(msgspec.structs.replace(REPORT, lines=(LINE,) * 2000)),
)


def test_what_is_no_report_is_passed_over(tmp_path: Path) -> None:
    """A lying exit stops neither the fold nor the sums; fields that are not known are no lie."""

    async def story() -> None:
        async with reporting_world(tmp_path) as world:
            for number, data in enumerate(NONSENSE):
                await keep(world, f"bad{number}", data)
            await world.bus.hub().keep(f"wga.state.{NODE}.what", b"?", 1)
            largest = msgspec.structs.replace(
                REPORT, lines=(LINE, LINE), v=2**62, bytes_in=2**62, bytes_out=2**62, batch=2**53
            )
            for number in range(4):
                await keep(world, f"large{number}", largest)
            newer = {**msgspec.to_builtins(REPORT), "what_comes_next": [1]}
            await keep(world, "ses_1", msgspec.json.encode(newer))
            assert set(await world.totals()) == {"ses_1", *(f"large{n}" for n in range(4))}
            assert world.fold.refused == len(NONSENSE)
            async with world.hub.read() as db:
                rows = await db.execute_fetchall("SELECT * FROM fleet_lines WHERE session_id = 'ses_1'")
                (found,) = [
                    each for each in await folded_of_account(db, "acc_1", NODE, (2**53, ""), 9) if each.id == "ses_1"
                ]
            (line,) = [tuple(row) for row in rows]
            assert line == ("ses_1", NODE, "2026-11", 5, None, 1, 2, 3, "eur", 4, 5, 6, 7, "acc_1")
            assert (found.time_millicents, found.bytes_millicents, found.currency) == (6, 7, "eur")

    asyncio.run(story())


def test_what_is_reported_leaves_room_on_the_disk(tmp_path: Path) -> None:
    """Reports without end would keep the hub from opening sessions; they are folded once there is room again."""

    async def story() -> None:
        async with reporting_world(tmp_path) as world:
            left = 10**6
            fold = Fold(world.hub, world.streams, lambda: [NODE], lambda: left)
            await keep(world, "ses_1", REPORT)
            with pytest.raises(FleetError, match="nearly full"):
                await fold.catch_up(NODE)
            assert await world.folded("ses_1") is None
            left = 10**12
            await fold.catch_up(NODE)
            assert await world.folded("ses_1") is not None

    asyncio.run(story())


def test_an_exit_that_reports_without_end_is_refused_before_others(tmp_path: Path) -> None:
    """It gets as much of the disk as it leaves for all, and others are folded still; an update adds nothing."""

    async def story() -> None:
        async with reporting_world(tmp_path) as world:
            left = DISK_LEFT + OF_ONE
            fold = Fold(world.hub, world.streams, lambda: [NODE, OTHER], lambda: left)
            long = msgspec.structs.replace(REPORT, reason="x" * 600)
            size = STORED * len(msgspec.json.encode(long))
            await world.streams.make(OTHER)
            for v in range(3):
                await keep(world, "ses_1", msgspec.structs.replace(long, v=v))
                await fold.catch_up(NODE)
            fold.note_grown(NODE, OF_ONE - size)
            await keep(world, "ses_2", long)
            await fold.catch_up(NODE)
            await keep(world, "ses_3", long)
            with pytest.raises(FleetError, match="has added 64 MiB to the store"):
                await fold.catch_up(NODE)
            await keep(world, "ses_4", long, OTHER)
            assert await fold.catch_up(OTHER)
            left += OF_ONE
            assert await fold.catch_up(NODE)
            assert await world.folded("ses_3") is not None

    asyncio.run(story())


def test_a_long_stream_is_no_reason_for_others_to_wait(tmp_path: Path) -> None:
    """A part of it is folded, then it is their turn."""

    async def story() -> None:
        async with reporting_world(tmp_path) as world:
            for number in range(AT_ONCE + 1):
                await keep(world, f"ses_{number}", REPORT)
            fold = Fold(world.hub, world.streams, lambda: [NODE])
            assert [await fold.catch_up(NODE, 1) for _ in range(2)] == [False, True]

    asyncio.run(story())


def test_months_without_end_are_cut() -> None:
    """In each report no more than are read, and no more in all: what is stored can be read again."""

    def lines(first: int) -> tuple[ReportedLine, ...]:
        months = [f"{year}-{month:02}" for year in range(first, first + 100) for month in range(1, 13)]
        return tuple(msgspec.structs.replace(LINE, month=each) for each in months)

    one, other = (msgspec.structs.replace(REPORT, lines=lines(first), v=first) for first in (1970, 2070))
    found = merged(one, other)
    assert len(found.lines) == LINES_END
    assert msgspec.json.decode(msgspec.json.encode(found), type=SessionReport) == found


def test_a_fold_that_is_lost_is_made_again(tmp_path: Path) -> None:
    """Of the streams, by itself; what they have no more, as it was folded long ago, once digests differ."""

    async def story() -> None:
        async with reporting_world(tmp_path) as world:
            client = await world.exit_.client()
            opened = [(await client.connect())["id"] for _ in range(3)]
            for each in opened:
                await world.use(each)
            await client.delete(opened[0])
            await world.report()
            await world.wipe_fold()
            assert await world.totals() == world.used

            kept = world.bus_streams.made[NODE].kept
            for subject in [subject for subject in kept if opened[0] in subject]:
                del kept[subject]
            await world.wipe_fold()
            assert await world.totals() == {each: world.used[each] for each in opened[1:]}
            await world.report()
            assert await world.totals() == world.used

    asyncio.run(story())


def test_a_stream_that_fills_up_has_room_again(tmp_path: Path) -> None:
    """Reports of ended sessions are dropped once they are folded and the stream is half full; live ones stay."""

    async def story() -> None:
        async with reporting_world(tmp_path) as world:
            over = msgspec.structs.replace(REPORT, state="terminated")
            for number in range(20):
                await keep(world, f"ses_{number:02}", over if number % 2 else REPORT)
            stream = world.bus_streams.made[NODE]
            await world.fold.catch_up(NODE)
            await world.fold.make_room(NODE)
            assert len(stream.kept) == 20
            stream.max_bytes = 30 * len(msgspec.json.encode(REPORT))
            await keep(world, "ses_late", over)
            await world.fold.make_room(NODE)
            assert sorted(subject.split(".")[4] for subject in stream.kept) == [
                *(f"ses_{number:02}" for number in range(0, 20, 2)),
                "ses_late",
            ]
            assert len(await world.totals()) == 21

    asyncio.run(story())


def test_a_session_is_its_owners(tmp_path: Path) -> None:
    """What another exit says of a session changes nothing of it."""

    async def story() -> None:
        async with reporting_world(tmp_path) as world:
            session_id = f"ses_1234{id_ending(NODE)}"
            for node, account in ((OTHER, "acc_2"), (NODE, "acc_1")):
                await world.streams.make(node)
                await keep(world, session_id, msgspec.structs.replace(REPORT, account_id=account), node)
                await world.fold.catch_up(node)
            told = await world.folded(session_id)
            assert told is not None
            assert (told.node, told.report.account_id) == (NODE, "acc_1")

    asyncio.run(story())


def test_members_alone_are_answered(tmp_path: Path) -> None:
    """An exit that has left is told nothing."""

    async def story() -> None:
        async with reporting_world(tmp_path) as world:
            answers = FoldAnswers(world.hub, world.fold, lambda node: node == OTHER)
            world.answers = answers
            for what in ("digest", "usage"):
                with pytest.raises(NotAnswered):
                    await world.link.request(f"wga.led.{NODE}.{what}", b"{}", 0.1)

    asyncio.run(story())


def test_answers_have_room_in_a_message(tmp_path: Path) -> None:
    """However many sessions are asked for: in pages."""

    async def story() -> None:
        async with reporting_world(tmp_path) as world:
            lines = tuple(msgspec.structs.replace(LINE, month=f"20{year}-11") for year in range(30, 60))
            long = msgspec.structs.replace(REPORT, lines=lines)
            for number in range(450):
                await keep(world, f"ses_{number:03}", long if number % 3 else REPORT)
            await world.fold.catch_up(NODE)
            world.begin_process(ReportingPace(report_s=0, answer_s=20))
            sizes = list[int]()
            answer = world.link.request

            async def measured(subject: str, data: bytes, timeout_s: float) -> bytes:
                data = await answer(subject, data, timeout_s)
                sizes.append(len(data))
                return data

            world.link.request = measured  # type: ignore[method-assign]
            await world.report(6)
            assert max(sizes) < 130_000
            assert world.reporting.adopted == 450
            async with world.hub.read() as db:
                said = await fleet_fold.said_after_batch(db, NODE, 7, "", 1000)
            assert len(said) == 450
            assert b'"live"' not in said[0].said

    asyncio.run(story())


def test_what_the_hub_itself_stores_waits_for_one_transaction(tmp_path: Path) -> None:
    """However many exits report at once, and however much: a session that the hub opens is not refused for it."""
    nodes = [f"nod_{letter * 24}" for letter in "cdefab"]

    async def story() -> None:
        async with reporting_world(tmp_path) as world:
            write, begun = world.hub.write, asyncio.Event()
            folded, waited = list[None](), list[int]()

            @asynccontextmanager
            async def noted() -> AsyncIterator[aiosqlite.Connection]:
                async with write() as db:
                    yield db
                folded.append(None)
                begun.set()

            async def store() -> None:
                await begun.wait()
                before = len(folded)
                async with write():
                    waited.append(len(folded) - before)

            for node in nodes:
                await world.streams.make(node)
                for number in range(2 * AT_A_TIME):
                    await keep(world, f"ses_{number:03}", REPORT, node)
            world.hub.write = noted  # type: ignore[method-assign]
            await asyncio.gather(*(world.fold.catch_up(node) for node in nodes), store())
            assert waited[0] <= 2
            assert len(folded) == 2 * len(nodes)

    asyncio.run(story())


def test_all_of_a_month_is_told_in_pages(tmp_path: Path) -> None:
    """Each session of it once, also those that were opened in the same instant, and none of another month."""

    async def story() -> None:
        async with reporting_world(tmp_path) as world:
            for number in range(12):  # ids are in another order than instants
                opened = msgspec.structs.replace(REPORT, created_at=REPORT.created_at - number // 4)
                await keep(world, f"ses_{number * 7 % 12:02}", opened)
            await keep(world, "ses_99", msgspec.structs.replace(REPORT, created_at=REPORT.created_at + 40 * 86_400_000))
            await world.fold.catch_up(NODE)
            told, after = list[str](), ""
            async with world.hub.read() as db:
                while page := await fleet_fold.said_of_month(db, NODE, REPORT.month, after, 5):
                    told += [each.session_id for each in page]
                    after = told[-1]
                unknown = await fleet_fold.said_of_month(db, NODE, REPORT.month, "ses_98", 5)
            assert sorted(told) == [f"ses_{number:02}" for number in range(12)]
            assert [each.session_id for each in unknown] == told[:5]

    asyncio.run(story())


@st.composite
def honest(draw: st.DrawFn) -> list[SessionReport]:
    """Reports as one exit makes them: of a higher `v`, each figure is as large or larger; lost ones have no account."""
    reports = []
    for turn in range(draw(st.integers(1, 3))):
        bytes_in, v = draw(st.integers(0, 9)), draw(st.integers(1, 3))
        for _ in range(draw(st.integers(1, 3))):
            bytes_in, v = bytes_in + draw(st.integers(0, 9)), v + 1
            lines = (msgspec.structs.replace(LINE, bytes_in=bytes_in),)
            report = msgspec.structs.replace(REPORT, turn=turn, v=v, batch=v, bytes_in=bytes_in, lines=lines)
            reports.append(report)
    return reports


@given(honest(), st.randoms(), st.data())
def test_reports_may_come_in_any_order(reports: list[SessionReport], order: random.Random, data: st.DataObject) -> None:
    """The last one of the last epoch is what is known in the end, with all figures at their largest."""
    several = [*reports, *data.draw(st.lists(st.sampled_from(reports), max_size=5))]
    order.shuffle(several)
    known = None
    for report in several:
        known = merged(known, report)
    assert known == reports[-1]


def test_a_lost_session_keeps_what_was_known() -> None:
    """Its exit can say only that it is over."""
    lost = SessionReport(4, "ef", 1, 8, "", REPORT.created_at, 2, 3, 1000)
    known = merged(REPORT, lost)
    assert (known.state, known.account_id, known.region, known.lines) == ("terminated", "acc_1", "fsn", REPORT.lines)
    assert merged(None, lost) == lost
