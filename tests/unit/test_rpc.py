"""Members ask each other, sealed: nobody in between can read, replay, reflect or redirect what they say."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import msgspec
import pytest
from nacl.public import PrivateKey

from appliance.domain.errors import CutOff, NoResponder, NotAnswered, RpcFailed
from appliance.fleet.rpc import rpc_messages
from appliance.fleet.rpc.rpc import AT_WORK, MOST_BYTES, OF_ONE_SENDER, Rpc
from appliance.fleet.rpc.rpc_messages import AHEAD_MS, FRESH_MS, Fresh, RpcCode, RpcMessage, decoded, encoded
from appliance.fleet.rpc.seal import OVERHEAD, NoSuchMember, NotSealed, Seals
from tests.support.fleet.bus import Bus
from tests.support.fleet.link_contract import AMS, FRA, Inbox, until
from tests.support.virtual_clock import VirtualClock

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

WAW = "nod_" + "b" * 24
SUBJECT = f"wga.rpc.{FRA}.{AMS}.echo"


class Members:
    """AMS, FRA and WAW on a bus, each with a clock of its own; FRA serves `echo`, and counts."""

    def __init__(self) -> None:
        self.bus = Bus()
        self.keys = {node: PrivateKey.generate() for node in (AMS, FRA, WAW)}
        self.public: dict[str, bytes] = {node: bytes(key.public_key) for node, key in self.keys.items()}
        self.clocks = {node: VirtualClock() for node in self.keys}
        self.links = {node: self.bus.node(node) for node in self.keys}
        self.rpc = {node: self.new(node) for node in self.keys}
        self.done: list[tuple[str, bytes]] = []

    def seals(self, node: str) -> Seals:
        return Seals(bytes(self.keys[node]), self.public.get)

    def new(self, node: str) -> Rpc:
        return Rpc(self.links[node], node, self.seals(node), self.clocks[node])

    async def echo(self, sender: str, payload: bytes) -> bytes:
        self.done.append((sender, payload))
        return payload

    async def start(self) -> None:
        for rpc in self.rpc.values():
            await rpc.start()
        self.rpc[FRA].register("echo", self.echo)

    async def call(self, payload: bytes = b"x", timeout_s: float = 10.0) -> bytes:
        return await self.rpc[AMS].call(FRA, "echo", payload, timeout_s)

    def last_sent(self, subject: str) -> bytes:
        return next(data for _, name, data in reversed(self.bus.sent) if name == subject)


def run(story: Callable[[Members], Awaitable[None]]) -> None:
    async def whole() -> None:
        members = Members()
        # The bus's arrivals are by the clock of whoever gets the message; in these tests all start alike.
        members.bus.clock = members.clocks[FRA]
        await members.start()
        async with asyncio.timeout(60):
            await story(members)
        assert members.bus.failures == []

    asyncio.run(whole())


def test_an_operation_is_asked_and_answered() -> None:
    """The handler knows who asks; nothing on the bus shows what was said; a member may ask itself, as doctor does."""

    async def story(members: Members) -> None:
        assert await members.call(b"the secret") == b"the secret"
        assert members.done == [(AMS, b"the secret")]
        assert all(b"secret" not in data for _, _, data in members.bus.sent)
        assert await members.rpc[FRA].call(FRA, "echo", b"own", 10) == b"own"

    run(story)


def test_a_refusal_is_raised_at_the_caller() -> None:
    """With its code and text; what a handler did not mean to say is not told."""

    async def story(members: Members) -> None:
        async def refuse(_sender: str, payload: bytes) -> bytes:
            if payload == b"bug":
                raise RuntimeError("a private detail")
            raise RpcFailed(RpcCode.UNAVAILABLE, "the exit is drained")

        members.rpc[FRA].register("refuse", refuse)
        with pytest.raises(RpcFailed, match="the exit is drained") as refused:
            await members.rpc[AMS].call(FRA, "refuse", b"", 10)
        assert refused.value.code is RpcCode.UNAVAILABLE
        with pytest.raises(RpcFailed) as failed:
            await members.rpc[AMS].call(FRA, "refuse", b"bug", 10)
        assert failed.value.code is RpcCode.FAILED
        assert "private" not in str(failed.value)
        with pytest.raises(RpcFailed) as unknown:
            await members.rpc[AMS].call(FRA, "not_yet", b"", 10)
        assert unknown.value.code is RpcCode.UNKNOWN_OPERATION

    run(story)


def test_a_code_of_a_later_version_is_a_failure() -> None:
    async def story(members: Members) -> None:
        async def refuse(_sender: str, _payload: bytes) -> bytes:
            raise RpcFailed("of_tomorrow", "text")

        members.rpc[FRA].register("refuse", refuse)
        with pytest.raises(RpcFailed, match="text") as refused:
            await members.rpc[AMS].call(FRA, "refuse", b"", 10)
        assert refused.value.code is RpcCode.FAILED

    run(story)


def test_what_is_too_large_is_refused() -> None:
    """On both ways, before the hub refuses it."""

    async def story(members: Members) -> None:
        async def much(_sender: str, _payload: bytes) -> bytes:
            return bytes(MOST_BYTES + 1)

        members.rpc[FRA].register("much", much)
        for operation, payload in (("echo", bytes(MOST_BYTES + 1)), ("much", b"")):
            with pytest.raises(RpcFailed) as refused:
                await members.rpc[AMS].call(FRA, operation, payload, 10)
            assert refused.value.code is RpcCode.TOO_LARGE
        assert len(await members.call(bytes(MOST_BYTES))) == MOST_BYTES
        assert max(len(data) for _, _, data in members.bus.sent) < 256 * 1024

    run(story)


def test_nobody_to_ask() -> None:
    """A host that is no member and one that is not connected: not asked. This host cut off: not asked either."""

    async def story(members: Members) -> None:
        with pytest.raises(NoResponder, match="no member"):
            await members.rpc[AMS].call("nod_" + "c" * 24, "echo", b"", 10)
        members.bus.cut(FRA)
        with pytest.raises(NoResponder):
            await members.call()
        members.bus.cut(AMS)
        with pytest.raises(CutOff):
            await members.call()
        assert members.done == []

    run(story)


def test_a_lost_answer_leaves_it_open_whether_it_was_done() -> None:
    async def story(members: Members) -> None:
        members.bus.lose_answers("wga.rpc.>")
        with pytest.raises(NotAnswered):
            await members.call(timeout_s=0.02)
        assert len(members.done) == 1

    run(story)


def test_a_replayed_request_is_done_once() -> None:
    """At once, after the asked process was started again, and after the ids were forgotten."""

    async def story(members: Members) -> None:
        await members.call()
        sealed = members.last_sent(SUBJECT)

        async def replay() -> None:
            await members.links[AMS].publish_raw(SUBJECT, sealed, f"_INBOX_{AMS}.x")
            await members.bus.idle()

        await replay()
        members.clocks[FRA].advance(2 * AHEAD_MS / 1000)
        members.bus.subscriptions = [each for each in members.bus.subscriptions if each.link is not members.links[FRA]]
        again = members.new(FRA)
        again.register("echo", members.echo)
        await again.start()
        await replay()
        members.clocks[FRA].advance(3 * FRESH_MS / 1000)
        await replay()
        assert len(members.done) == 1

    run(story)


def test_clocks_need_not_agree() -> None:
    """The first call after a start learns the other's clock, and is asked twice; the next ones are not."""

    async def story(members: Members) -> None:
        members.clocks[AMS].step(-7200)
        members.rpc[AMS] = members.new(AMS)
        assert await members.call() == b"x"
        asked = len([1 for _, name, _ in members.bus.sent if name == SUBJECT])
        assert await members.call() == b"x"
        members.clocks[AMS].step(86_400)
        assert await members.call() == b"x"
        assert (asked, len([1 for _, name, _ in members.bus.sent if name == SUBJECT])) == (2, 4)
        assert len(members.done) == 3

    run(story)


def test_a_message_stands_for_its_subject_only() -> None:
    """What AMS sealed is not served as of WAW, not for another operation, and not by another member."""

    async def story(members: Members) -> None:
        members.rpc[FRA].register("drop", members.echo)
        members.rpc[WAW].register("echo", members.echo)
        members.bus.lose_requests(SUBJECT)
        with pytest.raises(NotAnswered):
            await members.call(timeout_s=0.02)
        sealed, hub = members.last_sent(SUBJECT), members.bus.node(AMS)
        hub.unlimited = True
        for asked, sender, operation in ((FRA, WAW, "echo"), (FRA, AMS, "drop"), (WAW, AMS, "echo")):
            await hub.publish_raw(f"wga.rpc.{asked}.{sender}.{operation}", sealed, f"_INBOX_{sender}.x")
        await members.bus.idle()
        assert members.done == []
        await hub.publish_raw(SUBJECT, sealed, f"_INBOX_{AMS}.x")
        await members.bus.idle()
        assert len(members.done) == 1

    run(story)


def test_a_reflected_answer_is_no_request() -> None:
    """FRA's own answer, sent back to it as if AMS asked: the key of both directions is the same."""

    async def story(members: Members) -> None:
        answers = Inbox()
        await members.links[AMS].subscribe(f"_INBOX_{AMS}.>", answers.take)
        sealed = members.seals(AMS)
        now = members.clocks[FRA].wall_ms
        ask = sealed.seal(FRA, encoded(RpcMessage("ask", bytes(16), AMS, FRA, "echo", now, b"x", 1000)))
        await members.links[AMS].publish_raw(SUBJECT, ask, f"_INBOX_{AMS}.x")
        await until(lambda: bool(answers.messages), "it is answered")
        await members.links[AMS].publish_raw(SUBJECT, answers.data[0], f"_INBOX_{AMS}.y")
        await members.bus.idle()
        assert len(members.done) == 1

    run(story)


def test_an_answer_that_is_not_the_members_own_is_not_taken() -> None:
    """Not of another request, not sealed by another, not plain text."""

    async def story(members: Members) -> None:
        forged: list[bytes] = []

        async def forge(message: object) -> None:
            await message.answer(forged.pop())  # type: ignore[attr-defined]

        members.bus.subscriptions = [each for each in members.bus.subscriptions if each.link is not members.links[FRA]]
        await members.links[FRA].subscribe(f"wga.rpc.{FRA}.>", forge)
        old = RpcMessage("answer", bytes(16), FRA, AMS, "echo", 0, b"old")
        by_waw = members.seals(WAW).seal(AMS, encoded(old))
        for data in (members.seals(FRA).seal(AMS, encoded(old)), by_waw, b"plain", b""):
            forged.append(data)
            with pytest.raises(NotAnswered):
                await members.call()

    run(story)


def test_an_answer_goes_to_the_asker_only() -> None:
    """NATS lets a member name any subject for the answer: a request with such a one is not served."""

    async def story(members: Members) -> None:
        beats = Inbox()
        await members.links[WAW].subscribe("wga.hb.*", beats.take)
        await members.call()
        now = members.clocks[FRA].wall_ms
        for number, reply in enumerate((f"wga.hb.{WAW}", f"_INBOX_{WAW}.x", f"wga.rpc.{WAW}.{FRA}.echo", "")):
            text = encoded(RpcMessage("ask", bytes([number]) * 16, AMS, FRA, "echo", now, b"x", 1000))
            await members.links[AMS].publish_raw(SUBJECT, members.seals(AMS).seal(FRA, text), reply)
        await members.bus.idle()
        assert len(members.done) == 1
        assert beats.messages == []

    run(story)


def test_a_member_that_left_is_not_served() -> None:
    async def story(members: Members) -> None:
        del members.public[AMS]
        of_ams = Seals(bytes(members.keys[AMS]), {FRA: bytes(members.keys[FRA].public_key)}.get)
        rpc = Rpc(members.links[AMS], AMS, of_ams, members.clocks[AMS])
        with pytest.raises(NotAnswered, match="could not read"):
            await rpc.call(FRA, "echo", b"", 10)
        assert members.done == []

    run(story)


def test_one_sender_cannot_take_all_turns() -> None:
    """Beyond its share it is told that the exit is busy; others are served meanwhile."""

    async def story(members: Members) -> None:
        go = asyncio.Event()

        async def wait(_sender: str, _payload: bytes) -> bytes:
            await go.wait()
            return b""

        members.rpc[FRA].register("wait", wait)
        asking = [asyncio.create_task(members.rpc[AMS].call(FRA, "wait", b"", 30)) for _ in range(OF_ONE_SENDER)]
        await asyncio.sleep(0)
        with pytest.raises(RpcFailed) as busy:
            await members.call()
        assert busy.value.code is RpcCode.BUSY
        assert await members.rpc[WAW].call(FRA, "echo", b"", 10) == b""
        go.set()
        await asyncio.gather(*asking)
        assert await members.call() == b"x"

    assert OF_ONE_SENDER < AT_WORK
    run(story)


def test_a_request_is_not_begun_when_its_asker_has_given_up() -> None:
    """What waited for its turn longer than the asker does is dropped."""

    async def story(members: Members) -> None:
        members.bus.clock = VirtualClock(boot_ms=members.clocks[FRA].boot_ms - 2000)  # it came two seconds ago
        with pytest.raises(NotAnswered):
            await members.call(timeout_s=0.05)
        assert members.done == []

    run(story)


def test_an_operation_is_registered_once() -> None:
    members = asyncio.run(_members())
    with pytest.raises(ValueError, match="echo"):
        members.rpc[FRA].register("echo", members.echo)
    with pytest.raises(ValueError, match=r"no\.word"):
        members.rpc[FRA].register("no.word", members.echo)


async def _members() -> Members:
    members = Members()
    await members.start()
    return members


def test_seals() -> None:
    """Only the other one of two members opens what one has sealed; 40 bytes are added."""
    members = asyncio.run(_members())
    sealed = members.seals(AMS).seal(FRA, b"text")
    assert members.seals(FRA).open(AMS, sealed) == b"text"
    assert len(sealed) == len(b"text") + OVERHEAD
    for member, data in ((WAW, sealed), (AMS, sealed[:-1]), (AMS, b""), (AMS, b"x" * 100)):
        with pytest.raises(NotSealed):
            members.seals(FRA).open(member, data)
    with pytest.raises(NoSuchMember):
        members.seals(FRA).open("nod_" + "c" * 24, sealed)
    members.public[AMS] = bytes(5)
    with pytest.raises(NoSuchMember):
        members.seals(FRA).open(AMS, sealed)


def test_what_is_no_message_is_none() -> None:
    assert decoded(b"") is None
    assert decoded(b"\x00\xff") is None
    message = RpcMessage("ask", bytes(16), "a", "b", "c", 0, b"")
    assert decoded(encoded(message)) is not None
    assert decoded(encoded(message).replace(b"ask", b"\xff\xff\xff")) is None
    assert decoded(encoded(msgspec.structs.replace(message, operation="odd")).replace(b"odd", b"\xff\xff\xff")) is None
    assert decoded(encoded(msgspec.structs.replace(message, at_ms=2**64 - 1))) is None
    assert decoded(b"\x91" * 100_000) is None


def test_ids_are_remembered_as_long_as_they_are_fresh() -> None:
    """A request from the future by as much as is allowed is refused as long as it would be fresh."""
    fresh = Fresh(started_ms=0)
    ahead = RpcMessage("ask", bytes(16), "a", "b", "c", 100_000 + AHEAD_MS, b"")
    assert fresh.refusal(ahead, 100_000) is None
    for now in range(100_000, 100_000 + 5 * FRESH_MS, 500):
        assert fresh.refusal(ahead, now) in (RpcCode.REFUSED, RpcCode.STALE)
    assert not any(fresh._seen.values())


def test_what_one_member_asks_is_remembered_for_itself_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """One that asks all the time, or by large ids, neither has others' requests refused nor fills the memory."""
    monkeypatch.setattr(rpc_messages, "MOST_SEEN", 100)
    fresh = Fresh(started_ms=0)
    thief, other = (RpcMessage("ask", bytes(16), node, "b", "c", 100_000, b"") for node in (AMS, WAW))
    asked = [msgspec.structs.replace(thief, id=number.to_bytes(16)) for number in range(101)]
    assert [fresh.refusal(each, 100_000) for each in asked] == [None] * 100 + [RpcCode.BUSY]
    assert fresh.refusal(other, 100_000) is None
    assert decoded(encoded(msgspec.structs.replace(thief, id=bytes(17)))) is None
