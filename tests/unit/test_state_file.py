"""The small files of the state directory: whatever its owner puts there, root's commands are neither held up nor led
astray."""

from __future__ import annotations

import json
import os
import socket
import stat
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest

from appliance.config import applied, state_file
from appliance.domain.errors import HostError
from appliance.network import standing_note
from appliance.network.admission import choice
from appliance.network.firewall import own_table
from appliance.network.firewall.conntrack_size import ConntrackSizes
from appliance.network.firewall.sysctls import Forwarding
from appliance.store import contended
from appliance.store.server_keys import ServerKeys
from appliance.store.state_dir import StateDir

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

BOOT = "00000000-0000-0000-0000-000000000000"


def fifo(path: Path) -> None:
    os.mkfifo(path)


def link(path: Path) -> None:
    target = path.with_name("another's")
    target.write_text(json.dumps({"secret": "1"}), encoding="utf-8")
    path.symlink_to(target)


def loop(path: Path) -> None:
    path.symlink_to(path)


def unix_socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as made:
        made.bind(str(path))


def endless(path: Path) -> None:
    path.symlink_to("/dev/zero")


def huge(path: Path) -> None:
    with path.open("wb") as file:
        file.truncate(1 << 40)


def odd_bytes(path: Path) -> None:
    path.write_bytes(b"\xff\xfe{")


def deep(path: Path) -> None:
    path.write_text("[" * 200_000, encoding="utf-8")


PUT_THERE = (fifo, link, loop, unix_socket, endless, huge, odd_bytes, deep, lambda path: path.mkdir())


@pytest.mark.parametrize("put", PUT_THERE)
def test_what_is_none_of_ours_is_refused_at_once(tmp_path: Path, put: Callable[[Path], object]) -> None:
    """A link, a FIFO, a socket, a folder, an endless or an odd file: an error, and no wait."""
    put(tmp_path / "note.json")
    with pytest.raises((OSError, ValueError)):
        state_file.read_json(tmp_path / "note.json")


@pytest.mark.parametrize("put", PUT_THERE)
def test_every_note_of_the_state_directory(tmp_path: Path, put: Callable[[Path], object]) -> None:
    """Each reader takes such a file for none."""
    state = StateDir(tmp_path)
    names = ("sysctls", "conntrack", "nftables", "admission", "contended", "running", "addresses", "interface_keys")
    for name in names:
        (tmp_path / "another's").unlink(missing_ok=True)
        put(getattr(state, name))
    assert applied.read(state.running) is None
    assert standing_note.read(state.addresses) is None
    assert contended.read(state.contended) == {}
    assert choice.noted(state.admission) is None
    assert own_table.read(state.nftables) is None
    assert ServerKeys(state, BOOT).public_keys() == frozenset()
    assert not Forwarding(tmp_path, state.sysctls, BOOT).has_record
    assert not Forwarding(tmp_path, state.sysctls, BOOT).found
    assert ConntrackSizes(tmp_path, tmp_path / "nothing", BOOT).restore() == []


@pytest.mark.parametrize("values", [[1], "1", {"net/ipv4/ip_forward": "1\n\u20ac"}, {"net/ipv4/ip_forward": ["1"]}, 7])
def test_values_of_another_kind_are_not_restored(tmp_path: Path, values: object) -> None:
    """A record whose values are no numbers: nothing is written, and nothing fails."""
    switch = tmp_path / "net" / "ipv4" / "ip_forward"
    switch.parent.mkdir(parents=True)
    switch.write_text("0\n", encoding="ascii")
    record = tmp_path / "sysctls.json"
    record.write_text(json.dumps({"boot_id": BOOT, "values": values, "indices": {}}), encoding="utf-8")
    assert Forwarding(tmp_path, record, BOOT).restore() == []
    record.write_text(json.dumps({"boot_id": BOOT, "values": values}), encoding="utf-8")
    assert ConntrackSizes(tmp_path, record, BOOT).restore() == []
    assert switch.read_text(encoding="ascii") == "0\n"


def test_no_link_is_written_through(tmp_path: Path) -> None:
    """A link where the file goes to is replaced: its target stays as it is. Nothing else is left."""
    target, note = tmp_path / "target", tmp_path / "note.json"
    target.write_text("root's", encoding="utf-8")
    note.symlink_to(target)
    state_file.write_json(note, {"a": 1}, on_disk=True)
    assert target.read_text(encoding="utf-8") == "root's"
    assert state_file.read_json(note) == {"a": 1}
    assert not note.is_symlink()
    assert stat.S_IMODE(note.stat().st_mode) == 0o600
    assert sorted(path.name for path in tmp_path.iterdir()) == ["note.json", "target"]


def test_two_that_write_at_the_same_time(tmp_path: Path) -> None:
    """A command and the server: neither fails, and whoever reads finds the whole of what one of them wrote."""
    note = tmp_path / "note.json"
    values = [[each] * 1000 for each in range(2)]
    state_file.write_json(note, values[0])
    with ThreadPoolExecutor(2) as writers:
        writing = [writers.submit(lambda of=of: [state_file.write_json(note, of) for _ in range(40)]) for of in values]
        while not all(each.done() for each in writing):
            assert state_file.read_json(note) in values
        for each in writing:
            each.result()
    assert [path.name for path in tmp_path.iterdir()] == ["note.json"]


def test_what_a_killed_process_has_left_is_removed(tmp_path: Path) -> None:
    """A minute later, when the file is next written; what is being written by another process stays."""
    for name in ("note.0123456789abcdef.new", "note.new", "note.fedcba9876543210.new", "other.new"):
        (tmp_path / name).write_text("{", encoding="utf-8")
        if "fed" not in name:
            os.utime(tmp_path / name, (1, 1))
    state_file.write_json(tmp_path / "note.json", {})
    assert sorted(path.name for path in tmp_path.iterdir()) == ["note.fedcba9876543210.new", "note.json", "other.new"]


def test_what_cannot_be_written_leaves_nothing(tmp_path: Path) -> None:
    """The file that was there stays."""
    state_file.write_json(tmp_path / "note.json", 1)
    with pytest.raises(TypeError):
        state_file.write_json(tmp_path / "note.json", object())
    assert [path.name for path in tmp_path.iterdir()] == ["note.json"]
    assert state_file.read_json(tmp_path / "note.json") == 1


def test_a_key_that_is_a_fifo_holds_no_command_up(tmp_path: Path) -> None:
    """The server key may be a link, to where the operator keeps it; a FIFO is an error that names it."""
    state = StateDir(tmp_path)
    (tmp_path / "elsewhere").write_text("A" * 43 + "=\n", encoding="ascii")
    state.key.symlink_to(tmp_path / "elsewhere")
    assert state.read_key() == bytes(32)
    state.key.unlink()
    os.mkfifo(state.key)
    with pytest.raises(HostError, match=r"server\.key: not a regular file"):
        state.read_key()


def test_a_folder_in_a_records_place_is_left(tmp_path: Path) -> None:
    """It holds nothing that is ours, and keeps nobody from going on."""
    file = tmp_path / "record.json"
    state_file.forget(file)
    file.touch()
    state_file.forget(file)
    assert not file.exists()
    file.mkdir()
    state_file.forget(file)
