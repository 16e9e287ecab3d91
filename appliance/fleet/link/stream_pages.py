"""Reads what JetStream's streams hold, a page at a time and by sequence, over nats-py.

Each read makes a consumer of its own: one that lives on is silent for as long as 19 s after the server was killed.
"""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, NamedTuple

import nats.errors
from nats.js.api import ConsumerConfig, DeliverPolicy

if TYPE_CHECKING:
    import asyncio

    from nats.js import JetStreamContext

ANSWER_S = 5.0


class Streamed(NamedTuple):
    """Holds a message of a stream. `at_ms`: when the stream got it, by the hub's wall clock."""

    sequence: int
    subject: str
    data: bytes
    at_ms: int = 0


async def read_page(jetstream: JetStreamContext, stream: str, subjects: str, after: int, most: int) -> list[Streamed]:
    """Returns up to `most` messages with a higher sequence than `after`, in order. `subjects`: all of the stream's.

    Raises what nats-py raises.
    """
    if (await jetstream.stream_info(stream)).state.last_seq <= after:
        return []  # a consumer that begins beyond the end waits for ever
    start = ConsumerConfig(deliver_policy=DeliverPolicy.BY_START_SEQUENCE, opt_start_seq=after + 1)
    found = list[Streamed]()
    reading = await jetstream.subscribe(subjects, stream=stream, ordered_consumer=True, config=start)
    try:
        standing = await reading.consumer_info()
        delivered = 0 if standing.delivered is None else standing.delivered.consumer_seq
        if not standing.num_pending and not delivered:
            return []  # what came after was removed
        while len(found) < most:
            message = await reading.next_msg(timeout=ANSWER_S)
            of, at_ms = message.metadata, int(message.metadata.timestamp.timestamp() * 1000)
            found.append(Streamed(of.sequence.stream, message.subject, message.data, at_ms))
            if of.num_pending == 0:
                break
    finally:
        await _end(reading)
    return found


async def _end(reading: JetStreamContext.PushSubscription) -> None:
    """Ends a consumer, with the tasks that nats-py leaves behind where the connection is lost."""
    with suppress(nats.errors.Error):
        await reading.unsubscribe()
    for name in ("_hbtask", "_fctask"):
        task: asyncio.Task[None] | None = getattr(reading._sub._jsi, name, None)
        if task is not None:
            task.cancel()
