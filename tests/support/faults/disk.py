"""A folder on a disk that loses power: what was synced is there, what was not may be, in part and in any order."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path
    from random import Random

    from tests.support.faults.syscalls import Call, Event

SECTOR = 512
# What becomes of the writes since the last sync: which of them reach the disk.
FATES = ("all", "none", "the first", "some", "some sectors")
# Shared memory, which is rebuilt; files that no program reads back.
LEFT_OUT = ("-shm", ".lock", ".log")


class Write(NamedTuple):
    """`data` None: the file is cut off, or grows with zeros, at `offset`."""

    offset: int
    data: bytes | None

    def to(self, content: bytearray) -> None:
        end = self.offset + len(self.data or b"")
        if len(content) < end:
            content.extend(bytes(end - len(content)))
        if self.data is None:
            del content[end:]
        else:
            content[self.offset : end] = self.data

    def sectors(self) -> list[Write]:
        if self.data is None:
            return [self]
        first = SECTOR - self.offset % SECTOR
        starts = [0, *range(first, len(self.data), SECTOR)]
        return [Write(self.offset + a, self.data[a:b]) for a, b in zip(starts, [*starts[1:], None], strict=True)]


@dataclass
class File:
    content: bytearray = field(default_factory=bytearray)  # as processes see it
    synced: bytearray = field(default_factory=bytearray)
    pending: list[Write] = field(default_factory=list)
    syncing: int = 0  # how many of the pending ones a sync that has begun is about

    def write(self, write: Write) -> None:
        write.to(self.content)
        self.pending.append(write)

    def after_cut(self, fate: str, random: Random) -> bytes:
        found = bytearray(self.synced)
        for write in _fated(self.pending, fate, random):
            write.to(found)
        return bytes(found)


def _fated(pending: list[Write], fate: str, random: Random) -> list[Write]:
    if fate in ("all", "none"):
        return pending if fate == "all" else []
    if fate == "the first":
        return pending[: random.randint(0, len(pending))]
    pieces = pending if fate == "some" else [sector for write in pending for sector in write.sectors()]
    return [piece for piece in pieces if random.random() < 0.5]


class Disk:
    """`syncs` False: a disk, or a program, that does not sync.

    Names are journalled, as on ext4 or XFS: made and removed in order, and safe once the folder is synced.
    """

    def __init__(self, folder: Path, *, syncs: bool = True) -> None:
        self._folder = str(folder)
        self._syncs = syncs
        self._names: dict[str, File] = {}  # as processes see them
        self._synced_names: dict[str, File] = {}
        self._pending_names: list[dict[str, File | None]] = []

    @property
    def content(self) -> Mapping[str, bytes]:
        return {name: bytes(file.content) for name, file in self._names.items()}

    def take(self, event: Event) -> None:
        """What is begun may be on the disk, a sync counts when it is done."""
        name = self._name(event.call.path)
        if event.call.name in ("fsync", "fdatasync"):
            self._sync(event.call.path, name, done=event.done)
        elif name is not None and event.done == _changes_names(event.call):
            self._change(event.call, name)

    def after_cut(self, random: Random) -> Mapping[str, bytes]:
        """The files as they may be found when power is back."""
        fate = random.choice(FATES)
        many = {"all": len(self._pending_names), "none": 0}.get(fate, random.randint(0, len(self._pending_names)))
        names = _renamed(self._synced_names, self._pending_names[:many])
        return {name: file.after_cut(fate, random) for name, file in names.items()}

    def _name(self, path: str) -> str | None:
        folder, _, name = path.rpartition("/")
        return name if folder == self._folder and not name.endswith(LEFT_OUT) else None

    def _sync(self, path: str, name: str | None, *, done: bool) -> None:
        if not self._syncs:
            return
        if path == self._folder and done:
            self._synced_names = _renamed(self._synced_names, self._pending_names)
            self._pending_names = []
        elif name in self._names:
            file = self._names[name]
            if not done:
                file.syncing = len(file.pending)
                return
            for write in file.pending[: file.syncing]:
                write.to(file.synced)
            del file.pending[: file.syncing]

    def _change(self, call: Call, name: str) -> None:
        match call.name:
            case "openat":
                self._open(call, name)
            case "pwrite64":
                self._names[name].write(Write(call.number, call.strings[0]))
            case "write":
                file = self._names[name]
                file.write(Write(len(file.content), call.strings[0]))
            case "ftruncate":
                self._names[name].write(Write(call.number, None))
            case "unlink":
                self._rename({name: None})
            case "link" | "rename":
                other = self._name(call.strings[0].decode())
                assert other is not None, call
                self._rename({other: self._names[name]} | ({name: None} if call.name == "rename" else {}))
            case _:
                raise NotImplementedError(call)

    def _open(self, call: Call, name: str) -> None:
        if "O_CREAT" in call.rest and name not in self._names:
            self._rename({name: File()})
        elif "O_TRUNC" in call.rest:
            self._names[name].write(Write(0, None))

    def _rename(self, change: dict[str, File | None]) -> None:
        self._names = _renamed(self._names, [change])
        self._pending_names.append(change)


def _changes_names(call: Call) -> bool:
    return call.name.startswith(("open", "link", "unlink", "rename"))


def _renamed(names: Mapping[str, File], changes: list[dict[str, File | None]]) -> dict[str, File]:
    found: dict[str, File | None] = dict(names)
    for change in changes:
        found |= change
    return {name: file for name, file in found.items() if file is not None}
