"""`backup` and `restore` killed before each call that changes a file: nothing is lost, the next run goes on."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections import Counter
from typing import TYPE_CHECKING

import pytest

from appliance.fleet.membership.identity import FleetFolder
from tests.faults.powercut import cannot_record
from tests.support.cli.backups import content, rows
from tests.support.cli.command_line import PROJECT, CommandLine
from tests.support.cli.fleet_host_alone import enter

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

CHANGES = ("mkdir", "rename", "link", "linkat", "unlink", "unlinkat", "rmdir", "fsync", "fdatasync")
MOST = 100  # calls of one kind that a command makes; they are far fewer

pytestmark = pytest.mark.timeout(900)


@pytest.fixture
def used(tmp_path: Path) -> CommandLine:
    """A store with an account; where strace can kill."""
    reason = cannot_record()
    if reason is not None:
        pytest.skip(reason)
    wga = CommandLine(tmp_path)
    wga.do("init")
    wga.do("account", "create", "ada")
    return wga


def killed(wga: CommandLine, call: str, number: int, arguments: tuple[str, ...]) -> bool:
    """Whether it was, or the rm(1) that it runs, before the call of that number; else it has done its work."""
    done = subprocess.run(
        [
            *("strace", "-f", "-o", "/dev/null", "-e", f"trace={call}"),
            *("-e", f"inject={call}:signal=SIGKILL:when={number}"),
            *(sys.executable, "-m", "appliance", "--config", str(wga.config), *arguments),
        ],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
        cwd=PROJECT,
        env=os.environ | {"PYTHONDONTWRITEBYTECODE": "1"},
    )
    said = done.returncode == 1 and "error: rm -rf " in done.stderr
    assert said or done.returncode in (0, -signal.SIGKILL, 128 + signal.SIGKILL), done
    return done.returncode != 0


def kills(wga: CommandLine, arguments: tuple[str, ...], again: Callable[[], object]) -> Iterator[str]:
    """Kill at the first call of a kind, at the second, until the command gets done; `again` sets the scene for each."""
    for call in CHANGES:
        for number in range(1, MOST):
            again()
            if not killed(wga, call, number, arguments):
                break
            yield call
        else:
            pytest.fail(f"more than {MOST} {call}")


def files_of_fleet(wga: CommandLine) -> dict[str, bytes]:
    folder = wga.state.path / "fleet"
    return content(folder) if folder.exists() else {}


def test_a_killed_backup_leaves_the_old_or_the_new_one(
    used: CommandLine, tmp_path: Path, show: Callable[[str], None]
) -> None:
    """The earlier backup is there as it was, or the new one, whole; the next one leaves nothing of what was killed."""
    folder = tmp_path / "backups"
    folder.mkdir()
    file = folder / "b"
    used.do("backup", str(file))
    first = file.read_bytes()
    used.do("account", "create", "bob")
    saved = rows(used.state.store)
    many: Counter[str] = Counter()
    for call in kills(used, ("backup", str(file)), lambda: file.write_bytes(first)):
        many[call] += 1
        if file.read_bytes() != first:
            used.do("restore", str(file))
            assert rows(used.state.store) == saved
        used.do("backup", str(file))
        assert [path.name for path in folder.iterdir()] == ["b"]
    show(f"{many.total()} kills: {dict(many)}")
    assert many["rename"] == 1
    assert many["fsync"] == 2


@pytest.mark.parametrize("in_fleet", [False, pytest.param(True, marks=pytest.mark.long)], ids=["alone", "in a fleet"])
def test_a_killed_restore_is_old_or_new_or_says_so(
    used: CommandLine, tmp_path: Path, show: Callable[[str], None], in_fleet: bool
) -> None:
    """All is old, or all is new, or commands say that it was cut short. Running it again restores; the old is kept.

    Of a fleet, the host has only its own keys left, which are others, when it is restored.
    """
    file = tmp_path / "b"
    if in_fleet:
        enter(used)
        used.write(lambda db: db.execute("UPDATE fleet_reporting SET restored = 1"))  # as a restore does
    used.do("backup", str(file))
    new = rows(used.state.store), used.state.key.read_bytes(), used.config.read_bytes()
    of_fleet = files_of_fleet(used)
    FleetFolder(used.state.path).leave()
    used.do("account", "create", "later")
    used.state.key.unlink()
    used.do("init")
    used.config.write_bytes(new[2] + b"[metrics]\nlisten = ''\n")
    scene = tmp_path / "scene"
    shutil.copytree(used.state.path, scene / "state")
    shutil.copy(used.config, scene / "config.toml")
    old = rows(used.state.store), used.state.key.read_bytes(), used.config.read_bytes()
    old_files, left_of_fleet = content(scene / "state"), files_of_fleet(used)

    def again() -> None:
        shutil.rmtree(used.state.path)
        for kept in used.config.parent.glob("config.toml.before-*"):
            kept.unlink()
        shutil.copytree(scene / "state", used.state.path)
        shutil.copy(scene / "config.toml", used.config)

    names_kept = ["store.sqlite", "server.key", *(f"fleet/{name}" for name in left_of_fleet)]
    mixed = 0
    many: Counter[str] = Counter()
    for call in kills(used, ("restore", str(file)), again):
        many[call] += 1
        if used.state.unfinished_restore.exists():
            mixed += 1
            assert "was cut short; run it again" in used("account", "list").err
        else:
            found = rows(used.state.store), used.state.key.read_bytes(), used.config.read_bytes()
            assert found in (old, new)
            assert files_of_fleet(used) == (of_fleet if found == new else left_of_fleet)
        used.do("restore", str(file))
        assert (rows(used.state.store), used.state.key.read_bytes(), used.config.read_bytes()) == new
        assert files_of_fleet(used) == of_fleet
        assert not used.state.unfinished_restore.exists()
        assert not [path for path in used.state.path.iterdir() if path.name == "restore.unpacking"]
        assert not [path for path in tmp_path.iterdir() if path.name.endswith(".restoring")]
        kept = [content(folder) for folder in used.state.path.glob("before-restore-*")]
        assert {name: old_files[name] for name in names_kept} in kept
    show(f"{many.total()} kills, {mixed} of them while files were put in place: {dict(many)}")
    assert many["rename"] == 3 + len(of_fleet)
    assert mixed > 5
