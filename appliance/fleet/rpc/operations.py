"""Names the operations that one exit asks of another, and the records that they carry. Unknown fields are ignored.

Whoever asks for an account shows its token, as its client did: an exit that was stolen knows only hashes of the others.
Hubs, which keep the accounts, ask all exits for lists by the account's id, so that none is shown a token by them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Generic, Self, TypeVar

import msgspec

from appliance.domain.charges import Charge
from appliance.domain.fleet_use import ExitWindows
from appliance.domain.windows import Window, Windows
from appliance.fleet.rpc.facts import DeviceFacts, SessionFacts, Shown, TunnelRecord
from appliance.fleet.rpc.failures import Failure  # noqa: TC001 (msgspec reads annotations at run time)

if TYPE_CHECKING:
    from appliance.domain.invoice import Line

Q = TypeVar("Q")
A = TypeVar("A")

Place = tuple[Shown, str]  # (created_at, id): the order of lists that several exits have in common


# What is asked ------------------------------------------------------------------------------------------


class OpenSession(msgspec.Struct, frozen=True):
    """Asks for a session. `op`: 128 bits in hexadecimal, by which it is known if it is asked again or taken back."""

    op: str
    token: str
    region: str
    public_key: bytes
    ipv6: bool


class OneOfAccount(msgspec.Struct, frozen=True, omit_defaults=True):
    """Asks for a session or device, or for its end. `for_account`: its id, from a hub, in place of a token."""

    token: str
    id: str
    for_account: str = ""


class ListOfAccount(msgspec.Struct, frozen=True, omit_defaults=True):
    """Asks for up to `limit` sessions or devices below a place. `live`: of sessions, only those.

    `for_account`: as of OneOfAccount.
    """

    token: str
    before: Place | None
    limit: int
    live: bool = False
    for_account: str = ""


class UsageOfAccount(msgspec.Struct, frozen=True, omit_defaults=True):
    """Asks what an account has used. `for_account`: as of OneOfAccount."""

    token: str
    for_account: str = ""


class AskAll(msgspec.Struct, frozen=True):
    """Asks a hub for what all other exits answer to an operation, which shows a token to the hub alone."""

    token: str
    operation: str
    request: msgspec.Raw


class ReportedOfAccount(msgspec.Struct, frozen=True):
    """Asks a hub for sessions as these exits, and those that have left the fleet, have reported them."""

    token: str
    node_ids: tuple[str, ...]
    before: Place | None
    limit: int
    live: bool


class TakeBack(msgspec.Struct, frozen=True):
    """Asks that what `op` has made is undone, or refused if it comes after this."""

    op: str


class EndSession(msgspec.Struct, frozen=True):
    """Asks for the end of a session, which its client has asked for; `replaced`: its key moved on to another exit."""

    account_id: str
    id: str
    replaced: bool = False


class DrainExit(msgspec.Struct, frozen=True):
    """Asks the exit to take no new sessions; `drained` false: to take them again."""

    drained: bool


class VerifiedLine(msgspec.Struct, frozen=True, array_like=True):
    """Holds the figures of a session's invoice line."""

    session_id: str
    seconds: int
    bytes_in: int
    bytes_out: int
    time_mc: int | None
    bytes_mc: int | None

    @classmethod
    def of(cls, line: Line) -> Self:
        return cls(line.session_id, *msgspec.structs.astuple(line.charge))

    @property
    def charge(self) -> Charge:
        return Charge(self.seconds, self.bytes_in, self.bytes_out, self.time_mc, self.bytes_mc)


class VerifyLines(msgspec.Struct, frozen=True):
    """Asks an exit to compare its ended lines of an account's month with what a hub has of them; it refuses if they
    differ.

    `lines`: of sessions whose ids come after `after`, up to `until`; "": up to the last. `upto`: the hub has what ended
    before this instant, by the exit's mark.
    """

    account_id: str
    month: Annotated[str, msgspec.Meta(pattern="^[0-9]{4}-(0[1-9]|1[0-2])$")]
    upto: int
    after: str
    until: str
    lines: list[VerifiedLine]


class AddDeviceHere(msgspec.Struct, frozen=True):
    """Asks for a device, as OpenSession does for a session."""

    op: str
    token: str
    name: str
    region: str
    public_key: bytes
    ipv6: bool


class EditDeviceHere(msgspec.Struct, frozen=True):
    """Asks for another name, or that a device may or may not connect. None: as it is."""

    op: str
    token: str
    id: str
    name: str | None
    paused: bool | None


class RotateDeviceHere(msgspec.Struct, frozen=True):
    """Asks for another key. `dns`: what the client wants in its file, to be checked; None: nothing."""

    op: str
    token: str
    id: str
    public_key: bytes
    dns: tuple[str, ...] | None


class RemoveDeviceHere(msgspec.Struct, frozen=True):
    """Asks for a device's removal."""

    op: str
    token: str
    id: str


# What is answered ---------------------------------------------------------------------------------------


class SessionOpened(msgspec.Struct, frozen=True):
    """Answers with what the session's file says."""

    session: SessionFacts
    tunnel: TunnelRecord


class UsedHere(msgspec.Struct, frozen=True):
    """Answers with what an account has used of its present windows on one exit."""

    bytes_used: int
    time_used_ms: int


class WindowsHere(msgspec.Struct, frozen=True, array_like=True):
    """Describes an account's windows on one exit, as it has reported them. `..._opened_at` None: none is open."""

    node_id: str
    bytes_opened_at: int | None
    bytes_used: int
    time_opened_at: int | None
    time_used_ms: int

    @classmethod
    def of(cls, reported: ExitWindows) -> Self:
        traffic, time = reported.windows.traffic, reported.windows.time
        return cls(reported.node, traffic.opened_at, traffic.used, time.opened_at, time.used)

    @property
    def windows(self) -> ExitWindows:
        traffic, time = Window(self.bytes_opened_at, self.bytes_used), Window(self.time_opened_at, self.time_used_ms)
        return ExitWindows(self.node_id, Windows(traffic, time))


class ReportedUse(msgspec.Struct, frozen=True):
    """Answers with an account's windows on all exits."""

    exits: list[WindowsHere]


class SessionsOf(msgspec.Struct, frozen=True):
    """Answers with sessions, in the order that was asked for."""

    sessions: list[SessionFacts]


class ReportedSession(msgspec.Struct, frozen=True, omit_defaults=True):
    """Answers with a session as its exit has reported it; None: none has."""

    node_id: str = ""
    session: SessionFacts | None = None


class DeviceMade(msgspec.Struct, frozen=True):
    """Answers with a device that has a new key, and what its file says."""

    device: DeviceFacts
    tunnel: TunnelRecord


class DevicesOf(msgspec.Struct, frozen=True):
    """Answers with devices, in the order that was asked for."""

    devices: list[DeviceFacts]


class AllAnswers(msgspec.Struct, frozen=True):
    """Answers with what exits have answered in time, by their ids."""

    answers: dict[str, msgspec.Raw]


class Placed(msgspec.Struct, frozen=True):
    """Answers with where in the lists a device stands, also one that was removed."""

    place: Place


class OperationDone(msgspec.Struct, frozen=True):
    """Answers that it is done."""


class OperationReply(msgspec.Struct, frozen=True, omit_defaults=True):
    """Wraps each answer. `failure` None: `result` is the operation's answer."""

    result: msgspec.Raw = msgspec.Raw(b"{}")
    failure: Failure | None = None


@dataclass(frozen=True, slots=True)
class ExitOperation(Generic[Q, A]):
    """Names an operation, and the records that are asked and answered."""

    name: str
    request: type[Q]
    answer: type[A]


OPEN = ExitOperation("open", OpenSession, SessionOpened)
STATUS = ExitOperation("status", OneOfAccount, SessionFacts)
CLOSE = ExitOperation("close", OneOfAccount, SessionFacts)
LIST = ExitOperation("list", ListOfAccount, SessionsOf)
USAGE = ExitOperation("usage", UsageOfAccount, UsedHere)
REPORTED = ExitOperation("reported", OneOfAccount, ReportedSession)
REPORTED_LIST = ExitOperation("reported_list", ReportedOfAccount, SessionsOf)
REPORTED_USE = ExitOperation("reported_use", UsageOfAccount, ReportedUse)
ASK_ALL = ExitOperation("ask_all", AskAll, AllAnswers)
ABORT = ExitOperation("abort", TakeBack, OperationDone)
END = ExitOperation("end", EndSession, OperationDone)
DRAIN = ExitOperation("drain", DrainExit, OperationDone)
VERIFY = ExitOperation("verify", VerifyLines, OperationDone)
DEVICE_ADD = ExitOperation("device_add", AddDeviceHere, DeviceMade)
DEVICE_SHOW = ExitOperation("device_show", OneOfAccount, DeviceFacts)
DEVICE_LIST = ExitOperation("device_list", ListOfAccount, DevicesOf)
DEVICE_PLACE = ExitOperation("device_place", OneOfAccount, Placed)
DEVICE_CHANGE = ExitOperation("device_change", EditDeviceHere, DeviceFacts)
DEVICE_ROTATE = ExitOperation("device_rotate", RotateDeviceHere, DeviceMade)
DEVICE_REMOVE = ExitOperation("device_remove", RemoveDeviceHere, DeviceFacts)
