"""Follows the host's wall clock as long as it can be believed, and goes on by the boot clock while it cannot."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from appliance.domain import clock_steps

if TYPE_CHECKING:
    from appliance.domain.clock import Clock, Moment


class KeptClock(Protocol):
    """Reads a host's clocks."""

    def now(self) -> Moment: ...

    def synchronised(self) -> bool:
        """Tells whether the kernel knows of a time service that keeps the wall clock."""


class BelievedClock:
    """Reads the clocks; the wall time of each reading is one that is believed.

    `known`: the last moment whose wall time is believed; None at the first start. A step that CLOCK_BOOTTIME
    contradicts is followed if the clock is synchronised: the kernel takes that back whenever the clock is set
    (ntp_clear() in kernel/time/ntp.c), and a time service gives it again once it has put the clock right. Steps too
    small to be doubted are doubted once they add up.
    """

    def __init__(self, host: KeptClock, known: Moment | None) -> None:
        self._host = host
        self._known = known
        self._settled = known  # what small steps are added up from
        self._gone_on: Moment | None = None  # to where time has, without the wall clock; None: that one is believed
        self._ahead_ms = 0

    @property
    def host(self) -> Clock:
        """Returns the host's clocks, as they stand."""
        return self._host

    @property
    def ahead_ms(self) -> int:
        """Returns how far the host's wall clock was ahead of the believed one at the last reading; 0: not at all."""
        return self._ahead_ms

    def now(self) -> Moment:
        read, known = self._host.now(), self._known
        if known is None or self._settled is None:
            self._known = self._settled = read
            return read
        ahead_ms = clock_steps.contradiction_ms(known, read, self._gone_on)
        ahead_ms = ahead_ms or clock_steps.drift_ms(self._settled, known, read)
        # Read once more: between the two, a time service may have put right what was read before it had.
        if ahead_ms and not (self._host.synchronised() and clock_steps.same_setting(read, self._host.now())):
            # From a moment of another boot, time goes on with the first reading in this one.
            self._gone_on, self._ahead_ms = clock_steps.expected(self._gone_on or known, read), ahead_ms
            return self._gone_on
        if ahead_ms or self._settled.boot_id != read.boot_id:
            self._settled = read
        self._known, self._gone_on, self._ahead_ms = read, None, 0
        return read

    def accept(self, right: Moment) -> None:
        """Takes a moment of this boot as one whose wall time is right, unless the clock was set again since."""
        read = self._host.now()
        if right.boot_id == read.boot_id and clock_steps.same_setting(right, read):
            self._known, self._settled, self._gone_on = right, right, None
