"""Defines the steps that change files: folders, texts, symlinks and the program. See step.py."""

from __future__ import annotations

import filecmp
import os
import shutil
import stat
from dataclasses import dataclass
from typing import TYPE_CHECKING

from appliance.config.state_file import sync_folder
from appliance.domain.errors import HostError
from appliance.ops import trees
from appliance.ops.install.record import write_whole
from appliance.ops.install.step import Removal

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from appliance.ops.install.record import Record


@dataclass(frozen=True, slots=True)
class Folder:
    """Creates a directory owned by a user. Removed with its content, unless it belongs to another user."""

    path: Path
    mode: int
    user: str
    group: str

    @property
    def what(self) -> str:
        return str(self.path)

    def change(self) -> str | None:
        return None if self.path.is_dir() else "created"

    def apply(self) -> None:
        self.path.mkdir(mode=self.mode, parents=True)
        # The folder above may be another user's, who puts a link to one of root's in its place meanwhile.
        made = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            os.fchmod(made, self.mode)
            shutil.chown(made, self.user, self.group)
        finally:
            os.close(made)

    def remove(self) -> bool:
        return self._is_ours() and _remove(self.path)

    def _is_ours(self) -> bool:
        try:
            return self.path.owner() == self.user
        except (FileNotFoundError, KeyError):
            return False  # it does not exist, or its owner has no name


@dataclass(frozen=True, slots=True)
class TextFile:
    """Writes a file. With `keep`, an existing file is left as the operator has edited it."""

    path: Path
    text: str
    mode: int = 0o644
    group: str | None = None
    keep: bool = False

    @property
    def what(self) -> str:
        return str(self.path)

    def change(self) -> str | None:
        if not self.path.exists():
            return "written"
        if self.keep or self.path.read_text(encoding="utf-8") == self.text:
            return None
        return "brought up to date"

    def apply(self) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(self.path, self.text, self.mode)
        if self.group is not None:
            shutil.chown(self.path, group=self.group)

    def remove(self) -> bool:
        found = _remove(self.path)
        if self.path.parent.name.endswith(".d") and self.path.parent.is_dir() and not any(self.path.parent.iterdir()):
            self.path.parent.rmdir()  # a directory of drop-ins
        return found


@dataclass(frozen=True, slots=True)
class NoFile(Removal):
    """Removes a file that does not belong on this host, and that an earlier install may have left."""

    path: Path

    @property
    def what(self) -> str:
        return str(self.path)

    def change(self) -> str | None:
        return "removed" if self.path.exists() else None

    def apply(self) -> None:
        self.path.unlink()

    def remove(self) -> bool:
        return False


@dataclass(frozen=True, slots=True)
class Manual:
    """Writes the man pages into a folder that other programs use too. Removes those of another version."""

    folder: Path
    program: str
    pages: Mapping[str, str]
    record: Record

    @property
    def what(self) -> str:
        return f"{self.folder}/{self.program}*"

    def _ours(self) -> list[Path]:
        return [path for name in (f"{self.program}.1", f"{self.program}-*.1") for path in self.folder.glob(name)]

    def change(self) -> str | None:
        there = {path.name: path.read_text(encoding="utf-8") for path in self._ours()}
        if there == self.pages:
            return None
        if not self.pages:
            return "removed"
        return "brought up to date" if there else "written"

    def apply(self) -> None:
        missing = [path for path in (self.folder, *self.folder.parents) if not path.exists()]
        if missing:
            self.record.note_folders([str(path) for path in missing])
            self.folder.mkdir(parents=True)
            for folder in missing:
                folder.chmod(0o755)  # whatever root's umask is: other packages' pages may come to stand here
        for name, text in self.pages.items():
            write_whole(self.folder / name, text, 0o644)
        for path in self._ours():
            if path.name not in self.pages:
                path.unlink()

    def remove(self) -> bool:
        """Removes the pages, and the folders that were created for them if they are empty now."""
        found = [*self._ours(), *self.folder.glob(f".{self.program}*.new")]  # left by an install that was killed
        for path in found:
            path.unlink()
        made = self.record.folders
        for folder in (self.folder, *self.folder.parents):
            if str(folder) in made and folder.is_dir() and not any(folder.iterdir()):
                folder.rmdir()
        return bool(found)


@dataclass(frozen=True, slots=True)
class Symlink:
    """Creates a symlink."""

    path: Path
    target: Path

    @property
    def what(self) -> str:
        return str(self.path)

    def change(self) -> str | None:
        if self.path.is_symlink() and self.path.readlink() == self.target:
            return None
        return f"linked to {self.target}"

    def apply(self) -> None:
        """Replaces the symlink atomically."""
        new = self.path.with_name(f".{self.path.name}.new")
        new.unlink(missing_ok=True)
        new.symlink_to(self.target)
        new.replace(self.path)
        sync_folder(self.path.parent)

    def remove(self) -> bool:
        return _remove(self.path)


@dataclass(frozen=True, slots=True)
class ProgramFiles:
    """Copies a version of the program to a folder of its own, completely or not at all."""

    source: Path
    path: Path
    executable: str

    @property
    def what(self) -> str:
        return str(self.path)

    def change(self) -> str | None:
        if not self.path.is_dir():
            return "unpacked"
        if self.is_there() or self._same():
            return None
        return "unpacked again: it was another build"

    def is_there(self) -> bool:
        """Tells whether the program already runs from this folder."""
        return self.path.is_dir() and self.source.samefile(self.path)

    def _same(self) -> bool:
        # All of the program's own code is in its executable.
        return filecmp.cmp(self.source / self.executable, self.path / self.executable, shallow=False)

    def apply(self) -> None:
        new, old = (self.path.with_name(f".{self.path.name}.{word}") for word in ("new", "old"))
        for left in (new, old):
            _remove(left)
        try:
            _copy_readable_by_all(self.source, new)
        except OSError as error:
            _remove(new)  # the service needs the space too
            raise HostError(f"cannot unpack to {self.path}: {error.strerror}") from error
        # Before the rename: a power cut must not leave half a program under the final name.
        os.sync()
        if self.path.is_dir():
            self.path.rename(old)
        new.rename(self.path)
        sync_folder(self.path.parent)
        _remove(old)

    def remove(self) -> bool:
        return _remove(self.path)


def _copy_readable_by_all(source: Path, target: Path) -> None:
    """Copies a folder with permissions for all users: the one file unpacks itself readable by its owner only."""
    for path in (source, *source.rglob("*")):
        copy = target / path.relative_to(source)
        if path.is_symlink():
            copy.symlink_to(path.readlink())
        elif path.is_dir():
            copy.mkdir()
            copy.chmod(0o755)
        else:
            shutil.copyfile(path, copy)
            copy.chmod(0o755 if path.stat().st_mode & stat.S_IXUSR else 0o644)


def _remove(path: Path) -> bool:
    """Removes a file, symlink or folder. Returns False if there is none."""
    if path.is_dir() and not path.is_symlink():
        trees.remove(path)
    elif path.is_symlink() or path.exists():
        path.unlink()
    else:
        return False
    return True
