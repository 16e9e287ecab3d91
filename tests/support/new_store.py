"""Puts a new store where one is to be opened: the migrations run once a process, what they made is copied."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory

from appliance.store.database import Store

_MADE: list[bytes] = []


async def put_new_store(path: Path) -> None:
    """Writes the file that `Store.open` would make. One that is there stays as it is."""
    if not _MADE:
        with TemporaryDirectory(prefix="new-store-") as folder:
            made = Path(folder) / "store.sqlite"
            await (await Store.open(made)).close()
            _read(made)
    _put(path)


def _read(made: Path) -> None:
    _MADE.append(made.read_bytes())


def _put(path: Path) -> None:
    if not path.exists():
        path.write_bytes(_MADE[0])
        path.chmod(0o600)
