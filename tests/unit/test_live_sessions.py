"""What is live, in memory."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest
from msgspec import structs

from appliance.domain.accounting import Reading
from appliance.domain.charges import Amount
from appliance.domain.clock import Moment
from appliance.domain.entities import Account, Baseline, Reason, State
from appliance.domain.errors import StoreUnavailable
from appliance.domain.tiers import Tier
from appliance.store.database import Store
from appliance.store.live import LiveSessions
from tests.support.unit.a_session import A_SESSION

if TYPE_CHECKING:
    from pathlib import Path

KEY = A_SESSION.public_key
BASELINE = Baseline("boot", 4, 1, 2)
ACCOUNT = Account("acc_1", "ada", Tier.FREE, False, 0)
BEAT = Moment(1, 2, "boot")


def live() -> LiveSessions:
    found = LiveSessions()
    found.load([A_SESSION], {KEY: BASELINE}, [ACCOUNT], BEAT)
    return found


def test_live_and_closing_sessions_are_loaded_with_their_baselines() -> None:
    """Live and closing sessions have peers; pending and ended ones, and baselines of no session, are left out."""
    others = [
        structs.replace(A_SESSION, id=state, state=state, public_key=bytes([n]) * 32)
        for n, state in enumerate(State, start=2)
    ]
    found = LiveSessions()
    assert found.stale
    read = {bytes(bytearray(s.public_key)): BASELINE for s in others}  # the store's own copies of the keys
    found.load(others, read | {KEY: BASELINE}, [ACCOUNT], BEAT)
    assert not found.stale
    assert {s.state for s in found.by_key.values()} == {State.LIVE, State.CLOSING}
    assert found.baselines.keys() == found.by_key.keys()
    own = {id(session.public_key) for session in found.by_key.values()}
    assert {id(key) for key in found.baselines} == own  # no second copy of each key in memory
    assert found.accounts == {"acc_1": ACCOUNT}
    assert found.beat == BEAT
    assert len(found) == 2


def test_an_ended_session_goes_with_its_baseline() -> None:
    """An ended session goes with its baseline."""
    found = live()
    found.drop(KEY)
    assert not found.by_key
    assert not found.baselines


def test_a_successor_takes_over_the_baseline() -> None:
    """A session that takes over the key takes over its baseline too."""
    found, successor = live(), structs.replace(A_SESSION, id="ses_2")
    found.put(successor)
    assert found.by_key == {KEY: successor}
    assert found.baselines == {KEY: BASELINE}


def test_a_session_is_found_by_its_id_until_it_has_ended() -> None:
    """A session is found by its id until it has ended or its key is another's, with what was last counted."""
    found = live()
    assert found.session("ses_1") is found.by_key[KEY]
    assert found.session("ses_2") is None
    counted = structs.replace(A_SESSION, bytes_in=5)
    found.take([Reading(Amount(0, 5, 0), 0, 0, counted, BASELINE)], {})
    assert found.session("ses_1") == counted
    found.put(structs.replace(A_SESSION, id="ses_2"))
    assert found.session("ses_1") is None
    assert found.session("ses_2") is found.by_key[KEY]
    found.drop(KEY)
    assert found.session("ses_2") is None


def test_by_id_while_stale() -> None:
    """Memory that may differ from the store is not asked."""
    found = live()
    found.stale = True
    assert found.session("ses_1") is None
    found.load([structs.replace(A_SESSION, id="ses_2")], {}, [ACCOUNT], BEAT)
    assert found.session("ses_1") is None
    assert found.session("ses_2") is not None


def test_put_keeps_the_windows_that_are_known() -> None:
    """An account that has a session here has the newer windows here."""
    found = live()
    found.put(A_SESSION, structs.replace(ACCOUNT, tier=Tier.PAID))
    assert found.accounts["acc_1"] == ACCOUNT


def test_sessions_come_in_the_order_in_which_they_are_due() -> None:
    """Sessions come in the order in which they expire, were counted and were heard; one that ends leaves all three."""
    found = live()
    key = b"\x02" * 32
    found.put(
        structs.replace(A_SESSION, id="ses_2", public_key=key, expires_at=5, counted_until_ms=6, quiet_since_ms=7)
    )
    quiet = found.quiet_since[ACCOUNT.tier]
    assert (found.expiries.least(), found.counted_until.least(), quiet.least()) == (5, 6, 7)
    assert found.expiries.upto(A_SESSION.expires_at) == [key, KEY]
    found.drop(key)
    assert found.expiries.upto(A_SESSION.expires_at) == [KEY]
    found.drop(KEY)
    assert (found.expiries.least(), found.counted_until.least(), quiet.least()) == (None, None, None)


def test_closing_sessions_are_at_hand_until_they_have_ended() -> None:
    """Those that have to end are at hand, until they have ended or their key is another session's."""
    found = live()
    found.put(structs.replace(A_SESSION, state=State.CLOSING, reason=Reason.ADMIN))
    assert found.closing == {KEY}
    found.put(structs.replace(A_SESSION, id="ses_2"))
    assert found.closing == set()


def test_a_changed_peer_is_told_once() -> None:
    """Whose peer may have to change is told once."""
    found = live()
    assert found.touched() == {KEY}
    assert found.touched() == set()
    found.drop(KEY)
    assert found.touched() == {KEY}


def test_a_failed_transaction_makes_memory_stale(tmp_path: Path) -> None:
    """It may have been committed all the same, so that nothing more is counted before the store was read again."""

    async def body() -> None:
        store = await Store.open(tmp_path / "store.sqlite")
        found = live()
        with pytest.raises(StoreUnavailable):
            async with found.committing(store):
                raise StoreUnavailable
        assert found.stale
        await store.close()

    asyncio.run(body())
