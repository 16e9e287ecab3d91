"""Defines what an exit asks of the ledger about an account's limits, and what it is told.

All figures of a window are cumulative, so that it does no harm if a message is lost, late or doubled. Requests of one
exit about one account are ordered by (e, q): one that is not newer than the last is not heard.
"""

from __future__ import annotations

from typing import Annotated

import msgspec

from appliance.fleet.claims.messages import AccountId  # noqa: TC001 (msgspec reads the annotations)

Count = Annotated[int, msgspec.Meta(ge=0, le=2**53)]  # bytes, ms of session time, or ms since the epoch
Number = Annotated[int, msgspec.Meta(ge=0, le=2**53)]
Sessions = Annotated[int, msgspec.Meta(ge=0, le=1_000_000)]
NONE = 0  # no window is open


class WindowAsk(msgspec.Struct, frozen=True, gc=False, omit_defaults=True):
    """Tells of one of the account's windows as the exit has it, since it opened at `opened` (ms since the epoch).

    `used`: what the account used here. `granted`: what the exit was lent, as far as it knows. `want`: what it wants to
    have been lent; what it has beyond that is given back, so it has lowered its own `granted` before. `others`: what it
    was told that is used elsewhere, for a ledger that has lost its memory.
    """

    opened: Count = NONE
    used: Count = 0
    granted: Count = 0
    want: Count = 0
    others: Count = 0


class LeaseAsk(msgspec.Struct, frozen=True, gc=False, tag="lease"):
    """Asks for a part of an account's limits, tells what was used, and gives back, all in one.

    `e` rises when the exit has been restored from a backup, `q` with each request. `live`: how many sessions the
    account has here now; `live_wanted`: how many it is to be allowed here, those included.
    """

    account: AccountId
    e: Number
    q: Number
    traffic: WindowAsk
    time: WindowAsk
    live: Sessions = 0
    live_wanted: Sessions = 0


class ToldAll(msgspec.Struct, frozen=True, tag="all"):
    """Says that the exit has asked anew about every account of which it holds something, and was answered.

    `memory` is what named the ledger's memory before it began to ask (see SyncAnswer.claims). To be said whenever that
    is another one, also by an exit that holds nothing: before each exit has, the ledger lends little of what it has no
    record of.
    """

    memory: Annotated[str, msgspec.Meta(max_length=128)]


class WindowTold(msgspec.Struct, frozen=True, gc=False, omit_defaults=True):
    """Tells how an account's window stands. `opened`: when it did, for all exits; 0: it is not open.

    `granted`: what the exit is lent of it in all; `used`: what the ledger was told that it used here, more than the
    exit knows of if it was restored. `free`: what is lent to nobody; `others`: what was used elsewhere.
    """

    opened: Count = NONE
    granted: Count = 0
    used: Count = 0
    free: Count = 0
    others: Count = 0


class LeaseTold(msgspec.Struct, frozen=True, gc=False, tag="told"):
    """Answers LeaseAsk. It holds only if (e, q) are those of the request that the exit awaits an answer to.

    If they are larger, the exit does not know what it asked before: it was restored; see `holder.told`.
    `live`: how many sessions are allowed here; `live_free`: how many more are allowed anywhere; `live_others`: how many
    are allowed elsewhere. Where the account has no such limit, `live` is what was wanted.
    """

    e: Number
    q: Number
    traffic: WindowTold
    time: WindowTold
    live: Sessions = 0
    live_free: Sessions = 0
    live_others: Sessions = 0


class AllNoted(msgspec.Struct, frozen=True, tag="noted"):
    """Answers ToldAll. `known`: the memory is still that one; else all is to be told again."""

    known: bool


Ask = LeaseAsk | ToldAll
