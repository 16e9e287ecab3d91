"""What a spoke may do at the hub, and what it may not, whatever reply subject it names: with a stolen spoke's key.

NATS does not check the reply subject of a message against its sender's rights, so an answer can be made to go anywhere
in the account of the asker. Streams and buckets are in another one.
"""

from __future__ import annotations

import asyncio
import secrets
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import pytest
from nacl.public import PrivateKey
from nats.js.api import ConsumerConfig, DeliverPolicy, DiscardPolicy, StreamConfig

from appliance.domain.clock import HostClock
from appliance.domain.errors import NotPermitted
from appliance.fleet.hub import config as hub_config
from appliance.fleet.hub.config import member_rights
from appliance.fleet.link.hub_connection import HubConnection
from appliance.fleet.link.link import NatsLink
from appliance.fleet.rpc.rpc import Rpc
from appliance.fleet.rpc.rpc_messages import RpcMessage, encoded
from appliance.fleet.rpc.seal import Seals
from tests.support.fleet.bus import covers, matches
from tests.support.fleet.hub_process import SECONDS, HubProcess
from tests.support.fleet.link_contract import AMS, FRA, Inbox, echo, until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable
    from pathlib import Path

    from nats.js.kv import KeyValue

    from appliance.fleet.link.nats_client import LinkUser

AMS_RECORD, FRA_RECORD = f"wga.state.{AMS}.s.1.1", f"wga.state.{FRA}.s.1.1"

MAY_PUBLISH = (
    f"wga.hb.{AMS}",
    f"wga.state.{AMS}.s.1.1",
    f"wga.state.{AMS}.mark",
    f"wga.led.{AMS}.sync",
    f"wga.rpc.{FRA}.{AMS}.open",
    f"wga.rpc.{AMS}.{AMS}.status",  # doctor's probe
)
MAY_NOT_PUBLISH = (
    f"wga.hb.{FRA}",
    FRA_RECORD,
    f"wga.led.{FRA}.sync",
    f"wga.rpc.{AMS}.{FRA}.open",
    f"wga.rpc.{FRA}.{FRA}.open",
    f"_INBOX_{FRA}.x",
    "_INBOX_hub.x",
    "wga.join.x",
    "wga.hubs.x",
    "$KV.keys.x",
    "$JS.API.INFO",
    "$JS.API.STREAM.INFO.KV_keys",
    "$JS.API.STREAM.PURGE.STATE",
    "$JS.API.STREAM.MSG.GET.KV_keys",
    "$JS.API.CONSUMER.CREATE.KV_keys",
    "$JS.ACK.x",
    "$SYS.REQ.SERVER.PING",
    "$SYS.REQ.USER.INFO",
    "_R_.x",
)
MAY_SUBSCRIBE = (f"_INBOX_{AMS}.>", "wga.hb.*", f"wga.hb.{FRA}", f"wga.rpc.{AMS}.>")
MAY_NOT_SUBSCRIBE = (
    ">",
    "wga.>",
    "*.>",
    "_INBOX.>",
    f"_INBOX_{FRA}.>",
    "_INBOX_hub.>",
    f"wga.rpc.{FRA}.>",
    "wga.rpc.>",
    "wga.rpc.*.*.open",
    f"wga.state.{AMS}.>",
    f"wga.led.{AMS}.>",
    "wga.join.>",
    "$KV.>",
    "$JS.>",
    "$SYS.>",
    "_R_.>",
)


class Stolen:
    """The thief has AMS's keys. FRA serves `close` by rpc; the hub's ledger answers whatever it is asked."""

    def __init__(
        self, hub: HubProcess, thief: HubConnection, fra: NatsLink, ledger: NatsLink, bucket: KeyValue
    ) -> None:
        self.hub, self.thief, self.fra, self.ledger, self.bucket = hub, thief, fra, ledger, bucket
        self.stream = ledger.jetstream()
        self.xkeys = {node: PrivateKey.generate() for node in (AMS, FRA)}
        self.served: list[bytes] = []
        self.rpc = Rpc(fra, FRA, self.seals(FRA), HostClock())
        self.rpc.register("close", self._serve)

    async def _serve(self, _sender: str, payload: bytes) -> bytes:
        self.served.append(payload)
        return payload

    def seals(self, node: str) -> Seals:
        return Seals(bytes(self.xkeys[node]), lambda member: bytes(self.xkeys[member].public_key))

    def sealed(self, payload: bytes) -> bytes:
        """Returns a request that is right in all but where its answer is to go."""
        now = HostClock().now().wall_ms
        message = RpcMessage("ask", secrets.token_bytes(16), AMS, FRA, "close", now, payload, wait_ms=60_000)
        return self.seals(AMS).seal(FRA, encoded(message))

    async def send(self, subject: str, data: bytes, reply: str) -> None:
        await self.thief.client.publish(subject, data, reply=reply)

    async def settle(self) -> None:
        """Lets what was sent take effect: until an answer has come by each of the ways, and out of each stream."""
        for _ in range(3):
            await self.thief.settle()
            await self.thief.ask(f"wga.state.{AMS}.mark", b"", SECONDS)
            await self.thief.ask(f"wga.led.{AMS}.sync", b"", SECONDS)
            await self.thief.ask(f"wga.rpc.{FRA}.{AMS}.close", b"not sealed", SECONDS)
            await self.fra.keep(f"wga.state.{FRA}.mark", b"", SECONDS)
            await self.bucket.put("settled", b"")
            await self.stream.purge_stream("KV_keys", subject="$KV.keys.none")

    async def kept(self) -> dict[str, object]:
        """All that streams and buckets hold, but for AMS's own records and the marks of `settle`."""
        streams = sorted(each.config.name for each in await self.stream.streams_info())
        record = await self.stream.get_last_msg("STATE", FRA_RECORD)
        entry = await self.bucket.get("key")
        keys = sorted({*await self.bucket.keys()} - {"settled"})
        return {"streams": streams, "record": record.data, "key": entry.value, "keys": keys}


async def _link(hub: HubProcess, user: LinkUser) -> NatsLink:
    link = NatsLink(lambda: (hub.at(),), user, HostClock())
    link.start()
    await link.wait_connected(SECONDS)
    return link


@asynccontextmanager
async def stolen_spoke(folder: Path) -> AsyncIterator[Stolen]:
    with HubProcess(folder, AMS, FRA) as hub:
        fra, ledger = await _link(hub, hub.user(FRA)), await _link(hub, hub.hub_user())
        stream = ledger.jetstream()
        await stream.add_stream(
            StreamConfig(
                name="STATE",
                subjects=["wga.state.>"],
                max_bytes=1_000_000,
                max_msgs_per_subject=1,
                discard=DiscardPolicy.NEW,
            )
        )
        bucket = await stream.create_key_value(bucket="keys", history=1)
        await bucket.put("key", b"claim")
        await fra.keep(FRA_RECORD, b"record", SECONDS)
        await ledger.subscribe(f"wga.led.{AMS}.>", echo, queue="ledger")
        thief = await HubConnection.dial(hub.user(AMS), hub.at(), HostClock())
        it = Stolen(hub, thief, fra, ledger, bucket)
        await it.rpc.start()
        try:
            yield it
        finally:
            await thief.close()
            await fra.close()
            await ledger.close()


def run(folder: Path, body: Callable[[Stolen], Awaitable[None]]) -> None:
    async def whole() -> None:
        async with asyncio.timeout(100), stolen_spoke(folder) as it:
            await body(it)

    asyncio.run(whole())


async def nothing(_message: object) -> None: ...


def test_each_right(tmp_path: Path) -> None:
    """What is allowed is let through, what is not is refused; an error does not end the connection."""

    async def body(it: Stolen) -> None:
        for subject in MAY_PUBLISH + MAY_NOT_PUBLISH:
            await it.thief.publish(subject, b"x")
        for subject in MAY_SUBSCRIBE + MAY_NOT_SUBSCRIBE:
            await it.thief.subscribe(subject, "", nothing)
            await it.thief.subscribe(subject, "ledger", nothing)
        await it.thief.settle()
        refused = [subject for subject in MAY_PUBLISH + MAY_NOT_PUBLISH if it.thief.refused("publish", subject)]
        assert refused == list(MAY_NOT_PUBLISH)
        asked = MAY_SUBSCRIBE + MAY_NOT_SUBSCRIBE
        assert [each for each in asked if it.thief.refused("subscription", each)] == list(MAY_NOT_SUBSCRIBE)
        assert not it.thief.lost.is_set()

    run(tmp_path, body)


def test_every_right_is_tried() -> None:
    """Whatever the hub's configuration lets a spoke do is among what is tried above, and nothing that is refused."""
    rights = member_rights(AMS)
    for right in rights.publish:
        assert any(matches(right, each) for each in MAY_PUBLISH)
        assert not any(matches(right, each) for each in MAY_NOT_PUBLISH)
    for right in rights.subscribe:
        assert any(covers(right, each) for each in MAY_SUBSCRIBE)
        assert not any(covers(right, each) for each in MAY_NOT_SUBSCRIBE)
    others = member_rights(FRA)
    assert {right for right in others.publish if any(matches(right, each) for each in MAY_NOT_PUBLISH)} == {
        *others.publish
    }
    assert set(others.subscribe) - set(MAY_NOT_SUBSCRIBE) == {"wga.hb.*"}


def test_an_answer_that_comes_late_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A spoke may answer within the time that the configuration has: a second here."""
    monkeypatch.setattr(hub_config, "ANSWER_WITHIN_S", 1)

    async def body(it: Stolen) -> None:
        replies: list[str] = []

        async def take(message: object) -> None:
            replies.append(message.reply)  # type: ignore[attr-defined]

        await it.thief.subscribe(f"wga.rpc.{AMS}.>", "", take)
        await it.thief.settle()
        asking = asyncio.create_task(it.fra.request(f"wga.rpc.{AMS}.{FRA}.open", b"", SECONDS))
        await until(lambda: bool(replies), "it is asked")
        await asyncio.sleep(1.1)
        await it.thief.publish(replies[0], b"late")
        await it.thief.settle()
        assert it.thief.refused("publish", replies[0])
        asking.cancel()

    run(tmp_path, body)


def test_answers_are_bounded(tmp_path: Path) -> None:
    """A spoke may answer what it was asked, once, and nobody else."""

    async def body(it: Stolen) -> None:
        replies: list[str] = []

        async def take(message: object) -> None:
            replies.append(message.reply)  # type: ignore[attr-defined]

        await it.thief.subscribe(f"wga.rpc.{AMS}.>", "", take)
        await it.thief.settle()
        asking = asyncio.create_task(it.fra.request(f"wga.rpc.{AMS}.{FRA}.open", b"", SECONDS))
        await until(lambda: bool(replies), "it is asked")
        await it.thief.publish(replies[0], b"first")
        assert await asking == b"first"
        await it.thief.publish(replies[0], b"second")
        await it.thief.settle()
        assert it.thief.refused("publish", replies[0])

    run(tmp_path, body)


REPLIES = (
    "$KV.keys.key",
    "$KV.keys.new",
    FRA_RECORD,
    "$JS.API.STREAM.PURGE.STATE",
    "$JS.API.STREAM.DELETE.STATE",
    "$JS.API.STREAM.PURGE.KV_keys",
    "$JS.API.STREAM.DELETE.KV_keys",
    f"wga.led.{FRA}.sync",
)


def test_no_answer_can_be_sent_into_what_is_kept(tmp_path: Path) -> None:
    """Every subject that answers, with every reply that would do harm: no record, key or stream is another.

    The answers are such as would work: empty for the API of streams, which takes nothing else.
    """

    async def body(it: Stolen) -> None:
        before = await it.kept()
        asked_of_fra = Inbox()
        await it.ledger.subscribe(f"wga.led.{FRA}.>", asked_of_fra.take)
        for reply in REPLIES:
            for data in (b"", b'{"a":1}'):
                await it.send(AMS_RECORD, data, reply)
                await it.send(f"wga.led.{AMS}.sync", data, reply)
                await it.send(f"wga.rpc.{FRA}.{AMS}.close", it.sealed(data), reply)
        await it.settle()
        assert await it.kept() == before
        assert before["keys"] == ["key"]
        assert asked_of_fra.messages == [], "nor does one reach the ledger as of another"
        assert it.served == []

    run(tmp_path, body)


def test_an_exit_that_answered_anywhere_would_write_by_its_own_rights(tmp_path: Path) -> None:
    """Why Rpc looks where an answer is to go: the hub lets a responder answer there, and its own record is gone."""

    async def body(it: Stolen) -> None:
        await it.fra.subscribe(f"wga.rpc.{FRA}.{AMS}.careless", echo)
        await it.send(f"wga.rpc.{FRA}.{AMS}.careless", b"x", FRA_RECORD)
        async with asyncio.timeout(SECONDS):
            while (await it.kept())["record"] != b"to x":  # noqa: ASYNC110 (of another process)
                await asyncio.sleep(0.01)

    run(tmp_path, body)


def test_no_consumer_can_be_made(tmp_path: Path) -> None:
    """Reading a stream or bucket needs rights that no spoke has; in its own account there is no JetStream at all."""

    async def body(it: Stolen) -> None:
        for request in ("STREAM.NAMES", "CONSUMER.CREATE.KV_keys", "STREAM.MSG.GET.KV_keys", "DIRECT.GET.KV_keys"):
            with pytest.raises(NotPermitted):
                await it.thief.ask(f"$JS.API.{request}", b"", SECONDS)
        info = await it.stream.account_info()
        assert info.consumers == 0

    run(tmp_path, body)


def test_what_reaches_another_spoke_is_not_taken_for_its_own(tmp_path: Path) -> None:
    """An answer sent to where FRA is asked, or where it awaits one: not served, not taken; real ones go on."""

    async def body(it: Stolen) -> None:
        for reply in (f"wga.rpc.{FRA}.{FRA}.close", f"wga.rpc.{FRA}.{AMS}.close", f"_INBOX_{FRA}.x.y"):
            await it.send(f"wga.led.{AMS}.sync", b"x", reply)
            await it.send(f"wga.rpc.{FRA}.{AMS}.close", it.sealed(b"x"), reply)
        await it.settle()
        assert it.served == []
        assert await it.rpc.call(FRA, "close", b"own", SECONDS) == b"own"
        assert it.served == [b"own"]
        asked = f"wga.rpc.{FRA}.{AMS}.close"
        assert await it.thief.ask(asked, it.sealed(b"well"), SECONDS) != b""
        assert it.served == [b"own", b"well"]

    run(tmp_path, body)


TO_FRA = f"wga.rpc.{FRA}.{AMS}.".encode()
BEAT = f"wga.hb.{AMS}".encode()
HOSTILE = {
    "0xFF in the subject": (TO_FRA + b"\xff", None, None),
    "a vertical tab": (TO_FRA + b"a\x0bb", None, None),
    "another subscription's number": (TO_FRA + b"a\x0b2", None, None),
    "a null": (TO_FRA + b"\x00", None, None),
    "an escape sequence": (TO_FRA + b"\x1b[31m", None, None),
    "a wildcard": (TO_FRA + b">", None, None),
    "0xFF in the reply": (TO_FRA + b"a", b"_INBOX.\xff", None),
    "a reply that would grow": (TO_FRA + b"a", f"_INBOX_{AMS}.".encode() + b"\xff" * 2000, None),
    "a form feed in the reply": (TO_FRA + b"a", b"x\x0cy", None),
    "no headers": (BEAT, None, b""),
    "headers without an end": (BEAT, None, b"NATS/1.0"),
    "a status of 0xFF": (BEAT, None, b"NATS/1.0 \xff\xff\xff\r\n\r\n"),
    "a description of 0xFF": (BEAT, None, b"NATS/1.0 100 \xff\r\n\r\n"),
    "headers that are none": (BEAT, None, b"\xff\xfe"),
    "the status of nobody there": (BEAT, None, b"NATS/1.0 503\r\n\r\n"),
}


def _published(subject: bytes, reply: bytes | None, headers: bytes | None) -> bytes:
    fields = [b"PUB" if headers is None else b"HPUB", subject]
    fields += [reply] if reply is not None else []
    fields += [b"%d" % len(headers)] if headers is not None else []
    fields += [b"%d" % len((headers or b"") + b"x")]
    return b" ".join(fields) + b"\r\n" + (headers or b"") + b"x\r\n"


def test_no_bytes_end_anothers_connection(tmp_path: Path) -> None:
    """The hub passes subjects, reply subjects and headers on as they are; nats-py's reader dies of most of these."""

    async def body(it: Stolen) -> None:
        beats, states = Inbox(), it.fra.state
        await it.fra.subscribe("wga.hb.*", beats.take)
        for name, parts in HOSTILE.items():
            it.thief.client._cutting.write(_published(*parts))
            await it.thief.settle()
            assert not it.thief.lost.is_set(), name
            assert await it.rpc.call(FRA, "close", name.encode(), SECONDS) == name.encode()
        assert it.fra.state is states
        assert {message.subject for message in beats.messages} == {BEAT.decode()}
        assert len(beats.messages) == sum(subject == BEAT for subject, _, _ in HOSTILE.values())

    run(tmp_path, body)


CONTROL = "Nats-Consumer-Stalled: $JS.API.STREAM.DELETE.KV_keys\r\n\r\n"


@pytest.mark.parametrize(
    "headers",
    [
        f"NATS/1.0\r\nStatus: 100\r\nDescription: Idle Heartbeat\r\n{CONTROL}",
        f"NATS/1.0 100 Idle Heartbeat\r\n{CONTROL}",
    ],
    ids=["headers", "status"],
)
def test_no_headers_that_are_kept_make_the_hub_send(tmp_path: Path, headers: str) -> None:
    """Of the first kind nats-py takes a record for the server's own words, and deletes the bucket by the hub's rights.

    The record is read as one, so it does not hold up those behind it.
    """

    async def body(it: Stolen) -> None:
        record = headers.encode()
        line = f"HPUB {AMS_RECORD} {len(record)} {len(record)}\r\n"
        it.thief.client._cutting.write(line.encode() + record + b"\r\n")
        await it.settle()
        before = await it.kept()
        start = ConsumerConfig(deliver_policy=DeliverPolicy.BY_START_SEQUENCE, opt_start_seq=1)
        reading = await it.stream.subscribe("wga.state.>", stream="STATE", ordered_consumer=True, config=start)
        read = []
        while not read or read[-1].metadata.num_pending:
            read.append(await reading.next_msg(timeout=SECONDS))
        await it.settle()
        assert AMS_RECORD in [message.subject for message in read]
        assert await it.kept() == before

    run(tmp_path, body)


def test_an_answer_that_looks_like_a_beat_arrives(tmp_path: Path) -> None:
    """This is what the hub cannot prevent: beats have to be read as such, and an answer is none."""

    async def body(it: Stolen) -> None:
        beats = Inbox()
        await it.fra.subscribe("wga.hb.*", beats.take)
        await it.send(f"wga.led.{AMS}.sync", b"x", f"wga.hb.{FRA}")
        await until(lambda: bool(beats.messages), "it arrives")
        assert beats.data == [b"to x"]

    run(tmp_path, body)
