"""Reads and writes small JSON files of the state directory, which root reads among files of the service's user.

That user can put anything in their place: a link to a file of root's, a FIFO that holds its reader up, an endless file.
"""

from __future__ import annotations

import errno
import json
import os
import secrets
import stat
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path

LARGEST = 1024 * 1024  # bytes
MODE = 0o600
LEFT_S = 86_400  # after which a file that is not whole yet was left by a process that was killed


class Unfit(OSError):
    """Says that what is there is none of these files: a link, a FIFO, a folder, or too large."""


def read_text(file: Path, *, follow: bool = False) -> str:
    """Returns what a regular file holds. `follow`: a link to one will do.

    Raises OSError: Unfit for what is no regular file, or larger than LARGEST. Raises UnicodeDecodeError.
    """
    flags = os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | (0 if follow else os.O_NOFOLLOW)
    try:
        descriptor = os.open(file, flags)
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.ENXIO):  # a link; a socket
            raise Unfit(error.errno, "not a regular file", str(file)) from error
        raise
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise Unfit(errno.EINVAL, "not a regular file", str(file))
        content = _read(descriptor)
    finally:
        os.close(descriptor)
    if len(content) > LARGEST:
        raise Unfit(errno.EFBIG, os.strerror(errno.EFBIG), str(file))
    return content.decode("utf-8")


def _read(descriptor: int) -> bytes:
    with os.fdopen(descriptor, "rb", closefd=False) as file:
        return file.read(LARGEST + 1)


def read_json(file: Path) -> Any:
    """Returns the value in a file. Raises OSError as `read_text` does, ValueError if it holds no JSON."""
    try:
        return json.loads(read_text(file))
    except RecursionError as error:
        raise ValueError(f"{file}: nested too deeply") from error


def write_json(file: Path, value: object, *, on_disk: bool = False) -> None:
    """Replaces a file, as `write` does. Raises OSError."""
    write(file, json.dumps(value, indent=1), on_disk=on_disk)


def write(file: Path, text: str, *, on_disk: bool = False) -> None:
    """Replaces a file: whoever reads it finds the old one or the new one. `on_disk`: after a power cut too.

    Each writer makes the new file under a name of its own: a command and the server may write at the same time.
    Raises OSError.
    """
    _forget_left(file)
    new = file.with_name(f"{file.stem}.{secrets.token_hex(8)}.new")
    descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, MODE)
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as opened:
            opened.write(text)
            if on_disk:
                opened.flush()
                os.fsync(descriptor)
        new.replace(file)
    except BaseException:
        with suppress(OSError):
            new.unlink()
        raise


def _forget_left(file: Path) -> None:
    """Removes what processes have left that were killed as they wrote this file. Raises OSError."""
    for left in file.parent.glob(f"{file.stem}.*new"):
        with suppress(FileNotFoundError, IsADirectoryError):
            if left.lstat().st_mtime < time.time() - LEFT_S:
                left.unlink()


def forget(file: Path) -> None:
    """Removes a file if there is one. A folder in its place, from which nothing is read, stays. Raises OSError."""
    with suppress(FileNotFoundError, IsADirectoryError):
        file.unlink()


def sync_folder(folder: Path) -> None:
    """Makes renames in the folder survive a power cut. Raises OSError."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
