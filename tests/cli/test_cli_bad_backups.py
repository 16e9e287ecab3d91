"""Files that wg-appliance restore refuses, and what it says of them."""

from __future__ import annotations

import hashlib
import io
import json
import os
import sqlite3
import tarfile
from contextlib import closing
from typing import TYPE_CHECKING, Any

import pytest

from appliance.store.migration import APPLICATION_ID, migrations
from tests.support.cli.backups import content, members, refused, write_members

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.support.cli.command_line import CommandLine

NEWEST = migrations()[-1][0]
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can mount a small disk")


def cut(many: int) -> Callable[[Path], None]:
    return replaced(lambda whole: whole[:many])


def replaced(change: Callable[[bytes], bytes]) -> Callable[[Path], None]:
    def replace(file: Path) -> None:
        file.write_bytes(change(file.read_bytes()))

    return replace


def flipped(name: str) -> Callable[[Path], None]:
    """One bit in the middle of a member is another."""

    def flip(file: Path) -> None:
        data = bytearray(file.read_bytes())
        at = data.index(members(file)[name]) + len(members(file)[name]) // 2
        data[at] ^= 1
        file.write_bytes(data)

    return flip


def changed(**changes: Any) -> Callable[[Path], None]:
    """Another manifest."""

    def change(file: Path) -> None:
        found = members(file)
        found["manifest.json"] = json.dumps(json.loads(found["manifest.json"]) | changes).encode()
        write_members(file, found)

    return change


def repacked(**contents: bytes) -> Callable[[Path], None]:
    """Other members, of which the manifest is true."""

    def repack(file: Path) -> None:
        found = members(file)
        manifest = json.loads(found["manifest.json"])
        for name, data in contents.items():
            found[name.replace("_", ".")] = data
            manifest["members"][name.replace("_", ".")] = {
                "size": len(data),
                "sha256": hashlib.sha256(data).hexdigest(),
            }
        found["manifest.json"] = json.dumps(manifest).encode()
        write_members(file, found)

    return repack


def store_with(pragmas: str, tmp: Path) -> bytes:
    tmp.unlink(missing_ok=True)
    with closing(sqlite3.connect(tmp)) as db:
        db.executescript(f"CREATE TABLE t (x); {pragmas};")
    return tmp.read_bytes()


def with_store(pragmas: str) -> Callable[[Path], None]:
    return lambda file: repacked(store_sqlite=store_with(pragmas, file.with_name("other.sqlite")))(file)


def header(member: str, /, **fields: Any) -> Callable[[Path], None]:
    """A member's tar header says something else."""

    def change(file: Path) -> None:
        found = members(file)
        with tarfile.open(file, "w", format=tarfile.GNU_FORMAT) as tar:
            for each, data in found.items():
                info = tarfile.TarInfo(each)
                info.size = len(data)
                for field, value in fields.items() if each == member else ():
                    setattr(info, field, value)
                tar.addfile(info, io.BytesIO(data))

    return change


def gigantic(file: Path) -> None:
    """A configuration that claims more bytes than anybody should read."""
    data = bytearray(file.read_bytes())
    info = tarfile.TarInfo("config.toml")
    info.size = 1 << 40
    at = data.index(b"config.toml\0")
    data[at : at + 512] = info.tobuf(tarfile.GNU_FORMAT)
    file.write_bytes(data)


def a_folder(file: Path) -> None:
    file.unlink()
    file.mkdir()


BAD = {
    "missing": (lambda file: file.unlink(), "No such file"),
    "a folder": (a_folder, "Is a directory"),
    "empty": (cut(0), "is no backup"),
    "text": (replaced(lambda _: b"hello\n" * 1000), "is no backup"),
    "another tar": (lambda file: write_members(file, {"etc/passwd": b"root"}), "is no backup"),
    "a store": (replaced(lambda whole: whole[whole.index(b"SQLite format 3") :]), "is no backup"),
    "cut in the first header": (cut(300), "is damaged: it ends too soon"),
    "cut in the manifest": (cut(700), "is damaged: it ends too soon"),
    "cut after the manifest": (
        replaced(lambda whole: whole[: whole.index(b"config.toml\0")]),
        "is damaged: it ends too soon",
    ),
    "cut in the configuration": (
        replaced(lambda whole: whole[: whole.index(b"[node]")]),
        "is damaged: it ends too soon",
    ),
    "cut in the store": (cut(50_000), "is damaged: it ends too soon"),
    "cut before its end": (replaced(lambda whole: whole.rstrip(b"\0")), "is damaged: it"),
    "a bit in the manifest": (changed(members={}), "is damaged: manifest.json names other members"),
    "a bit in the configuration": (flipped("config.toml"), "is damaged: config.toml is not what was saved"),
    "a bit in the key": (flipped("server.key"), "is damaged: server.key is not what was saved"),
    "a bit in the store": (flipped("store.sqlite"), "is damaged: store.sqlite is not what was saved"),
    "no manifest in it": (lambda file: write_members(file, {"manifest.json": b"{}"}), "is damaged: manifest.json: "),
    "a manifest that is no text": (lambda file: write_members(file, {"manifest.json": b"\xff"}), "is damaged: man"),
    "a newer schema": (changed(schema=NEWEST + 1, appliance="99.1"), "made by wg-appliance 99.1, which is newer"),
    "a newer format": (changed(format=3, appliance="99.2", members=7), "made by wg-appliance 99.2, which is newer"),
    "a newer schema than it says": (
        with_store(f"PRAGMA user_version = {NEWEST + 1}; PRAGMA application_id = {APPLICATION_ID}"),
        "which is newer",
    ),
    "another program's store": (with_store("PRAGMA user_version = 1"), "a database of another program"),
    "a store that is none": (repacked(store_sqlite=b"nonsense" * 1000), "is damaged: its store: file is not a data"),
    "a key that is none": (repacked(server_key=b"nonsense\n"), "is damaged: server.key holds no key"),
    "a configuration that is refused": (repacked(config_toml=b"[node]\nnmae = 1\n"), "config.toml: node.nmae = 1"),
    "a configuration that is no text": (repacked(config_toml=b"\xff\xfe"), "config.toml: not UTF-8 text"),
    "a link": (header("server.key", type=tarfile.SYMTYPE, linkname="/etc/shadow"), "is damaged: server.key is mis"),
    "another name": (header("server.key", name="../server.key"), "is damaged: server.key is missing"),
    "a sparse member": (header("store.sqlite", type=tarfile.GNUTYPE_SPARSE), "is damaged: store.sqlite is missing"),
    "extended headers": (header("config.toml", type=tarfile.XHDTYPE), "is damaged: config.toml is missing"),
    "a gigantic member": (gigantic, "is damaged: config.toml is missing"),
}


@pytest.mark.parametrize(("spoil", "finding"), BAD.values(), ids=BAD)
def test_a_bad_file_is_named_and_changes_nothing(
    used: CommandLine, file: Path, spoil: Callable[[Path], None], finding: str
) -> None:
    """One line that names the file and what is wrong with it; state and configuration are as they were."""
    spoil(file)
    before = content(used.state.path), used.config.read_bytes()
    line = refused(used, "restore", str(file))
    assert finding in line
    assert str(file) in line
    assert (content(used.state.path), used.config.read_bytes()) == before


def test_a_truncated_backup_is_refused(used: CommandLine, file: Path) -> None:
    """Wherever a file ends too soon, it is refused; a whole one with its padding cut off is whole."""
    whole = file.read_bytes()
    end = len(whole.rstrip(b"\0"))
    before = content(used.state.path)
    for many in range(0, end, 4099):
        file.write_bytes(whole[:many])
        refused(used, "restore", str(file))
    assert content(used.state.path) == before
