"""A small file system of its own, and how to fill it. Needs root."""

from __future__ import annotations

import subprocess
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

PAGE = 4096


@contextmanager
def small_disk(folder: Path, size: int) -> Iterator[Path]:
    folder.mkdir()
    mount("-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder))
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", folder], check=True, timeout=60)


def mount(*arguments: str) -> None:
    subprocess.run(["mount", *arguments], check=True, timeout=60)


@contextmanager
def full(folder: Path, left: int = 0) -> Iterator[None]:
    """Not a byte is left on the file system, or `left` of them."""
    filler = folder / "filler"
    with filler.open("wb", buffering=0) as file:
        for size in (PAGE, 1):
            try:
                while True:
                    file.write(b"\0" * size)
            except OSError:
                pass  # that is what it is for
        file.truncate(file.tell() - left)
    yield
    filler.unlink()
