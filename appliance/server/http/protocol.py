"""Handles one HTTP connection: uvicorn's h11 protocol, with protection against slow or malicious clients.

uvicorn only limits the pause between two requests, and the first byte after it ends that limit.
"""

from __future__ import annotations

import json
import sys
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

from appliance.server.api.error_codes import code_of

if TYPE_CHECKING:
    import asyncio
    import socket

    from appliance.server.http.connection_slots import ConnectionSlots

LARGEST_HEAD = 16 * 1024
LINE_END = b"\r\n"
# From the first byte of a request, or from the connection's start.
HEAD_S = 10.0
BODY_S = 30.0
# For the rest of a body that is not wanted any more: closing at once could destroy the answer on its way to the client.
UNWANTED_S = 5.0
# For the client to receive what was sent.
TAKE_S = 30.0


class _BoundedHeads(h11.Connection):
    """Refuses a head that is too large also where it is whole: h11 limits only what is incomplete, and what is read in
    one go, or waits behind another request, may hold a whole one of any size.

    Sends an answer's head together with what follows it: one system call, one packet. `method`: of the last request.
    `headers`: those that are the same in all answers, as they are sent. h11 would check them again each time.
    """

    def __init__(self, headers: bytes) -> None:
        super().__init__(h11.SERVER, LARGEST_HEAD)
        self.method: bytes | None = None
        self._headers = headers
        self._head = b""  # of an answer, not sent yet

    def next_event(self) -> Any:
        if self.their_state is not h11.IDLE:
            return super().next_event()
        before = len(self.trailing_data[0])
        event = super().next_event()
        if isinstance(event, h11.Request):
            self.method = event.method
            if before - len(self.trailing_data[0]) > LARGEST_HEAD:
                raise h11.RemoteProtocolError("the head is too large", HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE)
        return event

    def send(self, event: h11.Event) -> Any:
        data: Any = super().send(event)
        if isinstance(event, h11.Response):
            status_line, _, rest = data.partition(LINE_END)
            self._head = status_line + LINE_END + self._headers + rest
            return b""
        head, self._head = self._head, b""
        return head + data if head and data is not None else data


class HttpConnection(H11Protocol):
    def __init__(self, connection: socket.socket, slots: ConnectionSlots, headers: bytes, **uvicorns: Any) -> None:
        """`headers`: those of each answer, as they are sent."""
        super().__init__(**uvicorns)
        self.conn: _BoundedHeads = _BoundedHeads(headers)
        self._connection = connection
        self._slots = slots
        self._deadline: asyncio.TimerHandle | None = None
        self._awaited: object = None  # the part of a request that the deadline applies to
        self._lost = False

    # Called by the transport -------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn's
        super().connection_made(transport)
        self._look()

    def data_received(self, data: bytes) -> None:
        if self._connection not in self._slots:
            # Data received before the eviction would be processed, and its answer would reach no client.
            self.transport.abort()
            return
        # Of trailers and of the lines between chunks, too, h11 accepts any size that comes in one piece.
        for start in range(0, len(data), LARGEST_HEAD):
            if not self.transport.is_closing():
                super().data_received(data[start : start + LARGEST_HEAD])
        self._look()

    def pause_writing(self) -> None:
        super().pause_writing()
        self._slots.wait_for(self._connection)
        self._set_deadline(TAKE_S)

    def resume_writing(self) -> None:
        super().resume_writing()
        self._set_deadline(None)
        if self.conn.their_state is not h11.IDLE:
            self._awaited = None
            self._look()

    def connection_lost(self, exc: Exception | None) -> None:
        """Cancels all timers: one that runs would keep this uncounted connection in memory until it fires."""
        self._lost = True
        self._slots.leave(self._connection)
        self._set_deadline(None)
        super().connection_lost(exc)
        self._unset_keepalive_if_required()  # uvicorn does not if `exc` is set

    # Called by uvicorn --------------------------------------------------------------------------------

    def on_response_complete(self) -> None:
        if self._lost:
            return
        super().on_response_complete()
        if self.conn.their_state is h11.IDLE and not self.transport.is_closing():
            self._slots.wait_for(self._connection)  # uvicorn's own timeout applies
        elif self.conn.their_state is h11.SEND_BODY and self.conn.our_state is not h11.SEND_RESPONSE:
            self._slots.wait_for(self._connection)
            self._set_deadline(UNWANTED_S)
        else:
            self._look()

    def timeout_keep_alive_handler(self) -> None:
        super().timeout_keep_alive_handler()
        self._look()

    def send_400_response(self, msg: str) -> None:  # noqa: ARG002 (uvicorn's words; ours have the shape of all errors)
        error = sys.exception()
        hint = HTTPStatus.BAD_REQUEST
        if isinstance(error, h11.RemoteProtocolError):
            hint = HTTPStatus(error.error_status_hint)
            # The frames in it refer back to it and to this object: all would wait for the garbage collector.
            error.__traceback__ = None
        self._refuse(hint)

    def _should_upgrade(self) -> bool:
        """Returns False, without uvicorn's warning for each request that asks for an upgrade."""
        return False

    # --------------------------------------------------------------------------------------------------

    def _look(self) -> None:
        """Marks the connection as idle, with a deadline, or as served."""
        if self._lost:
            return
        if self.transport.is_closing():
            self._set_deadline(TAKE_S)
            return
        if self.flow.write_paused:
            return  # until the client has received its answer
        awaited = self.conn.their_state
        if awaited not in (h11.IDLE, h11.SEND_BODY):
            self._slots.serve(self._connection)
            self._set_deadline(None)
        elif awaited is not self._awaited:
            self._slots.wait_for(self._connection)
            self._set_deadline(HEAD_S if awaited is h11.IDLE else BODY_S)
        self._awaited = awaited

    def _set_deadline(self, seconds: float | None) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None
        if seconds is not None:
            self._deadline = self.loop.call_later(seconds, self._too_late)

    def _too_late(self) -> None:
        self._deadline = None
        asked = self.conn.their_state is h11.SEND_BODY or self.conn.trailing_data[0]
        if asked and not self.transport.is_closing() and not self.flow.write_paused:
            self._refuse(HTTPStatus.REQUEST_TIMEOUT)
        else:
            self.transport.abort()

    def _refuse(self, status: HTTPStatus) -> None:
        """Answers with an error and closes; if an answer has begun already, only closes."""
        if self.conn.our_state in (h11.IDLE, h11.SEND_RESPONSE):
            error = {"error": status.phrase.lower(), "code": code_of(status)}
            body = json.dumps(error, separators=(",", ":")).encode()
            headers = [
                *self.server_state.default_headers,
                (b"content-type", b"application/json"),
                (b"content-length", str(len(body)).encode()),
                (b"connection", b"close"),
            ]
            of_head = self.conn.our_state is h11.SEND_RESPONSE and self.conn.method == b"HEAD"
            for event in (
                h11.Response(status_code=status, headers=headers, reason=status.phrase.encode()),
                h11.Data(data=b"" if of_head else body),
                h11.EndOfMessage(),
            ):
                self.transport.write(self.conn.send(event) or b"")
        if self.cycle is not None and not self.cycle.response_complete:
            # The application may still answer; none of that is sent any more.
            self.cycle.disconnected = True
            self.cycle.message_event.set()
        self.transport.close()
        self._set_deadline(TAKE_S)
