"""A spoke's accounts, tokens, members and terms are the hub's, whatever becomes of the hub and of the way between."""

from __future__ import annotations

import asyncio
import sqlite3
from contextlib import closing
from typing import TYPE_CHECKING

import msgspec
import pytest

from appliance.domain.clock import Moment
from appliance.domain.entities import Account
from appliance.domain.errors import NoActiveNodes, StoreUnavailable
from appliance.domain.fleet_member import FleetMember
from appliance.domain.tiers import Tier
from appliance.fleet.accounts import ledger
from appliance.fleet.accounts.ledger import PAGE_BYTES
from appliance.fleet.accounts.replica import Reactions, Replica
from appliance.fleet.accounts.sync_messages import SyncAnswer, SyncRequest
from appliance.fleet.presence.offline import OfflineTokens, may_open
from appliance.store.queries import accounts, devices, fleet_changes, fleet_members, fleet_state, fleet_terms, tokens
from tests.support.fleet.followers import AMS, FRA, LIS, followed, following, replicated, turn
from tests.support.unit.a_device import A_DEVICE

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from appliance.store.database import Store
    from tests.support.fleet.followers import Followed, Follower

HOUR, DAY = 3_600_000, 86_400_000


def same(one: Followed, *spokes: Follower) -> None:
    for each in spokes:
        assert replicated(each.path) == replicated(one.path)


async def add_account(store: Store, name: str, **others: object) -> Account:
    made = Account(f"acc_{name}", name, Tier.FREE, False, 1, **others)  # type: ignore[arg-type]
    async with store.write() as db:
        await accounts.insert(db, made)
    return made


def test_a_change_is_everywhere_after_one_beat(tmp_path: Path) -> None:
    """New, changed, disabled and deleted accounts, new and revoked tokens, members, terms; memory is read again where
    something that was there has changed, and only there."""

    async def story() -> None:
        async with followed(tmp_path, AMS, LIS) as (one, spokes):
            ada = await one.account("ada")
            await turn(one, spokes)
            same(one, *spokes)
            rings = [each.rings for each in spokes]
            await one.account("bob")
            await turn(one, spokes)
            assert [each.rings for each in spokes] == rings
            async with one.store.write() as db:
                await accounts.update(db, ada.id, tier=Tier.FREE, disabled=True)
                (token,) = await tokens.of_account(db, ada.id)
                await tokens.revoke(db, token.id, 9)
                await fleet_members.put(db, FleetMember(FRA, "fra1", "fra", "hub", "UFRA", bytes(32), 1))
                await fleet_terms.put(db, '{"tiers":{}}')
            await turn(one, spokes)
            same(one, *spokes)
            assert [each.rings for each in spokes] == [before + 1 for before in rings]
            assert [each.terms for each in spokes] == [['{"tiers":{}}']] * 2
            assert [each.members for each in spokes] == [1, 1]
            async with one.store.write() as db:
                await accounts.delete(db, ada.id, 10)
            await turn(one, spokes)
            same(one, *spokes)
            assert not any(each.replica.behind for each in spokes)
            assert {each.replica.position for each in spokes} == {one.ledger.position}

    asyncio.run(story())


def test_what_is_the_exits_own_stays(tmp_path: Path) -> None:
    """Windows that are used here, accounts of self-tests, and devices: also when everything is read anew."""

    async def story() -> None:
        async with followed(tmp_path, AMS) as (one, (ams,)):
            ada = await one.account("ada")
            await turn(one, [ams])
            async with ams.store.write() as db:
                await db.execute("UPDATE accounts SET bytes_used = 7, bytes_opened_at = 1")
                await accounts.insert(db, Account("acc_selftest_1", "selftest-1", Tier.FREE, False, 1))
                await devices.insert(db, [msgspec.structs.replace(A_DEVICE, account_id=ada.id)])
            await one.change("UPDATE accounts SET tier = 'free'")
            await one.change("DELETE FROM fleet_changes WHERE rev < (SELECT max(rev) FROM fleet_changes)")
            await turn(one, [ams])
            with closing(sqlite3.connect(ams.path)) as db:
                rows = db.execute("SELECT name, tier, bytes_used, deleted_at FROM accounts ORDER BY name").fetchall()
                assert rows == [("ada", "free", 7, None), ("selftest-1", "free", 0, None)]
                assert db.execute("SELECT removed_at FROM devices").fetchall() == [(None,)]

    asyncio.run(story())


def test_an_account_that_is_deleted_takes_its_devices_along(tmp_path: Path) -> None:
    """As `account delete` does on the hub."""

    async def story() -> None:
        async with followed(tmp_path, AMS) as (one, (ams,)):
            ada = await one.account("ada")
            await turn(one, [ams])
            async with ams.store.write() as db:
                await devices.insert(db, [msgspec.structs.replace(A_DEVICE, account_id=ada.id)])
            async with one.store.write() as db:
                await accounts.delete(db, ada.id, 10)
            await turn(one, [ams])
            async with ams.store.read() as db:
                assert await devices.count_of(db, ada.id) == 0

    asyncio.run(story())


def test_names_change_hands_in_any_order(tmp_path: Path) -> None:
    """A ring of renamed accounts, a deleted one whose name is given away, and one that only the spoke has."""

    async def story() -> None:
        async with followed(tmp_path, AMS, LIS) as (one, (ams, lis)):
            for name in ("ada", "bob", "eve"):
                await add_account(one.store, name)
            await turn(one, [ams])
            async with one.store.write() as db:
                for name, to in (("ada", "x"), ("bob", "ada"), ("x", "bob")):
                    await db.execute("UPDATE accounts SET name = ? WHERE name = ?", (to, name))
                await accounts.delete(db, "acc_eve", 5)
                await accounts.insert(db, Account("acc_new", "eve", Tier.FREE, False, 1))
            await add_account(one.store, "zoe")
            await add_account(lis.store, "zoe1")
            await lis.store.close()
            with closing(sqlite3.connect(lis.path)) as db, db:
                db.execute("UPDATE accounts SET name = 'zoe', id = 'acc_other'")
            lis.store = await type(one.store).open(lis.path)
            await following(lis, one.bus, LIS)
            await turn(one, [ams, lis])
            same(one, ams)
            with closing(sqlite3.connect(lis.path)) as db:
                assert db.execute("SELECT id FROM accounts WHERE name = 'zoe' AND deleted_at IS NULL").fetchall() == [
                    ("acc_zoe",)
                ]
                assert db.execute("SELECT disabled FROM accounts WHERE id = 'acc_other'").fetchall() == [(1,)]
            assert lis.rings == 1

    asyncio.run(story())


def test_a_hub_that_was_rolled_back_is_followed_back(tmp_path: Path) -> None:
    """To an old store, which then goes on by other changes to the same number; and to the newer one once more."""

    async def story() -> None:
        async with followed(tmp_path, AMS, LIS) as (one, spokes):
            ada = await one.account("ada")
            await turn(one, spokes)
            old = await one.copied("old.sqlite")
            await one.account("bob")
            await one.change("UPDATE accounts SET disabled = 1 WHERE id = ?", ada.id)
            await turn(one, spokes)
            new, position = one.path, one.ledger.position
            await one.answer_from(old)
            while one.ledger.position < position:
                await one.change("UPDATE accounts SET tier = iif(tier = 'free', 'paid', 'free')")
            assert one.ledger.position == position
            for each in spokes:
                assert await each.replica.follow()
                assert _usable(each.path) == {"ada"}
            await one.answer_from(new)
            for each in spokes:
                assert await each.replica.follow()
            same(one, *spokes)

    asyncio.run(story())


def test_another_hub_with_the_same_accounts_changes_nothing(tmp_path: Path) -> None:
    """It has a change log of its own: everything is read, and nothing is written that is there."""

    async def story() -> None:
        async with followed(tmp_path, AMS) as (one, (ams,)):
            await one.account("ada", 5)
            await turn(one, [ams])
            other = await one.copied("other.sqlite")
            with closing(sqlite3.connect(other)) as db, db:
                db.execute("UPDATE fleet_changes SET mark = lower(hex(randomblob(8)))")
            await one.answer_from(other)
            rings = ams.rings
            assert await ams.replica.follow()
            same(one, ams)
            assert ams.rings == rings

    asyncio.run(story())


def _usable(path: Path) -> set[str]:
    with closing(sqlite3.connect(path)) as db:
        return {name for (name,) in db.execute("SELECT name FROM accounts WHERE deleted_at IS NULL AND NOT disabled")}


def test_an_older_hub_is_not_followed(tmp_path: Path) -> None:
    """A hub of a newer generation takes over; one of an older generation that returns does not."""

    async def story() -> None:
        async with followed(tmp_path, AMS) as (one, (ams,)):
            await one.account("ada")
            await turn(one, [ams])
            old = await one.copied("old.sqlite")
            await one.answer_from(await one.copied("new.sqlite"), gen=2)
            await one.account("bob")
            await turn(one, [ams])
            same(one, ams)
            assert ams.replica.position[0] == 2
            await one.answer_from(old)
            await turn(one, [ams])
            assert not await ams.replica.follow()
            assert _usable(ams.path) == {"ada", "bob"}
            await following(ams, one.bus, AMS)
            assert ams.replica.position[0] == 2

    asyncio.run(story())


def test_a_spoke_that_was_away_catches_up(tmp_path: Path) -> None:
    """Cut off meanwhile, and restarted: it asks for what it lacks, once it is back."""

    async def story() -> None:
        async with followed(tmp_path, AMS, LIS) as (one, (ams, lis)):
            ada = await one.account("ada")
            await turn(one, [ams, lis])
            one.bus.cut(AMS)
            for number in range(50):
                await one.account(f"a{number}")
            await one.change("UPDATE accounts SET disabled = 1 WHERE id = ?", ada.id)
            await turn(one, [ams, lis])
            same(one, lis)
            assert ams.replica.behind
            ams.clock.advance(86_400)
            one.bus.heal(AMS)
            await following(ams, one.bus, AMS)
            asked = len(one.bus.sent)
            assert await ams.replica.follow()
            assert [subject for _, subject, _ in one.bus.sent[asked:]] == [f"wga.led.{AMS}.sync"]
            same(one, ams)

    asyncio.run(story())


def test_ten_thousand_tokens_come_in_pages_and_in_one_piece(tmp_path: Path, show: Callable[[str], None]) -> None:
    """What changes between two pages is there in the end, an account and the name that it gave away too; no page is
    larger than a message may be."""

    async def story() -> None:
        async with followed(tmp_path, AMS) as (one, (ams,)):
            for number in range(20):
                await one.account(f"a{number}", 500)
            await one.answer_from(one.path)
            pages = list[int]()
            answer = one.ledger.answer

            async def meddled(sender: str, data: bytes) -> bytes:
                found = await answer(sender, data)
                pages.append(len(found))
                number = len(pages)
                if number > 6:
                    return found
                async with one.store.write() as db:
                    await db.execute("UPDATE accounts SET name = ? WHERE name = ?", (f"b{number}", f"a{number}"))
                    await db.execute(
                        "INSERT INTO accounts (id, name, tier, created_at) VALUES (?, ?, 'free', 1)",
                        (
                            f"acc_{number}",
                            f"a{number}",
                        ),
                    )
                    await db.execute("DELETE FROM tokens WHERE id = (SELECT min(id) FROM tokens)")
                return found

            one.bus.subscriptions.clear()
            one.ledger.answer = meddled  # type: ignore[method-assign]
            await ledger.serve(one.bus.hub(), "sync", lambda sender, data: one.ledger.answer(sender, data))
            assert await ams.replica.follow()
            assert max(pages) < PAGE_BYTES * 1.2
            show(f"pages for 10,000 tokens: {len(pages)}, the largest of {max(pages)} bytes")
            with closing(sqlite3.connect(ams.path)) as db:
                assert db.execute("SELECT count(*) FROM tokens").fetchone()[0] > 9_900
            same(one, ams)

    asyncio.run(story())


def test_a_transaction_that_cannot_be_written_leaves_all_as_it_was(tmp_path: Path) -> None:
    """A token whose account is not there: nothing is taken over, and everything is read anew the next time."""

    async def story() -> None:
        async with followed(tmp_path, AMS) as (one, (ams,)):
            await one.account("ada")
            await turn(one, [ams])
            with closing(sqlite3.connect(ams.path)) as db, db:
                db.execute("DELETE FROM tokens")
                db.execute("DELETE FROM accounts")
            await one.change("UPDATE tokens SET label = 'new'")
            before = replicated(ams.path)
            await turn(one, [ams])
            assert ams.replica.behind
            assert replicated(ams.path) == before
            assert await ams.replica.follow()
            same(one, ams)

    asyncio.run(story())


@pytest.mark.parametrize("data", [b"", b"{", b"[]", b'{"after":"x"}', b'{"after":1e400}'])
def test_what_is_no_question_is_refused(tmp_path: Path, data: bytes) -> None:
    """In words, at once."""

    async def story() -> None:
        async with followed(tmp_path, AMS) as (one, _):
            answer = await one.bus.node(AMS).request(f"wga.led.{AMS}.sync", data, 5)
            assert b'"type":"refused"' in answer

    asyncio.run(story())


def test_a_store_of_before_the_host_joined_is_a_spokes_again(tmp_path: Path) -> None:
    """A restored backup may be that old: what the hub does not have is out of use, and the row is there."""

    async def story() -> None:
        async with followed(tmp_path, AMS) as (one, (ams,)):
            await one.account("ada")
            async with ams.store.write() as db:
                await fleet_state.leave(db)
            await add_account(ams.store, "mine")
            await following(ams, one.bus, AMS)
            assert await ams.replica.follow()
            assert _usable(ams.path) == {"ada"}
            async with ams.store.read() as db:
                row = await fleet_state.read(db)
            assert row is not None
            assert (row.role, row.gen, row.acc_rev) == ("spoke", *one.ledger.position)

    asyncio.run(story())


def test_what_was_not_told_is_told_the_next_time(tmp_path: Path) -> None:
    """Members and terms are stored, but the rest of the exit could not take them in: the store did not answer it."""

    async def story() -> None:
        async with followed(tmp_path, AMS) as (one, (ams,)):
            fails, told = [True], list[str]()

            async def members() -> None:
                if fails:
                    raise StoreUnavailable
                told.append("members")

            async def terms(text: str) -> None:
                told.append(text)

            reactions = Reactions(ams.rung, members, terms, ams.claims_lost)
            replica = Replica(one.bus.node(AMS), ams.store, AMS, ams.clock, reactions)
            async with one.store.write() as db:
                await fleet_members.put(db, FleetMember(FRA, "fra1", "fra", "hub", "UFRA", bytes(32), 1))
                await fleet_terms.put(db, "{}")
            assert not await replica.follow()
            assert replica.behind
            fails.clear()
            for _ in range(2):
                assert await replica.follow()
            assert told == ["members", "{}"]

    asyncio.run(story())


def test_newer_words_are_passed_over(tmp_path: Path) -> None:
    """A newer hub may send kinds and fields that this version does not know."""

    async def story() -> None:
        async with followed(tmp_path, AMS) as (one, (ams,)):
            await one.account("ada")
            one.bus.subscriptions.clear()
            head = (1, "ab")
            rows = [("quota", "q1", {"x": 1}), ("account", "acc_9", {"id": "acc_9", "name": "zed", "tier": "free"})]
            rows[1][2].update(disabled=False, created_at=1, new=[1])
            answer = {"type": "synced", "gen": 1, "rev": head[0], "mark": head[1], "rows": rows, "more": False, "y": 2}

            async def told(message: object) -> None:
                await message.answer(msgspec.json.encode(answer))  # type: ignore[attr-defined]

            await one.bus.hub().subscribe("wga.led.*.sync", told)
            assert await ams.replica.follow()
            assert _usable(ams.path) == {"zed"}

    asyncio.run(story())


def test_claims_that_were_lost_are_claimed_again(tmp_path: Path) -> None:
    """Once for each memory of claims that the ledger names."""

    async def story() -> None:
        async with followed(tmp_path, AMS) as (one, (ams,)):
            await ams.replica.follow()
            await ams.replica.follow()
            assert ams.claims == 1
            one.claims = "claims-2"
            await ams.replica.follow()
            assert ams.claims == 2

    asyncio.run(story())


def test_running_follows_beats(tmp_path: Path) -> None:
    """A beat wakes it; while it cannot follow it tries again, and it ends when it is told to."""

    async def story() -> None:
        async with followed(tmp_path, AMS) as (one, (ams,)):
            stopping = asyncio.Event()
            running = asyncio.create_task(ams.replica.run(stopping))
            try:
                for name in ("ada", "bob"):
                    await one.account(name)
                    if name == "bob":
                        one.bus.cut(AMS)
                        ams.replica.beat(*one.ledger.position)
                        await asyncio.sleep(0)
                        one.bus.heal(AMS)
                    ams.replica.beat(*one.ledger.position)
                    async with asyncio.timeout(60):
                        while ams.replica.position != one.ledger.position:  # noqa: ASYNC110 - sets no event
                            await asyncio.sleep(0.01)
                    same(one, ams)
            finally:
                stopping.set()
                async with asyncio.timeout(60):
                    await running

    asyncio.run(story())


def test_a_question_costs_what_it_finds(tmp_path: Path) -> None:
    """A spoke that has everything is answered without rows; the answer names the same change."""

    async def story() -> None:
        async with followed(tmp_path, AMS) as (one, (ams,)):
            await one.account("ada", 10)
            await turn(one, [ams])
            async with one.store.read() as db:
                head = await fleet_changes.head(db)
            data = await one.ledger.answer(AMS, msgspec.json.encode(SyncRequest(head.rev, head.mark)))
            answer = msgspec.json.decode(data, type=SyncAnswer)
            assert (answer.rev, answer.mark, answer.rows, answer.more) == (head.rev, head.mark, [], False)

    asyncio.run(story())


# How long tokens are trusted ------------------------------------------------------------------------


HEARD = Moment(10 * DAY, 5 * HOUR, "a")
OPENS = {
    "at once": (HEARD, True),
    "within the boot, before": (Moment(0, 5 * HOUR + DAY - 1, "a"), True),
    "within the boot, after": (Moment(10 * DAY, 5 * HOUR + DAY, "a"), False),
    "after a reboot, before": (Moment(11 * DAY - 1, 1, "b"), True),
    "after a reboot, after": (Moment(11 * DAY, 1, "b"), False),
    "after a reboot, a clock a little behind": (Moment(10 * DAY - 60_000, 1, "b"), True),
    "after a reboot, a clock that was set back": (Moment(9 * DAY, 1, "b"), False),
}


@pytest.mark.parametrize(("now", "opens"), OPENS.values(), ids=OPENS)
def test_tokens_are_trusted_for_a_day(now: Moment, opens: bool) -> None:
    """From when the ledger was heard, by the boot clock, and by the wall clock once the host was restarted."""
    assert may_open(HEARD, now, DAY) is opens
    assert not may_open(None, now, DAY)


def test_the_ledger_is_heard_by_its_answers_alone(tmp_path: Path) -> None:
    """Beats prove nothing. It is remembered over restarts, at most a minute too old."""

    async def story() -> None:
        async with followed(tmp_path, AMS) as (one, (ams,)):
            offline = OfflineTokens(lambda: ams.replica.heard, ams.clock, lambda: 86_400)
            with pytest.raises(NoActiveNodes):
                offline.check()
            await ams.replica.follow()
            for _ in range(10):
                ams.clock.advance(30)
                await ams.replica.follow()
            heard = ams.clock.now()
            assert ams.replica.heard == heard
            one.bus.cut(AMS)
            ams.clock.advance(86_000)
            ams.replica.beat(*one.ledger.position)
            await ams.replica.follow()
            assert ams.replica.heard == heard
            offline.check()
            await following(ams, one.bus, AMS)
            assert ams.replica.heard is not None
            assert 0 <= heard.boot_ms - ams.replica.heard.boot_ms <= 60_000
            ams.clock.advance(401)
            with pytest.raises(NoActiveNodes):
                offline.check()
            ams.clock.reboot()
            with pytest.raises(NoActiveNodes):
                offline.check()

    asyncio.run(story())


def test_a_spoke_knows_who_keeps_the_accounts(tmp_path: Path) -> None:
    """By the members that it was told."""

    async def story() -> None:
        async with followed(tmp_path, AMS) as (one, (ams,)):
            async with one.store.write() as db:
                await fleet_members.put(db, FleetMember(FRA, "fra1", "fra", "hub", "UFRA", bytes(32), 1))
            await turn(one, [ams])
            async with ams.store.read() as db:
                assert await fleet_state.kept_on(db) == "fra1"

    asyncio.run(story())
