"""A client's key and a device's name are one exit's, as the ledger decides on what it is asked."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import msgspec
import pytest

from appliance.domain.errors import CutOff, DeviceNameTaken, InvalidRequest, KeyInUse, NotAnswered
from appliance.fleet.claims import claims as ledger_claims
from appliance.fleet.claims import own_claims
from appliance.fleet.claims.claiming import Whereabouts
from appliance.fleet.claims.claims import KEY_LAPSES_MS, NAME_LAPSES_MS, key_name, record_of_name
from appliance.fleet.claims.ledger import ClaimLedger
from appliance.fleet.claims.messages import HeldKey, HeldName, Renew
from appliance.fleet.claims.own_claims import TAKEN_MS, OwnClaims, OwnKey, OwnName
from appliance.fleet.claims.taken import MOST_SHOWN
from tests.support.fleet.bus import Bus
from tests.support.fleet.claims_kept import FLEET_KEY, RecordsInMemory, keeps_the_contract, races
from tests.support.virtual_clock import VirtualClock

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from appliance.fleet.claims.claiming import Claims

AMS, LIS = "nod_" + "2" * 24, "nod_" + "3" * 24
KEY = b"\x01" * 32


class World:
    """A ledger in memory, and two exits."""

    def __init__(self) -> None:
        self.bus, self.clock = Bus(), VirtualClock()
        self.keys, self.names, self.members = RecordsInMemory(), RecordsInMemory(), {AMS, LIS}
        self.ledger = ClaimLedger(self.keys, self.names, self.clock, self._locate, self.members.__contains__)
        self.live: dict[str, list[OwnKey]] = {AMS: [], LIS: []}
        self.named: dict[str, list[OwnName]] = {AMS: [], LIS: []}
        self.ams, self.lis = self._owner(AMS), self._owner(LIS)

    def _owner(self, node: str) -> OwnClaims:
        return OwnClaims(
            self.bus.node(node),
            node,
            FLEET_KEY,
            self.clock,
            keys=lambda: self.live[node],
            names=lambda: self.named[node],
        )

    async def _locate(self, id_: str) -> str | None:
        return {"ses_1": AMS}.get(id_)


def with_claims(body: Callable[[World], Awaitable[None]]) -> None:
    async def story() -> None:
        world = World()
        await world.ledger.listen(world.bus.hub())
        await body(world)
        await world.bus.idle()
        assert world.bus.failures == []

    asyncio.run(story())


async def opened(claims: Claims, op: str, session: str, account: str = "acc_1") -> Whereabouts | None:
    old = await claims.claim_key(KEY, account, op, device=False)
    await claims.settle_key(KEY, account, op, session, device=False)
    return old


def test_records_in_memory_keep_the_contract() -> None:
    """As those on a hub do."""
    asyncio.run(keeps_the_contract(RecordsInMemory()))


def test_a_key_moves_with_its_account() -> None:
    """The claim names the session that has it elsewhere; asked again it is answered alike."""

    async def body(w: World) -> None:
        assert await opened(w.ams, "op1", "ses_1") is None
        for _ in range(2):
            assert await w.lis.claim_key(KEY, "acc_1", "op2", device=False) == Whereabouts(AMS, "ses_1")
        await w.lis.settle_key(KEY, "acc_1", "op2", "ses_2", device=False)
        assert await w.ams.claim_key(KEY, "acc_1", "op3", device=False) == Whereabouts(LIS, "ses_2")

    with_claims(body)


def test_another_accounts_key_is_refused() -> None:
    """As on one exit; until it is given up."""

    async def body(w: World) -> None:
        await opened(w.ams, "op1", "ses_1")
        with pytest.raises(InvalidRequest, match="in use by another account"):
            await w.lis.claim_key(KEY, "acc_2", "op2", device=False)
        await w.ams.release_key(KEY, "")
        assert await opened(w.lis, "op3", "ses_3", "acc_2") is None

    with_claims(body)


def test_a_claim_that_came_to_nothing_leaves_what_was() -> None:
    """Who had the key has it again; given up twice, or late, it is no other's that is given up."""

    async def body(w: World) -> None:
        await opened(w.ams, "op1", "ses_1")
        await w.lis.claim_key(KEY, "acc_1", "op2", device=False)
        await w.lis.release_key(KEY, "op2")
        await w.lis.release_key(KEY, "op2")
        assert await w.lis.claim_key(KEY, "acc_1", "op4", device=False) == Whereabouts(AMS, "ses_1")
        await w.lis.settle_key(KEY, "acc_1", "op4", "ses_4", device=False)
        await w.ams.release_key(KEY, "")  # its session has ended, as it was replaced
        await w.lis.release_key(KEY, "op4")
        assert (await w.keys.get(key_name(FLEET_KEY, KEY))).value is None

    with_claims(body)


def test_devices_keep_their_keys() -> None:
    """No session elsewhere takes a device's key, no device a session's; what is on the same exit is its own matter."""

    async def body(w: World) -> None:
        await w.ams.claim_key(KEY, "acc_1", "op1", device=True)
        await w.ams.settle_key(KEY, "acc_1", "op1", "dev_1", device=True)
        for device in (True, False):
            with pytest.raises(KeyInUse):
                await w.lis.claim_key(KEY, "acc_1", "op2", device=device)
            assert await w.ams.claim_key(KEY, "acc_1", f"op3{device}", device=device) == Whereabouts(AMS, "dev_1")
            await w.ams.release_key(KEY, f"op3{device}")
        await w.ams.release_key(KEY, "")
        await opened(w.lis, "op4", "ses_4")
        with pytest.raises(KeyInUse):
            await w.ams.claim_key(KEY, "acc_1", "op5", device=True)

    with_claims(body)


def test_of_two_at_once_the_loser_is_told() -> None:
    """An exit whose session was still being made when another one took the key hears of it."""

    async def body(w: World) -> None:
        await w.ams.claim_key(KEY, "acc_1", "op1", device=False)
        assert await w.lis.claim_key(KEY, "acc_1", "op2", device=False) is None
        assert not await w.ams.settle_key(KEY, "acc_1", "op1", "ses_1", device=False)
        assert await w.lis.settle_key(KEY, "acc_1", "op2", "ses_2", device=False)

    with_claims(body)


def test_a_key_is_not_lost_to_nobody() -> None:
    """Whose claim another one has taken over, which came to nothing; or which knows of it; or its own exit's."""

    async def body(w: World) -> None:
        await w.ams.claim_key(KEY, "acc_1", "op1", device=False)
        await w.lis.claim_key(KEY, "acc_1", "op2", device=False)
        await w.lis.release_key(KEY, "op2")
        assert await w.ams.settle_key(KEY, "acc_1", "op1", "ses_1", device=False)
        assert await w.lis.claim_key(KEY, "acc_1", "op3", device=False) == Whereabouts(AMS, "ses_1")
        assert await w.ams.settle_key(KEY, "acc_1", "op1", "ses_1", device=False)
        await w.lis.claim_key(KEY, "acc_1", "op4", device=False)
        assert await w.lis.settle_key(KEY, "acc_1", "op3", "ses_3", device=False)

    with_claims(body)


def test_names_are_one_devices() -> None:
    """In its account, on all exits. What is tried in vain on the exit that has it does not give it up."""

    async def body(w: World) -> None:
        await w.ams.claim_name("acc_1", "phöne", "op1")
        with pytest.raises(DeviceNameTaken):
            await w.lis.claim_name("acc_1", "phöne", "op2")
        await w.lis.claim_name("acc_2", "phöne", "op3")
        await w.lis.release_name("acc_1", "phöne", "op2")
        await w.ams.claim_name("acc_1", "phöne", "op4")
        await w.ams.release_name("acc_1", "phöne", "op4")
        with pytest.raises(DeviceNameTaken):
            await w.lis.claim_name("acc_1", "phöne", "op5")
        await w.ams.release_name("acc_1", "phöne")
        await w.lis.claim_name("acc_1", "phöne", "op6")

    with_claims(body)


@pytest.mark.parametrize("name", ["a", "phone of ada", "ä.*>", "x" * 64, "\U0001f600"])
def test_any_name_has_a_record(name: str) -> None:
    """Whose key NATS takes, and no other name's."""
    record = record_of_name("acc_1", name)
    assert record.replace(".", "").replace("_", "").isalnum()
    assert record.isascii()
    assert record != record_of_name("acc_1", name + "a")


def test_what_the_ledger_has_lost_is_claimed_again() -> None:
    """All keys and names, in bounded pieces; what another exit has claimed meanwhile stays its own."""

    async def body(w: World) -> None:
        w.live[AMS] = [OwnKey(bytes([1, n]) + bytes(30), "acc_1", f"ses_{n}", False) for n in range(250)]
        w.named[AMS] = [OwnName("acc_1", f"D\u00e9vice {n}") for n in range(30)]
        name = await w.ledger.name()
        w.keys.wipe()
        w.names.wipe()
        assert await w.ledger.name() != name
        await w.lis.claim_key(w.live[AMS][7].public_key, "acc_1", "op1", device=False)
        await w.lis.settle_key(w.live[AMS][7].public_key, "acc_1", "op1", "ses_l", device=False)
        asked = len(w.bus.sent)
        await w.ams.look()
        assert len(w.bus.sent) - asked == 3
        found = await w.lis.claim_key(w.live[AMS][9].public_key, "acc_1", "op2", device=False)
        assert found == Whereabouts(AMS, "ses_9")
        with pytest.raises(DeviceNameTaken):
            await w.lis.claim_name("acc_1", "D\u00e9vice 29", "op3")
        with pytest.raises(DeviceNameTaken):
            await w.lis.claim_name("acc_1", "De\u0301vice 29", "op3")
        found = await w.ams.claim_key(w.live[AMS][7].public_key, "acc_1", "op4", device=False)
        assert found == Whereabouts(LIS, "ses_l")

    own_claims.A_SECOND, before = 10**6, own_claims.A_SECOND
    try:
        with_claims(body)
    finally:
        own_claims.A_SECOND = before


def test_devices_that_another_exit_has_too_are_named(caplog: pytest.LogCaptureFixture) -> None:
    """Once, by account and name, each once, and no more of them than fit into a line."""

    async def body(w: World) -> None:
        names = [OwnName("acc_1", f"phone {n}", "ada") for n in range(150)]
        w.live[AMS] = [OwnKey(bytes([1, n]) + bytes(30), "acc_1", f"dev_{n}", True, names[n].shown) for n in range(150)]
        w.named[AMS] = names
        await w.lis.claim_name("acc_1", "phone 149", "op1")
        await w.lis.claim_key(w.live[AMS][149].public_key, "acc_1", "op3", device=True)
        for _ in range(2):
            w.ams.claim_again()
            await w.ams.look()
        assert w.ams.taken == (2, ("ada/phone 149",))
        for each in names:
            await w.lis.claim_name("acc_2", each.name, "op4")
        w.named[AMS] = [each._replace(account_id="acc_2") for each in names]
        w.ams.claim_again()
        await w.ams.look()
        assert w.ams.taken.number == 151
        assert len(w.ams.taken.shown) == MOST_SHOWN
        w.live[AMS], w.named[AMS] = [], []
        w.clock.advance(TAKEN_MS / 1000)
        await w.ams.look()
        assert w.ams.taken.number == 0

    own_claims.A_SECOND, before = 10**6, own_claims.A_SECOND
    try:
        with_claims(body)
    finally:
        own_claims.A_SECOND = before
    said = [each.getMessage() for each in caplog.records if "another exit has too" in each.getMessage()]
    assert said[0].endswith("too: 2 (ada/phone 149)")
    assert len(said) == 2
    assert said[1].endswith(", ...)")


def test_keys_of_what_has_ended_are_given_up() -> None:
    """A while later, so that what is being made keeps its claim."""

    async def body(w: World) -> None:
        await opened(w.ams, "op1", "ses_1")
        w.live[AMS] = [OwnKey(KEY, "acc_1", "ses_1", False)]
        w.clock.advance(100)
        await w.ams.look()
        w.live[AMS] = []
        w.bus.lose_requests(f"wga.led.{AMS}.release", 2)
        await w.ams.look()
        assert (await w.keys.get(key_name(FLEET_KEY, KEY))).value is not None
        await w.ams.look()
        assert (await w.keys.get(key_name(FLEET_KEY, KEY))).value is None
        await w.ams.claim_key(KEY, "acc_1", "op2", device=False)
        await w.ams.look()
        assert (await w.keys.get(key_name(FLEET_KEY, KEY))).value is not None

    with_claims(body)


def test_claims_lapse_unless_they_are_renewed() -> None:
    """So that an exit that is gone keeps nothing from others for ever; one that is there renews in time."""

    async def body(w: World) -> None:
        await opened(w.ams, "op1", "ses_1")
        await w.ams.claim_name("acc_1", "phone", "op1")
        w.live[AMS] = [OwnKey(KEY, "acc_1", "ses_1", False)]
        for _ in range(20):
            w.clock.advance(KEY_LAPSES_MS / 1000 / 4)
            await w.ams.look()
        with pytest.raises(InvalidRequest):
            await w.lis.claim_key(KEY, "acc_2", "op2", device=False)
        w.clock.advance(KEY_LAPSES_MS / 1000 + 1)
        await opened(w.lis, "op3", "ses_3", "acc_2")
        w.clock.advance((NAME_LAPSES_MS - KEY_LAPSES_MS * 7) / 1000)
        with pytest.raises(DeviceNameTaken):
            await w.lis.claim_name("acc_1", "phone", "op4")
        w.clock.advance(KEY_LAPSES_MS * 7 / 1000)
        await w.lis.claim_name("acc_1", "phone", "op4")

    with_claims(body)


def test_what_was_made_while_cut_off_is_claimed_afterwards() -> None:
    """The exit goes on alone; the claim that failed has everything claimed once it is back."""

    async def body(w: World) -> None:
        await w.ams.look()
        w.bus.cut(AMS)
        with pytest.raises(CutOff):
            await w.ams.claim_key(KEY, "acc_1", "op1", device=False)
        w.live[AMS] = [OwnKey(KEY, "acc_1", "ses_1", False)]
        await w.ams.look()
        w.bus.heal(AMS)
        await w.ams.look()
        assert await w.lis.claim_key(KEY, "acc_1", "op2", device=False) == Whereabouts(AMS, "ses_1")

    with_claims(body)


def test_one_lost_answer_is_not_noticed_and_two_are() -> None:
    """The request is made once more, under the same op."""

    async def body(w: World) -> None:
        w.bus.lose_answers(f"wga.led.{AMS}.claim", 1)
        assert await w.ams.claim_key(KEY, "acc_1", "op1", device=False) is None
        w.bus.lose_answers(f"wga.led.{AMS}.claim", 2)
        with pytest.raises(NotAnswered):
            await w.ams.claim_key(KEY, "acc_1", "op2", device=False)

    with_claims(body)


def test_whoever_asks_claims_for_itself() -> None:
    """The exit is the subject's; nobody gives up what another has."""

    async def body(w: World) -> None:
        await opened(w.ams, "op1", "ses_1")
        for op in ("", "op1"):
            await w.lis.release_key(KEY, op)
        assert await w.lis.claim_key(KEY, "acc_1", "op2", device=False) == Whereabouts(AMS, "ses_1")
        assert await w.ams.locate("ses_1") == AMS
        assert await w.ams.locate("ses_2") is None

    with_claims(body)


BAD = {
    "the record that names the others": {"type": "key", "key": "made", "account": "acc_1", "op": "o"},
    "every key": {"type": "release_key", "key": ">"},
    "part of a key": {"type": "release_key", "key": "a.*"},
    "an account that is a subject": {"type": "name", "account": "acc_1.>", "name": "phone", "op": "o"},
    "too much": {"type": "renew", "names": [{"account": "acc_1", "name": "n"}] * 201},
    "a long op": {"type": "key", "key": "0" * 64, "account": "acc_1", "op": "o" * 65},
}


@pytest.mark.parametrize("asked", BAD.values(), ids=BAD)
def test_what_would_touch_other_records_is_refused(asked: dict[str, object]) -> None:
    """Keys and accounts become parts of subjects, and the exit that asks may be stolen."""

    async def body(w: World) -> None:
        for operation in ("claim", "release"):
            answer = await w.bus.node(LIS).request(f"wga.led.{LIS}.{operation}", msgspec.json.encode(asked), 5)
            assert b'"type":"refused"' in answer
        assert not w.keys.known
        assert not w.names.known

    with_claims(body)


def test_races_have_one_winner_each() -> None:
    """Two exits, one key, two accounts, 30 % of the answers lost."""

    async def story() -> None:
        w = World()
        assert await races(w.ledger, w.bus.hub(), {AMS: w.bus.node(AMS), LIS: w.bus.node(LIS)}, 100) > 200

    asyncio.run(story())


def test_an_exit_that_claims_all_leaves_others_room(monkeypatch: pytest.MonkeyPatch) -> None:
    """One that was stolen could fill the hub's records: it claims so many at once, and some more in time."""
    monkeypatch.setattr(ledger_claims, "NEW_AT_ONCE", 5)

    async def body(w: World) -> None:
        for number in range(8):
            held = HeldKey(f"{number:064x}", "acc_1", "ses_1", device=False)
            renewal = msgspec.json.encode(Renew([held] if number % 2 else [], [HeldName("acc_1", f"{number}")]))
            await w.bus.node(AMS).request(f"wga.led.{AMS}.claim", renewal, 1)
        assert len(w.keys.known) + len(w.names.known) == 5
        assert await opened(w.lis, "op1", "ses_1") is None
        w.clock.advance(1)
        await opened(w.ams, "op2", "ses_2", "acc_1")
        await w.ams.claim_name("acc_1", "phone", "op3")
        assert (await w.names.get(record_of_name("acc_1", "phone"))).value is not None

    with_claims(body)


def test_what_a_lost_exit_held_is_free_at_once() -> None:
    """Its keys are whose they were before, or nobody's; its devices' names are told. Others keep what they have, and
    what is no member claims nothing more."""

    async def story(world: World) -> None:
        other = b"\x02" * 32
        await opened(world.lis, "op0", "ses_0")
        await opened(world.ams, "op1", "ses_1")  # of the same account: the other exit's session is to end
        await world.ams.claim_key(other, "acc_2", "op2", device=True)
        await world.ams.claim_name("acc_2", "Ä/b", "op2")
        await world.lis.claim_name("acc_2", "tablet", "op3")
        freed = await world.ledger.forget(AMS)
        assert (freed.keys, [*freed.names]) == (2, [("acc_2", "Ä/b")])
        assert (await world.ledger.forget(AMS)).keys == 0
        assert await world.lis.claim_key(other, "acc_3", "op4", device=False) is None
        assert await opened(world.lis, "op5", "ses_5") == Whereabouts(LIS, "ses_0")  # who had the key before
        await world.lis.claim_name("acc_2", "Ä/b", "op6")
        with pytest.raises(DeviceNameTaken):
            await world.ams.claim_name("acc_2", "tablet", "op7")
        world.members.discard(AMS)
        with pytest.raises(NotAnswered, match="not in the fleet"):
            await world.ams.claim_name("acc_2", "watch", "op8")

    with_claims(story)
