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

    @property
    def arrived_ms(self) -> int:
        """Returns when it came in, on CLOCK_BOOTTIME (`Moment.boot_ms`): not when it was its turn to be handled."""
        ...

    async def answer(self, data: bytes) -> None:
        """Raises CutOff: also if the connection it came by was lost since; NotPermitted: it awaits no (more) answer."""
        ...


class HubLink(Protocol):
    """Sends and receives messages. Nothing is kept for later: what cannot be sent now raises CutOff at once."""

    @property
    def connected(self) -> bool: ...

    async def publish(self, subject: str, data: bytes) -> None:
        """Sends a message to whoever listens now. Raises CutOff, or NotPermitted.

        The hub says only afterwards that it refused one: the first may be lost without an error, not those after it.
        """
        ...

    async def keep(self, subject: str, data: bytes, timeout_s: float) -> None:
        """Sends a message to the stream of its subject; returns when the stream has it on its disk.

        Raises CutOff, NotPermitted, NotAnswered: in time; NoResponder: there is no such stream; StreamFull.
        """
        ...

    async def request(self, subject: str, data: bytes, timeout_s: float) -> bytes:
        """Returns the answer. Raises CutOff, NotPermitted, NotAnswered: in time; NoResponder: nobody listens.

        CutOff: it was not sent. If the connection is lost while the answer is awaited: NotAnswered, at once.
        """
        ...

    async def subscribe(self, subject: str, handle: Callable[[Message], Awaitable[None]], queue: str = "") -> None:
        """Has `handle` called with each message, also after the connection was lost and made again, several at a time.

        `queue`: of all subscribers that name the same, one gets a message. While cut off it takes effect with the
        next connection. Raises NotPermitted.
        """
        ...
