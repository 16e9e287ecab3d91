"""Answers what other exits ask of this one: finds who serves it, and turns errors into answers."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

import msgspec

from appliance.config.log_format import about
from appliance.domain import ids
from appliance.domain.errors import ApplianceError, InvalidRequest
from appliance.fleet.link.reading import Unreadable, read
from appliance.fleet.owner.served_ops import OpKey
from appliance.fleet.rpc import operations
from appliance.fleet.rpc.failures import described
from appliance.fleet.rpc.operations import OperationDone, OperationReply

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from appliance.fleet.owner.device_owner import DeviceOwner
    from appliance.fleet.owner.served_ops import ServedOps
    from appliance.fleet.owner.session_owner import SessionOwner
    from appliance.fleet.reports.reported import ReportsOwner
    from appliance.fleet.reports.verifying import LinesVerifier
    from appliance.fleet.rpc.operations import DrainExit, ExitOperation, TakeBack
    from appliance.store.queries.fleet_requests import ServedOp

    Serve = Callable[[str, Any], Awaitable[msgspec.Struct]]

log = logging.getLogger(__name__)

OP_LENGTH = 32  # 128 bits in hexadecimal


class OwningExit:
    """Serves the operations of `operations` to the other exits of the fleet.

    `reports`: on a hub.
    `drain`: has this exit take no new sessions, or take them again. `may_drain`: whether an exit may ask for that.
    """

    def __init__(
        self,
        *,
        sessions: SessionOwner,
        devices: DeviceOwner,
        reports: ReportsOwner | None,
        lines: LinesVerifier,
        ops: ServedOps,
        drain: Callable[[bool], Awaitable[None]],
        may_drain: Callable[[str], bool],
    ) -> None:
        self._sessions = sessions
        self._devices = devices
        self._reports = reports
        self._lines = lines
        self._ops = ops
        self._drain_exit = drain
        self._may_drain = may_drain
        self._served: Mapping[str, tuple[ExitOperation[Any, Any], Serve]] = {
            operation.name: (operation, serve) for operation, serve in self._table()
        }

    def _table(self) -> list[tuple[ExitOperation[Any, Any], Serve]]:
        sessions, devices, reports = self._sessions, self._devices, self._reports
        of_reports: list[tuple[ExitOperation[Any, Any], Serve]] = []
        if reports is not None:
            of_reports = [
                (operations.REPORTED, lambda _, asked: reports.session(asked)),
                (operations.REPORTED_LIST, lambda _, asked: reports.list(asked)),
                (operations.REPORTED_USE, lambda _, asked: reports.use(asked)),
            ]
        return [
            *of_reports,
            (operations.OPEN, sessions.open),
            (operations.STATUS, lambda _, asked: sessions.status(asked)),
            (operations.CLOSE, lambda _, asked: sessions.close(asked)),
            (operations.LIST, lambda _, asked: sessions.list(asked)),
            (operations.USAGE, lambda _, asked: sessions.usage(asked)),
            (operations.END, lambda _, asked: sessions.end(asked)),
            (operations.ABORT, self._abort),
            (operations.DRAIN, self._drain),
            (operations.VERIFY, self._lines.verify),
            (operations.DEVICE_ADD, devices.add),
            (operations.DEVICE_SHOW, lambda _, asked: devices.show(asked)),
            (operations.DEVICE_LIST, lambda _, asked: devices.list(asked)),
            (operations.DEVICE_PLACE, lambda _, asked: devices.place(asked)),
            (operations.DEVICE_CHANGE, devices.change),
            (operations.DEVICE_ROTATE, devices.rotate),
            (operations.DEVICE_REMOVE, devices.remove),
        ]

    def handlers(self) -> dict[str, Callable[[str, bytes], Awaitable[bytes]]]:
        """Returns what serves each operation, by its name: takes the sender's id and the request."""

        def serving(name: str) -> Callable[[str, bytes], Awaitable[bytes]]:
            return lambda sender, payload: self.answer(sender, name, payload)

        return {name: serving(name) for name in self._served}

    def serve(self, operation: ExitOperation[Any, Any], serve: Serve) -> None:
        """Serves another operation, from before the first request on."""
        self._served = {**self._served, operation.name: (operation, serve)}

    async def answer(self, sender: str, operation: str, payload: bytes) -> bytes:
        """Returns the answer to what `sender` asks. Never raises: what fails is answered as the client is told."""
        try:
            result = await self._serve(sender, operation, payload)
        except ApplianceError as error:
            log.info("%s: %s", operation, error, extra=about(node=sender))
            return msgspec.json.encode(OperationReply(failure=described(error)))
        except Exception as error:
            log.exception("%s of %s failed", operation, sender)
            return msgspec.json.encode(OperationReply(failure=described(error)))
        return msgspec.json.encode(OperationReply(result=msgspec.Raw(msgspec.json.encode(result))))

    async def _serve(self, sender: str, name: str, payload: bytes) -> msgspec.Struct:
        known = self._served.get(name)
        if known is None:
            raise InvalidRequest(f"this exit knows no operation {name[:40]}")
        operation, serve = known
        try:
            asked = read(payload, operation.request)
        except Unreadable as error:
            raise InvalidRequest(f"{name} cannot be read") from error
        if getattr(asked, "for_account", "") and not self._may_drain(sender):
            raise InvalidRequest("only a hub asks for an account by its id")
        op = getattr(asked, "op", None)
        if op is not None and len(op) != OP_LENGTH:
            raise InvalidRequest("op must be 128 bits in hexadecimal")
        return await serve(sender, asked)

    async def _abort(self, sender: str, asked: TakeBack) -> OperationDone:
        async def undo(made: ServedOp) -> None:
            if (made.made_id or "").startswith(ids.DEVICE_PREFIX):
                await self._devices.undo(made)
            else:
                await self._sessions.undo(asked.op, made)

        await self._ops.take_back(OpKey(sender, asked.op), undo)
        await self._sessions.settled()
        return OperationDone()

    async def _drain(self, sender: str, asked: DrainExit) -> OperationDone:
        if not self._may_drain(sender):
            raise InvalidRequest("only a hub may drain another exit")
        await self._drain_exit(asked.drained)
        return OperationDone()
