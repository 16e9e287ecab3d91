"""The steps of an installation: each does what is missing, once, and takes it back."""

from __future__ import annotations

import errno
import json
import os
import pwd
import shutil
import stat
import subprocess
from pathlib import PosixPath
from typing import TYPE_CHECKING

import pytest

from appliance.domain.errors import HostError
from appliance.ops.install.boot_forwarding import NoBootForwarding
from appliance.ops.install.file_steps import Folder, Manual, NoFile, ProgramFiles, Symlink, TextFile
from appliance.ops.install.installing import prove
from appliance.ops.install.record import Record
from appliance.ops.install.step import apply_steps, remove_steps

if TYPE_CHECKING:
    from pathlib import Path

    from appliance.ops.install.step import Step

PROGRAM = "wg-appliance"


@pytest.fixture
def unpacked(tmp_path: Path) -> Path:
    """What the one file unpacks: for its owner alone."""
    source = tmp_path / "unpacked"
    (source / "lib").mkdir(parents=True, mode=0o700)
    (source / PROGRAM).write_bytes(b"program")
    (source / PROGRAM).chmod(0o700)
    (source / "lib" / "data").write_bytes(b"data")
    (source / "lib" / "data").chmod(0o600)
    (source / "lib" / "link").symlink_to("data")
    return source


def steps_for(folder: Path, unpacked: Path) -> list[Step]:
    return [
        TextFile(folder / "etc" / "unit.service", "[Unit]\n"),
        TextFile(folder / "etc" / "x.service.d" / "drop-in.conf", "[Service]\n"),
        ProgramFiles(unpacked, folder / "1.0.0", PROGRAM),
        Symlink(folder / "current", folder / "1.0.0"),
    ]


def test_a_second_run_of_the_steps_does_nothing(tmp_path: Path, unpacked: Path) -> None:
    """The first time each step does something and says so; the second time none does."""
    folder, said = tmp_path / "host", list[str]()
    folder.mkdir()
    steps = steps_for(folder, unpacked)
    assert apply_steps(steps, said.append) == {step.what for step in steps}
    assert said[0] == f"{folder}/etc/unit.service: written"
    assert said[-1] == f"{folder}/current: linked to {folder}/1.0.0"
    assert apply_steps(steps, said.append) == set()


def test_a_rehearsal_says_every_step_and_does_none(tmp_path: Path, unpacked: Path) -> None:
    """Rehearsed, every step says what would be done, and does nothing."""
    folder, said = tmp_path / "host", list[str]()
    folder.mkdir()
    apply_steps(steps_for(folder, unpacked), said.append, dry_run=True)
    assert said[0] == f"{folder}/etc/unit.service: to be written"
    assert list(folder.iterdir()) == []


def test_taking_the_steps_back_leaves_nothing_of_ours(tmp_path: Path, unpacked: Path) -> None:
    """Taken back, nothing is left but the folders that were there or may be others'; a second time there is nothing."""
    folder, said = tmp_path / "host", list[str]()
    folder.mkdir()
    steps = steps_for(folder, unpacked)
    apply_steps(steps, lambda _: None)
    remove_steps(steps, said.append)
    assert said[0] == f"{folder}/current: removed"
    assert [path.name for path in folder.rglob("*")] == ["etc"]
    said.clear()
    remove_steps(steps, said.append)
    assert said == []


def test_program_files_are_for_everybody(tmp_path: Path, unpacked: Path) -> None:
    """The service's user runs and reads what only root could in the unpacked one; links stay links."""
    target = tmp_path / "1.0.0"
    ProgramFiles(unpacked, target, PROGRAM).apply()
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in (target, *target.rglob("*"))}
    assert modes == {"1.0.0": 0o755, PROGRAM: 0o755, "lib": 0o755, "data": 0o644, "link": 0o644}
    assert (target / "lib" / "link").is_symlink()


def test_a_disk_that_is_full(tmp_path: Path, unpacked: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A program that does not fit is one short line, and takes no room: the disk is the running service's too."""

    def copyfile(_: Path, to: Path) -> None:
        to.write_bytes(b"a part")
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(shutil, "copyfile", copyfile)
    step = ProgramFiles(unpacked, tmp_path / "1.0.0", PROGRAM)
    with pytest.raises(HostError, match=r"^cannot unpack to \S+/1\.0\.0: No space left on device$"):
        step.apply()
    assert list(tmp_path.iterdir()) == [unpacked]


def test_a_folder_of_another_user(tmp_path: Path) -> None:
    """A state directory that is not the service's user's, such as /srv by a slip, is not removed with what is in it."""
    (tmp_path / "state" / "others").mkdir(parents=True)
    own = pwd.getpwuid(os.getuid()).pw_name
    assert not Folder(tmp_path / "state", 0o700, "wg-appliance", "wg-appliance").remove()
    assert (tmp_path / "state" / "others").exists()
    assert Folder(tmp_path / "state", 0o700, own, own).remove()
    assert not (tmp_path / "state").exists()


def test_another_build_of_the_same_version(tmp_path: Path, unpacked: Path) -> None:
    """It takes the place of the first; what an unpacking that was cut short left does not stand in the way."""
    step = ProgramFiles(unpacked, tmp_path / "1.0.0", PROGRAM)
    step.apply()
    assert step.change() is None
    (unpacked / PROGRAM).write_bytes(b"another")
    (tmp_path / ".1.0.0.new").mkdir()
    (tmp_path / ".1.0.0.new" / "half").touch()
    assert step.change() is not None
    step.apply()
    assert (tmp_path / "1.0.0" / PROGRAM).read_bytes() == b"another"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["1.0.0", "unpacked"]


def test_the_operators_file_stays(tmp_path: Path) -> None:
    """A file to keep is written where there is none, and left alone whatever it holds."""
    step = TextFile(tmp_path / "config.toml", "ours\n", mode=0o640, keep=True)
    step.apply()
    assert stat.S_IMODE(step.path.stat().st_mode) == 0o640
    step.path.write_text("theirs\n", encoding="utf-8")
    assert step.change() is None


def test_a_file_of_ours_is_brought_up_to_date(tmp_path: Path) -> None:
    """A file that is not to be kept gets its text again."""
    step = TextFile(tmp_path / "unit.service", "new\n")
    step.path.write_text("old\n", encoding="utf-8")
    assert step.change() == "brought up to date"
    step.apply()
    assert step.path.read_text(encoding="utf-8") == "new\n"


def test_man_pages_replace_another_versions(tmp_path: Path) -> None:
    """Written once; another version's take their place, those that it does not have go, and others' stay."""
    record = Record(tmp_path / "lib" / "installed.json")
    folder = tmp_path / "share" / "man" / "man1"
    old = Manual(folder, PROGRAM, {f"{PROGRAM}.1": "old", f"{PROGRAM}-gone.1": "gone"}, record)
    new = Manual(folder, PROGRAM, {f"{PROGRAM}.1": "new", f"{PROGRAM}-come.1": "come"}, record)
    assert old.change() == "written"
    old.apply()
    (folder / f"{PROGRAM}s.1").write_text("another's", encoding="utf-8")
    assert (old.change(), new.change()) == (None, "brought up to date")
    new.apply()
    assert new.change() is None
    assert {path.name: path.read_text(encoding="utf-8") for path in folder.iterdir()} == {
        f"{PROGRAM}.1": "new",
        f"{PROGRAM}-come.1": "come",
        f"{PROGRAM}s.1": "another's",
    }
    none = Manual(folder, PROGRAM, {}, record)
    assert none.change() == "removed"
    none.apply()
    assert none.change() is None
    assert [path.name for path in folder.iterdir()] == [f"{PROGRAM}s.1"]


def test_man_pages_can_be_read_whatever_the_umask(tmp_path: Path) -> None:
    """The folders that are made for them are for all: other packages may put theirs there too."""
    step = Manual(
        tmp_path / "share" / "man" / "man1", PROGRAM, {f"{PROGRAM}.1": "page"}, Record(tmp_path / "record.json")
    )
    before = os.umask(0o077)
    try:
        step.apply()
    finally:
        os.umask(before)
    made = [step.folder, step.folder.parent, step.folder.parent.parent, step.folder / f"{PROGRAM}.1"]
    assert [path.stat().st_mode & 0o777 for path in made] == [0o755, 0o755, 0o755, 0o644]


def test_man_pages_are_taken_back(tmp_path: Path) -> None:
    """With the folders that were made for them, unless others have come to use those; one that was there stays."""
    record = Record(tmp_path / "lib" / "installed.json")
    (tmp_path / "share").mkdir()
    step = Manual(tmp_path / "share" / "man" / "man1", PROGRAM, {f"{PROGRAM}.1": "page"}, record)
    step.apply()
    (step.folder / f".{PROGRAM}.1.new").touch()  # of a kill
    assert step.remove()
    assert list((tmp_path / "share").iterdir()) == []
    assert not step.remove()
    step.apply()
    (tmp_path / "share" / "man" / "man8").mkdir()
    assert step.remove()
    assert [path.name for path in (tmp_path / "share" / "man").iterdir()] == ["man8"]


def test_what_is_not_for_this_host(tmp_path: Path) -> None:
    """A file that an earlier install has left is removed; where there is none, nothing is to be done."""
    step, said = NoFile(tmp_path / "drop-in.conf"), list[str]()
    apply_steps([step], said.append, dry_run=True)
    assert said == [f"{step.path}: absent, as it should be"]
    step.path.touch()
    assert step.change() == "removed"
    step.apply()
    assert step.change() is None


def test_the_record_keeps_what_was_found_first(tmp_path: Path) -> None:
    """Packages add up."""
    record = Record(tmp_path / "lib" / "installed.json")
    assert (record.sysctls, record.packages) == ({}, [])
    record.note_packages(["nftables"])
    record.note_packages(["wireguard-go"])
    assert record.packages == ["nftables", "wireguard-go"]


SWITCH = "proc/sys/net/ipv4/ip_forward"


@pytest.mark.parametrize(
    ("before", "files", "said", "value"),
    [
        ("0", {}, "set to 0", "0"),
        ("1", {}, "stays 1: it was on before the installation", "1"),
        (None, {}, "stays 1: it was on before the installation", "1"),
        ("0", {"etc/sysctl.d/router.conf": "net.ipv4.ip_forward=1\n"}, "router.conf sets it", "1"),
        ("0", {"etc/sysctl.conf": "# net.ipv4.ip_forward=1\nnet/ipv4/ip_forward = 1\n"}, "sysctl.conf sets it", "1"),
        ("0", {"etc/sysctl.conf": "#net.ipv4.ip_forward=1\n"}, "set to 0", "0"),
    ],
)
def test_the_switch_of_earlier_versions_is_given_back(
    tmp_path: Path, before: str | None, files: dict[str, str], said: str, value: str
) -> None:
    """The file goes, and the host is no router any more, unless it was one before or something else sets it."""
    paths = {SWITCH: "1\n", "etc/sysctl.d/60-wg-appliance.conf": "net.ipv4.ip_forward = 1\n"} | files
    for name, text in paths.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text, encoding="utf-8")
    noted = {} if before is None else {"sysctls": {"net/ipv4/ip_forward": before}}
    (tmp_path / "record.json").write_text(json.dumps(noted), encoding="utf-8")
    file = tmp_path / "etc/sysctl.d/60-wg-appliance.conf"
    step = NoBootForwarding(file, Record(tmp_path / "record.json"), tmp_path, lambda: '{"nftables": []}')
    assert said in str(step.change())
    step.apply()
    assert not file.exists()
    assert (tmp_path / SWITCH).read_text(encoding="ascii").strip() == value
    assert (step.change(), step.remove()) == (None, False)


FAILS_WHEN_PACKED = """#!/bin/sh
echo "session: ok"
echo "Traceback (most recent call last):" >&2
echo "KeyError: 'peer'" >&2
echo "[PYI-7:ERROR] Failed to execute script '__main__' due to unhandled exception!" >&2
exit 1
"""


def test_a_failed_self_test_is_shown_whole(tmp_path: Path) -> None:
    """What the self-test said before it failed is reported, not the last line alone; the error names the exception."""
    command, said = tmp_path / "packed", []
    command.write_text(FAILS_WHEN_PACKED, encoding="utf-8")
    command.chmod(0o755)
    with pytest.raises(HostError, match=r"failed: KeyError: 'peer'$"):
        prove(command, said.append)
    assert said[:3] == [
        "selftest: session: ok",
        "selftest: Traceback (most recent call last):",
        "selftest: KeyError: 'peer'",
    ]


class ReplacedMeanwhile(PosixPath):
    """A folder in another user's, who puts a link to one of root's in its place as soon as it is made."""

    def mkdir(self, mode: int = 0o777, parents: bool = False, exist_ok: bool = False) -> None:
        super().mkdir(mode, parents, exist_ok)
        self.rmdir()
        self.symlink_to(self.with_name("roots"))


def test_a_folder_that_is_replaced_by_a_link_is_not_given_away(tmp_path: Path) -> None:
    """Neither owner nor mode of what the link leads to change."""
    roots = tmp_path / "roots"
    roots.mkdir(mode=0o755)
    user = pwd.getpwuid(os.getuid()).pw_name
    with pytest.raises(OSError, match="state"):
        Folder(ReplacedMeanwhile(tmp_path / "state"), 0o700, user, user).apply()
    assert stat.S_IMODE(roots.stat().st_mode) == 0o755


def test_a_deep_folder_is_removed(tmp_path: Path) -> None:
    """Deeper than Python's own functions follow."""
    user, place = pwd.getpwuid(os.getuid()).pw_name, tmp_path / "state"
    place.mkdir()
    inner = os.open(place, os.O_DIRECTORY)
    for _ in range(1200):
        os.mkdir("d", dir_fd=inner)
        outer, inner = inner, os.open("d", os.O_DIRECTORY, dir_fd=inner)
        os.close(outer)
    os.close(inner)
    try:
        assert Folder(place, 0o700, user, user).remove()
        assert not place.exists()
    finally:  # pytest itself cannot remove it
        subprocess.run(["rm", "-rf", place], check=True, timeout=60)
