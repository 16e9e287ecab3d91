"""A damaged store is found at start, named, and left as it is."""

from __future__ import annotations

import asyncio
import sqlite3
from contextlib import closing
from typing import TYPE_CHECKING

import pytest

from appliance.domain.errors import StoreError
from appliance.store import integrity
from appliance.store.database import Store

if TYPE_CHECKING:
    from pathlib import Path

PAGE = 4096


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A store that was used and closed."""
    path = tmp_path / "a store%20.sqlite"

    async def make() -> None:
        await (await Store.open(path)).close()

    asyncio.run(make())
    return path


def overwrite(path: Path, offset: int, content: bytes) -> None:
    with path.open("r+b") as file:
        file.seek(offset)
        file.write(content)


def files(path: Path) -> dict[str, bytes]:
    """All in the folder that has a content."""
    return {file.name: file.read_bytes() for file in path.parent.iterdir() if file.stat().st_size}


def test_a_whole_store_passes(path: Path) -> None:
    """A whole store passes, and so does none at all, which is made afterwards."""
    integrity.check(path)
    integrity.check(path.with_name("none"))
    assert not path.with_name("none").exists()


DAMAGE = {
    "its beginning": (0, b"\0" * 100, "file is not a database"),
    "where the pages are": (PAGE, b"\xa5" * PAGE, "ptrmap"),
    "a table's page": (2 * PAGE, b"\xa5" * PAGE, "btreeInitPage"),
    "its schema": (200, b"\xa5" * (PAGE - 200), "malformed"),
}


@pytest.mark.parametrize(("offset", "content", "finding"), DAMAGE.values(), ids=DAMAGE)
def test_a_damaged_store_is_told_in_one_line_and_kept(path: Path, offset: int, content: bytes, finding: str) -> None:
    """One line: the file, what is wrong, and the command that brings a backup back. The file is not touched."""
    overwrite(path, offset, content)
    before = files(path)
    with pytest.raises(StoreError) as refusal:
        integrity.check(path)
    message = str(refusal.value)
    assert message.startswith(f"the store {path} is damaged: ")
    assert finding in message
    assert message.endswith("bring a backup back with: wg-appliance restore FILE")
    assert "\n" not in message
    assert files(path) == before


def test_damaged_behind_a_log(path: Path) -> None:
    """Transactions that a crash left in the log are not copied into a damaged file."""
    with closing(sqlite3.connect(path, isolation_level=None)) as crashed:
        crashed.execute("UPDATE node SET requested = 7")
        left = files(path)
    assert any(name.endswith("-wal") for name in left)
    for name, content in left.items():
        path.with_name(name).write_bytes(content)
    # Not the page that the log has anew.
    overwrite(path, PAGE * 3, b"\xa5" * PAGE)
    # The log's index is not of the file's content, and is made anew by whoever reads.
    before = {name: content for name, content in files(path).items() if not name.endswith("-shm")}
    with pytest.raises(StoreError, match="is damaged"):
        integrity.check(path)
    assert before.items() <= files(path).items()


@pytest.mark.parametrize("content", [b"no database" * 400, b"", None])
def test_an_unreadable_store_has_no_schema_version(path: Path, content: bytes | None) -> None:
    """After a failed upgrade it is restored then, like one that the upgrade has changed."""
    version = integrity.schema(path)
    assert integrity.has_schema(path, version)
    path.unlink()
    if content is not None:
        path.write_bytes(content)
    assert not integrity.has_schema(path, version)


def test_every_way_to_open_a_store_names_it_when_it_cannot(tmp_path: Path) -> None:
    """A store may go, or become another file, between a command's checks and the moment it is opened."""
    gone = tmp_path / "gone" / "store.sqlite"
    for opened in (integrity.reading, integrity.writing):
        with pytest.raises(StoreError, match=f"cannot open the store {gone}"), opened(gone):
            pytest.fail("it was opened")
    with pytest.raises(StoreError, match=f"cannot open the store {gone}"):
        integrity.schema(gone)
    assert integrity.flaw(gone) == "unable to open database file"
    assert not integrity.has_schema(gone, 1)
