"""Keeps an unnamed network namespace by a thread of its own: it ends with the process, however that ends."""

from __future__ import annotations

import ctypes
import os
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, ParamSpec, TypeVar

from appliance.domain.errors import HostError

if TYPE_CHECKING:
    from collections.abc import Callable

P = ParamSpec("P")
T = TypeVar("T")

_CLONE_NEWNET = 0x40000000  # linux/sched.h


class Namespace:
    """Runs calls in a network namespace, one after another. A socket created in it stays in it, whichever thread
    uses it."""

    def __init__(self) -> None:
        """Raises HostError if this process may not create a namespace."""
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="network-namespace")
        try:
            self.run(_leave_for_a_new_one)
        except BaseException:
            self.close()
            raise

    def run(self, call: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        return self._thread.submit(call, *args, **kwargs).result()

    def close(self) -> None:
        """Closes the namespace, after waiting for a running call."""
        self._thread.shutdown(wait=True, cancel_futures=True)


def _leave_for_a_new_one() -> None:
    """Moves the calling thread alone to a new namespace: unshare(2). os.unshare() comes with Python 3.12."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(_CLONE_NEWNET) != 0:
        reason = os.strerror(ctypes.get_errno())
        raise HostError(f"cannot make a network namespace: {reason}; a container may not have CAP_SYS_ADMIN")
