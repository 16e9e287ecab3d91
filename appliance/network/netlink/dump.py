"""Defines what reads the answer to a dump request, and how it says that the request must be sent again."""

from __future__ import annotations

from typing import Protocol, TypeVar

from appliance.domain.errors import TunnelError

Result_co = TypeVar("Result_co", covariant=True)


class DumpWasInterrupted(TunnelError):
    """Says that the device changed under the dump (NLM_F_DUMP_INTR). Ask again."""

    def __init__(self) -> None:
        super().__init__("the device changed while it was read")


class DumpCapacityExceeded(TunnelError):
    """Says that the device holds more than the reader had capacity for, which has grown meanwhile. Ask again."""

    def __init__(self) -> None:
        super().__init__("the device holds more than there was room for")


class DumpReader(Protocol[Result_co]):
    """Reads one dump after another: `begin`, `feed` until it returns True, `result`."""

    def begin(self, seq: int, port_id: int) -> None:
        """Expects the answer to the request with this sequence number, sent from this port."""

    def feed(self, buffer: memoryview, length: int) -> bool:
        """Reads the first `length` bytes of `buffer`, one datagram, and returns whether the dump is whole.

        Raises DumpWasInterrupted; DumpCapacityExceeded, a bounded number of times in the reader's life; OSError with
        the errno of a kernel that refused; TunnelError if the dump cannot be read.
        """

    def result(self) -> Result_co:
        """Returns what was read, once `feed` has returned True.

        Raises TunnelError if the dump contradicts itself.
        """
