"""Runs a hub's nats-server beside `serve`, where no unit runs it.

It ends with this process, however that ends: an orphan would keep port and streams from the next one, which ends it if
there is one all the same. Members connect again within a second and lose nothing, as JetStream never has the only copy.
With the unit, which an installed hub has, the server is not touched by a restart of the appliance.

nats-server does not lock its streams: two of them would share a folder unknowingly. It inherits the descriptor of a
lock here, so that the lock is held for exactly as long as it lives.
"""

from __future__ import annotations

import asyncio
import fcntl
import itertools
import logging
import os
import shutil
import signal
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from appliance.domain.errors import FleetError, HostError

if TYPE_CHECKING:
    from collections.abc import Callable

    from appliance.fleet.hub.files import HubPlace

log = logging.getLogger(__name__)

FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.5, 30.0
LIVED_S = 60.0  # what has run for so long had no fault of the start
ENDS_WITHIN_S = 5.0
LOCK_S, LOCK_PAUSE_S = 5.0, 0.05
# Go's heap is bounded, so that it collects before the host runs short, and grows by a quarter between collections, not
# to twice its size: https://pkg.go.dev/runtime#hdr-Environment_Variables
ENVIRONMENT = {"GOMEMLIMIT": "160MiB", "GOGC": "25", "GOMAXPROCS": "2"}
LOG_TAIL = 4096  # bytes


class NatsServer:
    """Keeps the server running. `find`: returns the program, or raises HostError. `fault`: why it does not run."""

    def __init__(self, place: HubPlace, find: Callable[[], Path]) -> None:
        self._place = place
        self._find = find
        self.fault: str | None = None
        self.pid: int | None = None
        self.starts = 0
        self._restart = asyncio.Event()

    def restart(self) -> None:
        """Ends the server, if it runs, and starts it anew at once: it goes by its files as they are then."""
        self._restart.set()

    async def run(self, stopping: asyncio.Event) -> None:
        """Runs it until `stopping`. When it ends by itself, it is started again, later each time."""
        pause_s = FIRST_PAUSE_S
        while not stopping.is_set():
            began = asyncio.get_running_loop().time()
            try:
                await self._run_once(stopping)
            except (HostError, FleetError) as error:
                self.fault = str(error)
            if stopping.is_set():
                return
            if self._restart.is_set():
                continue
            if asyncio.get_running_loop().time() - began >= LIVED_S:
                pause_s = FIRST_PAUSE_S
            log.warning("%s; starting it again in %g s", self.fault, pause_s)
            with suppress(TimeoutError):
                async with asyncio.timeout(pause_s):
                    await stopping.wait()
            pause_s = min(pause_s * 2, LONGEST_PAUSE_S)

    async def _run_once(self, stopping: asyncio.Event) -> None:
        """Returns when it has ended. Raises HostError if it cannot be started; FleetError if it ended by itself."""
        self._restart.clear()
        program = await asyncio.to_thread(self._find)
        process = await self._start(program)
        self.pid, self.fault = process.pid, None
        self.starts += 1
        ended, stopped = asyncio.ensure_future(process.wait()), asyncio.ensure_future(stopping.wait())
        anew = asyncio.ensure_future(self._restart.wait())
        try:
            await asyncio.wait((ended, stopped, anew), return_when=asyncio.FIRST_COMPLETED)
            if ended.done():
                raise FleetError(f"the hub's nats-server ended{self._last_words()}")
        finally:
            stopped.cancel()
            anew.cancel()
            await _end(process, ended)
            self.pid = None

    async def _start(self, program: Path) -> asyncio.subprocess.Process:
        lock = await _locked(self._place.folder / "nats-server.lock", self._place.config)
        try:
            log_file = os.open(
                self._log(), os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600
            )
            try:
                return await asyncio.create_subprocess_exec(
                    *_ended_with_parent(),
                    str(program),
                    "-c",
                    str(self._place.config),
                    stdin=asyncio.subprocess.DEVNULL,
                    stdout=log_file,
                    stderr=log_file,
                    env={"PATH": os.environ.get("PATH", os.defpath), **ENVIRONMENT},
                    pass_fds=(lock,),
                    start_new_session=True,  # Ctrl-C is for `serve`, which ends it last
                )
            finally:
                os.close(log_file)
        except OSError as error:
            raise HostError(f"cannot start {program}: {error.strerror}") from error
        finally:
            os.close(lock)

    def _log(self) -> Path:
        return self._place.log or self._place.folder / "nats-server.log"

    def _last_words(self) -> str:
        """Returns its last line that says a fault; its last line of any kind else."""
        try:
            with self._log().open("rb") as file:
                file.seek(max(0, file.seek(0, os.SEEK_END) - LOG_TAIL))
                lines = file.read().decode("utf-8", "replace").splitlines()
        except OSError:
            return ""
        fatal = [line for line in lines if "[FTL]" in line or line.startswith("nats-server:")]
        return f": {(fatal or lines)[-1]}" if lines else ""


def _ended_with_parent() -> tuple[str, ...]:
    """Returns the words before a command by which the kernel ends it when this process dies (PR_SET_PDEATHSIG)."""
    setpriv = shutil.which("setpriv")  # of util-linux, on every Debian
    return () if setpriv is None else (setpriv, "--pdeathsig", "TERM", "--")


async def _locked(file: Path, config: Path) -> int:
    """Returns the descriptor of the lock; ends a server that runs by this configuration still.

    One does when its `serve` was killed before the kernel was told to end it too; no other `serve` has this state
    directory, which is locked. Raises HostError; FleetError if another program keeps the lock.
    """
    try:
        descriptor = os.open(file, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise HostError(f"cannot open {file}: {error.strerror}") from error
    try:
        async with asyncio.timeout(LOCK_S):
            while not _lock(descriptor):
                await asyncio.to_thread(_end_those_with, config)
                await asyncio.sleep(LOCK_PAUSE_S)
    except BaseException as error:
        os.close(descriptor)
        if isinstance(error, TimeoutError):
            message = f"another program uses {file.parent}: end it (fuser -v {file} names it)"
            raise FleetError(message) from error
        raise
    return descriptor


def _lock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _end_those_with(config: Path) -> None:
    """Ends processes that have `-c` and this file among their arguments."""
    for cmdline in Path("/proc").glob("[0-9]*/cmdline"):
        with suppress(OSError):  # it has ended, or is another user's
            process = os.pidfd_open(int(cmdline.parent.name))
            try:
                words = cmdline.read_bytes().split(b"\0")
                if (b"-c", os.fsencode(config)) in itertools.pairwise(words):
                    log.warning("ending nats-server (%s), which has outlived its serve", cmdline.parent.name)
                    signal.pidfd_send_signal(process, signal.SIGTERM)
            finally:
                os.close(process)


async def _end(process: asyncio.subprocess.Process, ended: asyncio.Future[int]) -> None:
    """Ends it in order, and kills it if it does not end."""
    for signal_it in (process.terminate, process.kill):
        if ended.done():
            return
        with suppress(ProcessLookupError):
            signal_it()
        await asyncio.wait((ended,), timeout=ENDS_WITHIN_S)
