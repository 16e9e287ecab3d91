"""Names what the parts of a fleet ask of the connection to its hubs. `link` is the real one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

PREFIX = "wga"


class Message(Protocol):
    """Is a message that was received. `answer` answers one that was asked as a request, once."""

    @property
    def subject(self) -> str: ...

    @property
    def data(self) -> bytes: ...

    @property
    def reply(self) -> str:
        """Returns the subject on which the sender awaits the answer; empty: it awaits none."""
        ...

    async def answer(self, data: bytes) -> None: ...


class HubLink(Protocol):
    """Sends and receives messages. Nothing is kept for later: what cannot be sent now raises CutOff at once."""

    @property
    def connected(self) -> bool: ...

    async def publish(self, subject: str, data: bytes) -> None:
        """Sends a message to whoever listens now. Raises CutOff, or NotPermitted."""
        ...

    async def keep(self, subject: str, data: bytes, timeout_s: float) -> None:
        """Sends a message to the stream of its subject; returns when the stream has it on its disk.

        Raises CutOff, NotPermitted, NotAnswered: in time; NoResponder: there is no such stream; StreamFull.
        """
        ...

    async def request(self, subject: str, data: bytes, timeout_s: float) -> bytes:
        """Returns the answer. Raises CutOff, NotPermitted, NotAnswered: in time; NoResponder: nobody listens."""
        ...

    async def subscribe(self, subject: str, handle: Callable[[Message], Awaitable[None]], queue: str = "") -> None:
        """Has `handle` called with each message, also after the connection was lost and made again, several at a time.

        `queue`: of all subscribers that name the same, one gets a message.
        """
        ...
