"""Makes, reads and removes the hub's streams of reports over nats-py."""

from __future__ import annotations

from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING

import nats.errors
import nats.js.errors
from nats.js.api import DiscardPolicy, StorageType, StreamConfig

from appliance.domain.errors import CutOff, FleetError, NoResponder, NotAnswered, StreamFull
from appliance.fleet.hub.config import STREAM_MB
from appliance.fleet.link.link import FULL
from appliance.fleet.link.stream_pages import read_page
from appliance.fleet.reports.reports import STATE

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterable

    from nats.js import JetStreamContext
    from nats.js.api import StreamInfo

    from appliance.fleet.link.stream_pages import Streamed

MAX_BYTES = STREAM_MB * 1024 * 1024
NAMES = "STATE_"


def stream_of(node: str) -> str:
    return f"{NAMES}{node}"


class NatsStreams:
    """Is the `Streams` of a hub. `jetstream` returns nats-py's own of the present connection, or raises CutOff.

    `copies`: on how many servers a stream is made.
    """

    def __init__(self, jetstream: Callable[[], JetStreamContext], copies: int = 1) -> None:
        self._jetstream = jetstream
        self._copies = copies

    async def make(self, node: str) -> None:
        """Makes the node's stream, unless it is there. Raises FleetError."""
        config = StreamConfig(
            name=stream_of(node),
            subjects=[f"{STATE}.{node}.>"],
            max_msgs_per_subject=1,
            max_bytes=MAX_BYTES,
            discard=DiscardPolicy.NEW,
            storage=StorageType.FILE,
            num_replicas=self._copies,
        )
        async with _fleet_errors():
            await self._jetstream().add_stream(config)

    async def last_sequence(self, node: str) -> int:
        """Returns the sequence of the last message that the stream got. Raises FleetError; NoResponder: it is gone."""
        return (await self._info(node)).state.last_seq

    async def read(self, node: str, after: int, most: int) -> list[Streamed]:
        """Returns up to `most` messages with a higher sequence than `after`, in order. Raises FleetError."""
        async with _fleet_errors():
            return await read_page(self._jetstream(), stream_of(node), f"{STATE}.{node}.>", after, most)

    async def fullness(self, node: str) -> float:
        """Returns how full the stream is, from 0 to 1. Raises FleetError."""
        info = await self._info(node)
        return info.state.bytes / (info.config.max_bytes or MAX_BYTES)

    async def drop(self, node: str, sequences: Iterable[int]) -> None:
        """Removes messages; one that is gone already is no error. Raises FleetError."""
        async with _fleet_errors():
            for sequence in sequences:
                with suppress(nats.js.errors.BadRequestError, nats.js.errors.ServerError):
                    await self._jetstream().delete_msg(stream_of(node), sequence)

    async def nodes(self) -> list[str]:
        """Returns whose streams there are. Raises FleetError."""
        found = list[str]()
        async with _fleet_errors():
            # The server tells as many at once as it likes; https://docs.nats.io/reference/reference-protocols/nats_api_reference
            while page := await self._jetstream().streams_info(offset=len(found)):
                found += [each.config.name or "" for each in page]
        return [name.removeprefix(NAMES) for name in found if name.startswith(NAMES)]

    async def remove(self, node: str) -> None:
        """Removes a stream with all that it holds; one that is gone already is no error. Raises FleetError."""
        with suppress(NoResponder):
            async with _fleet_errors():
                await self._jetstream().delete_stream(stream_of(node))

    async def _info(self, node: str) -> StreamInfo:
        async with _fleet_errors():
            return await self._jetstream().stream_info(stream_of(node))


@asynccontextmanager
async def _fleet_errors() -> AsyncIterator[None]:
    try:
        yield
    except FleetError:
        raise
    except nats.js.errors.NotFoundError as error:
        raise NoResponder("the stream is gone") from error
    except nats.js.errors.APIError as error:
        if error.err_code in FULL:
            raise StreamFull(f"the hub has no room for a stream: {error.description}") from error
        said = error.description or "JetStream is not there, as while nats-server starts"
        raise NotAnswered(f"the hub's streams: {said}") from error
    except (nats.errors.ConnectionClosedError, nats.errors.OutboundBufferLimitError) as error:
        raise CutOff("there is no connection to the hub") from error
    except (nats.errors.Error, TimeoutError) as error:
        raise NotAnswered(f"the hub's streams do not answer: {error}") from error
