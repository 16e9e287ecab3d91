"""Applies a batch to a device that stops at the first entry it refuses, without telling which.

Applies all other entries and names those refused. To find them, applied entries are sent again; `again` then says
that their peers must not be re-added, so that their counters stay.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol, TypeVar

from appliance.domain.errors import TunnelError
from appliance.network.wireguard.keys import abbreviated

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

MOST_REFUSED = 100  # per call; then the remaining entries are not sent
MOST_NAMED = 10  # in the error's text
MOST_PASSING = 3  # refusals that do not repeat, of one batch


class Refused(TunnelError):
    """Reports a device's error answer. `reason`: its errno in words."""

    def __init__(self, request: str, reason: str) -> None:
        super().__init__(f"{request}: {reason}")
        self.reason = reason


class PeersRefused(TunnelError):
    """Names refused peers, by public key, each with a reason; all others were applied unless `gave_up`."""

    def __init__(self, interface: str, reasons: Mapping[bytes, str], *, gave_up: bool = False) -> None:
        named = [f"peer {abbreviated(key)} refused: {reason}" for key, reason in list(reasons.items())[:MOST_NAMED]]
        if len(reasons) > MOST_NAMED:
            named.append(f"and {len(reasons) - MOST_NAMED} more")
        if gave_up:
            named.append("the rest was not tried")
        super().__init__(f"{interface}: {'; '.join(named)}")
        self.interface = interface
        self.reasons = reasons
        self.public_keys = tuple(reasons)
        self.gave_up = gave_up


def joined(errors: Sequence[PeersRefused], *, left: bool) -> PeersRefused:
    """Returns what one call would have raised for all. `left`: there is more that was not tried."""
    reasons = {key: reason for error in errors for key, reason in error.reasons.items()}
    gave_up = left or any(error.gave_up for error in errors)
    return PeersRefused(errors[0].interface, reasons, gave_up=gave_up)


class Entry(Protocol):
    @property
    def public_key(self) -> bytes: ...


E = TypeVar("E", bound=Entry)


def send_batches(interface: str, batches: Iterable[Sequence[E]], send: Callable[[Sequence[E], bool], None]) -> None:
    """Sends all entries, batch by batch. Raises PeersRefused if peers are refused, or the device's own error.

    `send(entries, again)` raises Refused at the first entry that the device refuses, with those before it applied.
    """
    reasons: dict[bytes, str] = {}
    for batch in batches:
        left, passing = batch, 0
        while left:
            try:
                send(left, False)
                break
            except Refused as error:
                send((), True)  # a missing device refuses even an empty batch
                if len(reasons) == MOST_REFUSED:
                    raise PeersRefused(interface, reasons, gave_up=True) from error
                done = _count_done(left, send)
                if _refuses(left[done], send):
                    reasons.setdefault(left[done].public_key, error.reason)
                    left = left[done + 1 :]
                elif passing == MOST_PASSING:
                    raise
                else:
                    # The refused entry is accepted now, and later entries were sent as repeats: send them all again.
                    passing += 1
    if reasons:
        raise PeersRefused(interface, reasons)


def _refuses(entry: E, send: Callable[[Sequence[E], bool], None]) -> bool:
    try:
        send([entry], False)
    except Refused:
        return True
    return False


def _count_done(entries: Sequence[E], send: Callable[[Sequence[E], bool], None]) -> int:
    """Returns how many entries were applied before one was refused.

    Searches from the front, so that many refusals take few requests each.
    """
    done, not_done, step = 0, len(entries), 1
    while not_done - done > 1:
        middle = done + min(step, (not_done - done) // 2)
        try:
            send(entries[done:middle], True)
        except Refused:
            not_done = middle
        else:
            done = middle
            step *= 2
    return done
