"""Keeps claims in a bucket of JetStream's, as its key-value stores are laid out."""

from __future__ import annotations

import secrets
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import nats.errors
import nats.js.errors

from appliance.domain.errors import CutOff, NoResponder, NotAnswered
from appliance.fleet.claims.records import KeptRecord, Versioned
from appliance.fleet.hub.config import CLAIMS_MB
from appliance.fleet.link.stream_pages import read_page

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from nats.js import JetStreamContext
    from nats.js.api import RawStreamMsg

ANSWER_S = 2.0
MOST_BYTES = CLAIMS_MB * 1024 * 1024 // 2  # there are two buckets
NAME = "made"  # the record that names the bucket: no claim has such a key
# https://github.com/nats-io/nats-server/blob/main/server/errors.json
NO_STREAM = 10059
NO_PEERS = 10005
# Servers in a cluster say the second, without the number, while another change of the record is under way.
OTHER_SEQUENCE = {10071, 10164}
EXPECTED = "Nats-Expected-Last-Subject-Sequence"
OPERATION = "KV-Operation"


class KvRecords:
    """Is one bucket; it is made where it is not there. `jetstream`: of the present connection; raises CutOff.

    `kept`: for how long a record that nobody changes, None: for ever; claims lapse before. What an exit could claim
    that is in the wrong hands would fill the hub's disk else. `copies`: on how many servers it is made, all of which
    have to be there at that moment. Without a majority of them each method raises NotAnswered or NoResponder, and what
    was read a few seconds before may have been changed since.
    """

    def __init__(
        self,
        jetstream: Callable[[], JetStreamContext],
        bucket: str,
        kept: timedelta | None = timedelta(days=8),
        copies: int = 1,
        most_bytes: int = MOST_BYTES,
    ) -> None:
        self._jetstream = jetstream
        self._bucket = bucket
        self._kept = kept
        self._copies = copies
        self._most_bytes = most_bytes
        self._stream = f"KV_{bucket}"

    async def get(self, key: str) -> Versioned:
        with _in_our_words():
            found = await self._last(key)
        if found is None:
            return Versioned(None, 0)
        deleted = (found.headers or {}).get(OPERATION) in ("DEL", "PURGE")
        return Versioned(None if deleted else found.data or b"", found.seq or 0)

    async def _last(self, key: str) -> RawStreamMsg | None:
        jetstream = self._jetstream()
        try:
            return await jetstream.get_last_msg(self._stream, self._subject(key))
        except nats.js.errors.NotFoundError as error:
            if error.err_code == NO_STREAM:
                await self._make(jetstream)
            return None

    async def _make(self, jetstream: JetStreamContext) -> None:
        try:
            await jetstream.create_key_value(
                bucket=self._bucket,
                history=1,
                ttl=None if self._kept is None else self._kept.total_seconds(),
                max_bytes=self._most_bytes,
                replicas=self._copies,
            )
        except nats.js.errors.APIError as error:
            if error.err_code == NO_PEERS:
                raise NotAnswered(f"JetStream: fewer than {self._copies} nats-servers of hubs are there") from error
            raise

    async def put(self, key: str, value: bytes, revision: int) -> bool:
        return await self.change(key, value, revision) is not None

    async def change(self, key: str, value: bytes, revision: int) -> int | None:
        """Does as `put`, and returns the record's new revision; None: it was of another one. Raises FleetError."""
        return await self._publish(key, value, {EXPECTED: str(revision)})

    async def delete(self, key: str, revision: int) -> bool:
        sequence = await self._publish(key, b"", {EXPECTED: str(revision), OPERATION: "DEL"})
        if sequence is None:
            return False
        # What says that it is deleted would stay for ever. Nothing later is purged: it is another's.
        with _in_our_words():
            await self._jetstream().purge_stream(self._stream, seq=sequence + 1, subject=self._subject(key))
        return True

    async def page(self, after: int, most: int) -> list[KeptRecord]:
        while True:
            with _in_our_words():
                found = await read_page(self._jetstream(), self._stream, self._subject(">"), after, most)
            kept = [KeptRecord(self._key(m.subject), m.data, m.sequence) for m in found if m.data]
            # Of what was deleted there may be an empty message for a moment; the bucket's name is no record.
            if (kept := [each for each in kept if each.key != NAME]) or not found:
                return kept
            after = found[-1].sequence

    async def under(self, prefix: str) -> list[KeptRecord]:
        with _in_our_words():
            info = await self._jetstream().stream_info(self._stream, subjects_filter=self._subject(f"{prefix}*"))
        keys = [self._key(subject) for subject in info.state.subjects or ()]
        found = [(key, await self.get(key)) for key in sorted(keys)]
        return [KeptRecord(key, each.value, each.revision) for key, each in found if each.value is not None]

    def _key(self, subject: str) -> str:
        return subject.removeprefix(self._subject(""))

    async def bound(self) -> None:
        """Gives a bucket its bound that an earlier version has made without one, and makes it where there is none.

        Raises FleetError.
        """
        await self.name()
        with _in_our_words():
            config = (await self._jetstream().stream_info(self._stream)).config
            if config.max_bytes != MOST_BYTES:
                await self._jetstream().update_stream(config, max_bytes=MOST_BYTES)

    async def name(self) -> str:
        while True:
            with _in_our_words():
                found = await self._last(NAME)
            if found is None:
                await self.put(NAME, secrets.token_hex(8).encode(), 0)
                continue
            name = found.data or b""
            if self._kept is not None and found.time is not None and datetime.now(UTC) - found.time > self._kept / 4:
                await self.put(NAME, name, found.seq or 0)  # or it would not be kept
            return name.decode()

    async def _publish(self, key: str, value: bytes, headers: dict[str, str]) -> int | None:
        """Returns the sequence number of the change; None: the record is of another revision."""
        with _in_our_words():
            try:
                ack = await self._jetstream().publish(
                    self._subject(key), value, timeout=ANSWER_S, stream=self._stream, headers=headers
                )
            except nats.js.errors.BadRequestError as error:
                if error.err_code in OTHER_SEQUENCE:
                    return None
                raise
            return ack.seq

    def _subject(self, key: str) -> str:
        return f"$KV.{self._bucket}.{key}"


@contextmanager
def _in_our_words() -> Iterator[None]:
    """Raises FleetError for what nats-py raises."""
    try:
        yield
    except (nats.errors.NoRespondersError, nats.js.errors.NoStreamResponseError) as error:
        raise NoResponder(f"there is no bucket for claims: {error}") from error
    except (nats.errors.ConnectionClosedError, nats.errors.OutboundBufferLimitError) as error:
        raise CutOff(str(error)) from error
    except (nats.errors.Error, TimeoutError) as error:
        raise NotAnswered(f"JetStream: {error}") from error
