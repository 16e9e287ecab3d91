"""Records what a run makes on this host before it is made, so that the next run can remove it.

There is one file per tunnel in /run, which a reboot empties, as it ends all that the file names. A live run holds the
lock on its file.
"""

from __future__ import annotations

import fcntl
import json
import os
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from appliance.client.credentials import write_private
from appliance.domain.errors import HostError
from appliance.network.wireguard import link_state
from appliance.network.wireguard.wireguard_go import SOCKET_DIRECTORY

if TYPE_CHECKING:
    from collections.abc import Iterator

FOLDER = Path("/run/wg-appliance-client")
PREFIX = "wgc"
MOST = 100
LARGEST = 64 * 1024  # bytes of a record: the exit's URL is as long as the user has it
OWN_NAMESPACE = Path("/proc/self/ns/net")

Kind = Literal["machine", "command"]  # whose traffic goes into the tunnel


@dataclass(frozen=True, slots=True)
class RunRecord:
    """Names what a run has made.

    `namespace`: the run's network namespace, by its inode. `api`, `session`: empty before a session is open. `mark`:
    the fwmark of packets that bypass the tunnel; None if none has to.
    """

    interface: str
    kind: Kind
    pid: int
    namespace: int
    api: str = ""
    session: str = ""
    mark: int | None = None


class RunClaim:
    """Holds an interface name that belongs to this run while it holds the file's lock.

    `is_readable`: the record is what a run has written, not what is left of it.
    """

    def __init__(self, lock: int, path: Path, record: RunRecord, *, is_readable: bool = True) -> None:
        self._lock = lock
        self.path = path
        self.record = record
        self.is_readable = is_readable

    @property
    def config(self) -> Path:
        """Returns the path of the wg-quick file; wg-quick(8) takes the interface's name from it."""
        return config_of(self.record.interface)

    @property
    def resolv_conf(self) -> Path:
        return FOLDER / f"{self.record.interface}.resolv"

    def note_session(self, api: str, session: str) -> None:
        self.record = replace(self.record, api=api, session=session)
        self.write()

    def note_mark(self, mark: int | None) -> None:
        self.record = replace(self.record, mark=mark)
        self.write()

    def write(self) -> None:
        """Raises HostError if there is no room for it; what was noted before stays."""
        content = json.dumps(asdict(self.record)).encode()
        try:
            os.pwrite(self._lock, content, 0)
            os.ftruncate(self._lock, len(content))
        except OSError as error:
            raise _no_room(error) from error

    def empty(self) -> None:
        """Removes the files, once everything that the record names has been removed."""
        files = (self.config, self.resolv_conf)
        unfinished = [each for file in files for each in FOLDER.glob(f".{file.name}.*")]  # of a run killed meanwhile
        for file in (*files, *unfinished):
            file.unlink(missing_ok=True)
        self.path.unlink(missing_ok=True)

    def close(self) -> None:
        os.close(self._lock)


@contextmanager
def claimed(kind: Kind) -> Iterator[RunClaim]:
    """Claims the lowest free interface name.

    Raises HostError if all names are taken, or a tunnel has all of this machine's traffic already.
    """
    claim = _claim_locked(kind)
    try:
        yield claim
    finally:
        if not claim.record.session:  # then nothing was made
            claim.empty()
        claim.close()


def _claim_locked(kind: Kind) -> RunClaim:
    try:
        FOLDER.mkdir(mode=0o700, exist_ok=True)
        lock = os.open(FOLDER, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        raise _no_room(error) from error
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        return _claim(kind, _own_namespace())
    finally:
        os.close(lock)


def _claim(kind: Kind, namespace: int) -> RunClaim:
    other = whole_machine()
    if other is not None:
        raise HostError(f"this machine is connected already, by process {other.pid}; end that first")
    for number in range(MOST):
        name = f"{PREFIX}{number}"
        lock = _try_lock(_path(name), os.O_CREAT)
        if lock is None:
            continue
        if os.fstat(lock).st_size == 0 and _is_free(name):
            claim = RunClaim(lock, _path(name), RunRecord(name, kind, os.getpid(), namespace))
            try:
                claim.write()
            except HostError:
                claim.empty()
                claim.close()
                raise
            return claim
        os.close(lock)  # of a killed run in another network namespace; the next run there removes it
    raise HostError(f"{MOST} tunnels are open already")


def whole_machine() -> RunRecord | None:
    """Returns the run whose tunnel has all traffic of this network namespace, if any."""
    namespace = _own_namespace()
    return next((r for r in _records() if (r.kind, r.namespace) == ("machine", namespace)), None)


@contextmanager
def abandoned() -> Iterator[list[RunClaim]]:
    """Yields the records of killed runs in this network namespace, locked meanwhile.

    One that cannot be read may be of a tunnel that is up: its name is known, and by that all that can be found.
    """
    claims = []
    try:
        for path in _left_behind():
            lock = _try_lock(path, os.O_CREAT)
            if lock is None:
                continue
            content = os.pread(lock, LARGEST, 0)
            record = _parse(content)
            if record is None and (content or _has_traces(path.stem)):
                unknown = RunRecord(path.stem, "machine", 0, _own_namespace())
                claims.append(RunClaim(lock, path, unknown, is_readable=False))
            elif record is not None and record.namespace == _own_namespace():
                claims.append(RunClaim(lock, path, record))
            else:
                if record is None:  # killed before it had made anything
                    path.unlink(missing_ok=True)
                os.close(lock)
        yield claims
    finally:
        for claim in claims:
            claim.close()


def _left_behind() -> list[Path]:
    """Returns the paths of all records, also of one that is missing beside the file of its tunnel."""
    if not FOLDER.is_dir():
        return []
    names = {path.stem for ending in ("json", "conf") for path in FOLDER.glob(f"{PREFIX}*.{ending}")}
    return [_path(name) for name in sorted(names)]


def _has_traces(interface: str) -> bool:
    return not _is_free(interface) or config_of(interface).exists()


def write_beside(path: Path, text: str) -> None:
    """Writes a file of a run beside its record. Raises HostError if there is no room for it."""
    try:
        write_private(path, text)
    except OSError as error:
        raise _no_room(error) from error


def _no_room(error: OSError) -> HostError:
    # What is in the way is no folder: one that is there is used.
    remedy = f"remove {FOLDER}, which is no folder" if isinstance(error, FileExistsError | NotADirectoryError) else ""
    return HostError(
        f"cannot note in {FOLDER} what is made, so that it can be removed again: {error.strerror}; "
        f"{remedy or 'where /run is read-only or full, mount a tmpfs on it'}, or take a file for another machine: "
        "connect --config-only FILE"
    )


def config_of(interface: str) -> Path:
    return FOLDER / f"{interface}.conf"


def _path(interface: str) -> Path:
    return FOLDER / f"{interface}.json"


def _own_namespace() -> int:
    return OWN_NAMESPACE.stat().st_ino


def _is_free(interface: str) -> bool:
    return link_state.link_kind(interface) is None and not (SOCKET_DIRECTORY / f"{interface}.sock").exists()


def _records() -> list[RunRecord]:
    """Returns the records of live runs."""
    records = []
    for path in FOLDER.glob(f"{PREFIX}*.json"):
        lock = _try_lock(path)
        if lock is not None:
            os.close(lock)
            continue
        with suppress(OSError):
            record = _parse(path.read_bytes())
            if record is not None:
                records.append(record)
    return records


def _try_lock(path: Path, flags: int = 0) -> int | None:
    """Locks a file and returns its descriptor; None if another process has the lock, or the file does not exist.

    Opens the path again if the file was removed before it was locked. Raises HostError if it cannot be written.
    """
    while True:
        try:
            opened = os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW | flags, 0o600)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise _no_room(error) from error
        try:
            fcntl.flock(opened, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(opened)
            return None
        with suppress(FileNotFoundError):
            if path.stat().st_ino == os.fstat(opened).st_ino:
                return opened
        os.close(opened)


def _parse(content: bytes) -> RunRecord | None:
    """Returns the record; None if it is none. What follows it, or a later version has added, is ignored."""
    try:
        values, _ = json.JSONDecoder().raw_decode(content.decode("ascii"))
        record = RunRecord(**{field.name: values[field.name] for field in fields(RunRecord) if field.name in values})
    except (ValueError, TypeError, RecursionError):
        return None
    texts, numbers = (record.interface, record.kind, record.api, record.session), (record.pid, record.namespace)
    is_one = all(isinstance(each, str) for each in texts) and all(type(each) is int for each in numbers)
    return record if is_one and (record.mark is None or type(record.mark) is int) else None
