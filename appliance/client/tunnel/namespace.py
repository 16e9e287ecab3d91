"""A network namespace without a name, kept by a thread of ours: it ends with the process, however that ends."""

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
    """Calls run in it one after another. A socket made in it stays in it, whichever thread uses it."""

    def __init__(self) -> None:
        """Raises HostError where this process may not make one."""
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="network-namespace")
        try:
            self.run(_leave_for_a_new_one)
        except BaseException:
            self.close()
            raise

    def run(self, call: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        return self._thread.submit(call, *args, **kwargs).result()

    def close(self) -> None:
        """Waits for a call that still runs."""
        self._thread.shutdown(wait=True, cancel_futures=True)


def _leave_for_a_new_one() -> None:
    """unshare(2) moves the calling thread alone. os.unshare() comes with Python 3.12."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(_CLONE_NEWNET) != 0:
        reason = os.strerror(ctypes.get_errno())
        raise HostError(f"cannot make a network namespace: {reason}; a container may not have CAP_SYS_ADMIN")
