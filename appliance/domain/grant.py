"""States what an exit of a fleet may use of an account's limits by itself."""

from __future__ import annotations

from msgspec import Struct


class Grant(Struct, frozen=True, gc=False):
    """Holds what is left to this exit of both windows, and what the account used of them on other exits.

    `left_...`: below 0 if the exit has used more than it was lent. `more_...`: more may be lent yet, so that having
    nothing left exceeds no limit; False once the ledger has nothing more, or cannot be asked. Of a limit of 0 nothing
    here is to be read but what others used. `live`: how many sessions the account may have on this exit at once;
    `others_live`: how many it has elsewhere, as last told.
    """

    left_bytes: int
    left_ms: int
    more_bytes: bool
    more_ms: bool
    others_bytes: int = 0
    others_ms: int = 0
    live: int = 0
    others_live: int = 0

    @property
    def bytes_gone(self) -> bool:
        return self.left_bytes <= 0 and not self.more_bytes

    @property
    def time_gone(self) -> bool:
        return self.left_ms <= 0 and not self.more_ms
