"""Root on a store that belongs to the service's user: nothing it leaves may lock the service out."""

from __future__ import annotations

import os
import pwd
import shutil
import stat
import subprocess
import sys
import tempfile
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from appliance.ops.backup.create import drop_oldest, snapshot
from tests.support.cli.command_line import PROJECT, CommandLine, Done, python

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root can work on another user's files as that user")

NOBODY = pwd.getpwnam("nobody")


@pytest.fixture
def folder() -> Iterator[Path]:
    """Where another user may go: pytest's own folder is for its user alone."""
    path = Path(tempfile.mkdtemp(prefix="wga-owner-"))
    try:
        path.chmod(0o755)
        yield path
    finally:
        shutil.rmtree(path)


@pytest.fixture
def theirs(folder: Path) -> CommandLine:
    """An initialised state directory that belongs to nobody."""
    wga = CommandLine(folder)
    wga.do("init")
    for path in (wga.state.path, *wga.state.path.iterdir()):
        os.chown(path, NOBODY.pw_uid, NOBODY.pw_gid)
    return wga


def owners(folder: Path) -> set[tuple[int, int]]:
    return {(path.stat().st_uid, path.stat().st_gid) for path in (folder, *folder.iterdir())}


def test_no_file_of_roots_is_left(theirs: CommandLine) -> None:
    """After reads and writes by root every file is the owner's, and the owner can write to the store."""
    assert theirs.process("token", "create", "--account", "alice").status == 0
    assert theirs.process("node", "drain").status == 0
    assert owners(theirs.state.path) == {(NOBODY.pw_uid, NOBODY.pw_gid)}
    write = (
        "import os, sqlite3, sys; os.setgroups([]); os.setgid(int(sys.argv[2])); os.setuid(int(sys.argv[3]));"
        "sqlite3.connect(sys.argv[1], isolation_level=None).execute('UPDATE node SET drained = 0')"
    )
    used = python("-c", write, str(theirs.state.store), str(NOBODY.pw_gid), str(NOBODY.pw_uid))
    assert used.status == 0, used.err


def test_the_command_runs_as_the_owner(theirs: CommandLine) -> None:
    """uid, gid and groups are the owner's before the store is opened, in effect and for good."""
    script = (
        "import os, sys; from pathlib import Path; from appliance.cli import admin\n"
        "async def work(a): print(os.getresuid(), os.getresgid(), sorted(os.getgroups()))\n"
        "admin.run(Path(sys.argv[1]), work)"
    )
    done = python("-c", script, str(theirs.config))
    uid, gid = NOBODY.pw_uid, NOBODY.pw_gid
    groups = sorted(os.getgrouplist(NOBODY.pw_name, gid))
    assert done.out == f"{(uid,) * 3} {(gid,) * 3} {groups}\n", done.err


def test_root_acts_as_the_owner_for_a_while(theirs: CommandLine) -> None:
    """Inside, uid, gid and groups in effect are the owner's, and what is written is his; afterwards root's again."""
    script = (
        "import os, sys; from pathlib import Path; from appliance.store.file_owner import acting_as_owner\n"
        "store = Path(sys.argv[1])\n"
        "def who(): print(os.geteuid(), os.getegid(), sorted(os.getgroups()))\n"
        "who()\n"
        "with acting_as_owner(store.parent, lambda: None): who(); (store.parent / 'made').touch()\n"
        "who()"
    )
    done = python("-c", script, str(theirs.state.store))
    before, inside, after = done.out.splitlines()
    uid, gid = NOBODY.pw_uid, NOBODY.pw_gid
    assert inside == f"{uid} {gid} {sorted(os.getgrouplist(NOBODY.pw_name, gid))}", done.err
    assert after == before
    assert owners(theirs.state.path) == {(uid, gid)}


def test_an_owner_without_a_name_is_taken_on_too(theirs: CommandLine) -> None:
    """A uid that /etc/passwd does not know (a container's): its number and the file's group count."""
    for path in (theirs.state.path, *theirs.state.path.iterdir()):
        os.chown(path, 54321, 54322)
    assert theirs.process("token", "create", "--account", "alice").status == 0
    assert owners(theirs.state.path) == {(54321, 54322)}


def test_init_fills_another_users_folder_as_that_user(folder: Path) -> None:
    """A state directory made by a package for the service: store and key are the service's."""
    wga = CommandLine(folder)
    wga.state.create()
    os.chown(wga.state.path, NOBODY.pw_uid, NOBODY.pw_gid)
    done = wga.process("init")
    assert done.status == 0, done.err
    assert {path.name for path in wga.state.path.iterdir()} >= {"store.sqlite", "server.key"}
    assert owners(wga.state.path) == {(NOBODY.pw_uid, NOBODY.pw_gid)}


def test_backup_leaves_nothing_of_roots(theirs: CommandLine, tmp_path: Path) -> None:
    """Of a store that nobody has open, into root's folder: what SQLite makes beside the store is its owner's."""
    during = set()
    with snapshot(theirs.state.store):
        during = {path.name for path in theirs.state.path.iterdir()}
        assert owners(theirs.state.path) == {(NOBODY.pw_uid, NOBODY.pw_gid)}
    assert during >= {"store.sqlite-wal", "store.sqlite-shm"}
    before = os.getresuid(), os.getresgid(), os.getgroups()
    theirs.do("backup", str(tmp_path / "b"))
    assert (os.getresuid(), os.getresgid(), os.getgroups()) == before
    assert owners(theirs.state.path) == {(NOBODY.pw_uid, NOBODY.pw_gid)}
    found = (tmp_path / "b").stat()
    assert (found.st_uid, found.st_mode & 0o777) == (0, 0o600)


def test_a_backup_in_the_owners_folder(theirs: CommandLine, folder: Path) -> None:
    """As the timer's and an upgrade's: it is the owner's, who can put no link in the way; one of root's is root's."""
    (folder / "backups").mkdir(mode=0o700)
    os.chown(folder / "backups", NOBODY.pw_uid, NOBODY.pw_gid)
    done = theirs.process("backup", str(folder / "backups" / "b"))
    assert done.status == 0, done.err
    assert owners(folder / "backups") == {(NOBODY.pw_uid, NOBODY.pw_gid)}
    (folder / "roots").mkdir(mode=0o700)
    (folder / "backups" / ".wg-appliance-backup.partial").symlink_to(folder / "roots")
    done = theirs.process("backup", str(folder / "backups" / "b"))
    assert (done.status, list((folder / "roots").iterdir())) == (1, [])


def test_restore_takes_on_the_owner(theirs: CommandLine, tmp_path: Path) -> None:
    """What is restored is the service's, and what was there too; the configuration stays whose it was."""
    theirs.do("backup", str(tmp_path / "b"))
    theirs.config.write_text(theirs.config.read_text(encoding="utf-8") + "# mine\n", encoding="utf-8")
    os.chown(theirs.config, 0, NOBODY.pw_gid)
    theirs.config.chmod(0o640)
    assert theirs.process("restore", str(tmp_path / "b")).status == 0
    (kept,) = theirs.state.path.glob("before-restore-*")
    assert owners(theirs.state.path) | owners(kept) == {(NOBODY.pw_uid, NOBODY.pw_gid)}
    found = theirs.config.stat()
    assert (found.st_uid, found.st_gid, found.st_mode & 0o777) == (0, NOBODY.pw_gid, 0o640)


def test_a_link_in_place_of_the_store(theirs: CommandLine, folder: Path) -> None:
    """The service's user has made it, to a store that is root's: root's commands neither write nor read that."""
    (folder / "other").mkdir()
    other = CommandLine(folder / "other")
    other.do("init")
    other.state.path.chmod(0o700)
    before = other.state.store.read_bytes()
    theirs.state.store.unlink()
    theirs.state.store.symlink_to(other.state.store)
    os.chown(theirs.state.store, NOBODY.pw_uid, NOBODY.pw_gid, follow_symlinks=False)
    for words in (("token", "create", "--account", "alice"), ("account", "list"), ("backup", str(folder / "b"))):
        done = theirs.process(*words)
        assert (done.status, done.out, done.err.count("\n")) == (1, "", 1)
    assert other.state.store.read_bytes() == before
    assert not (folder / "b").exists()
    assert owners(other.state.path) == {(0, 0)}


def test_a_link_in_place_of_the_key(theirs: CommandLine, folder: Path) -> None:
    """The service's user has made it, to a key that is root's: that does not get into a backup."""
    secret = folder / "secret"
    secret.write_bytes(theirs.state.key.read_bytes())
    secret.chmod(0o600)
    theirs.state.key.unlink()
    theirs.state.key.symlink_to(secret)
    done = theirs.process("backup", str(folder / "b"))
    assert (done.status, done.err.count("\n")) == (1, 1)
    assert "Permission denied" in done.err
    assert not (folder / "b").exists()


def test_a_link_in_place_of_the_folder(theirs: CommandLine, folder: Path) -> None:
    """Root's own, to another disk: the folder's owner counts. The owner's: that owner."""
    elsewhere = folder / "elsewhere"
    theirs.state.path.rename(elsewhere)
    theirs.state.path.symlink_to(elsewhere)
    assert theirs.process("token", "create", "--account", "alice").status == 0
    assert owners(elsewhere) == {(NOBODY.pw_uid, NOBODY.pw_gid)}
    os.chown(theirs.state.path, 54321, 54322, follow_symlinks=False)
    assert theirs.process("token", "create", "--account", "bob").status == 1


@pytest.mark.parametrize(
    "words",
    [
        ("usage", "alice"),
        ("invoice", "alice", "--month", "2026-11"),
        ("session", "list"),
        ("device", "add", "alice/phone", "--qr"),
    ],
)
def test_a_program_that_the_owner_cannot_read(theirs: CommandLine, folder: Path, words: tuple[str, ...]) -> None:
    """Where a command needs more of it than was read as root: one line with the folder, and what to do."""
    assert theirs.process("account", "create", "alice", "--tier", "paid").status == 0
    (folder / "private").mkdir(mode=0o700)
    (folder / "private" / "appliance").symlink_to(PROJECT / "appliance")
    program = (
        f"import sys; sys.path.insert(0, {str(folder / 'private')!r}); sys.argv[0] = 'x'\n"
        "from appliance.cli import main; main()"
    )
    done = python("-c", program, "--config", str(theirs.config), *words)
    said = f"the user nobody, to whom the state directory belongs, cannot read {folder / 'private'}, a part of this"
    assert (done.status, done.err.count("\n")) == (1, 1), done.err
    assert done.err.startswith(f"wg-appliance: error: {said} program: chmod go+rX ")


def test_a_umask_that_allows_all(folder: Path) -> None:
    """No file or folder that `init` makes can be written to by others."""
    environ = {"WG_APPLIANCE_NODE_STATE_DIR": str(folder / "deep" / "state")}
    before = os.umask(0)
    try:
        done = python("-m", "appliance", "--config", str(folder / "etc" / "config.toml"), "init", environ=environ)
    finally:
        os.umask(before)
    assert done.status == 0, done.err
    made = [path for path in folder.rglob("*") if not path.is_symlink()]
    assert {path.name for path in made} >= {"config.toml", "deep", "state", "store.sqlite", "server.key"}
    assert [path for path in made if path.stat().st_mode & 0o022] == []


def test_a_user_without_access_is_told(folder: Path) -> None:
    """Not root, and not the owner: status 1, one line with the file and what to try."""
    wga = CommandLine(folder)
    wga.do("init")
    done = by_nobody(wga, "node status")
    assert (done.status, done.out) == (1, "")
    assert done.err == (
        f"wg-appliance: error: cannot work on the store {wga.state.store}: Permission denied; "
        "run as root, or as the user it belongs to\n"
    )


@pytest.mark.parametrize("command", ["node status", "serve", "doctor"])
def test_a_user_who_may_not_read_the_configuration_is_told(folder: Path, command: str) -> None:
    """As an installed one is kept from other users: what to try is not to edit it."""
    wga = CommandLine(folder)
    wga.do("init")
    wga.config.chmod(0o640)
    done = by_nobody(wga, command)
    assert done.status == 1
    assert f"{wga.config}: cannot read the configuration: Permission denied; run as root" in done.out + done.err
    if command == "doctor":
        assert done.out.endswith(" -> sudo wg-appliance doctor\n")


def by_nobody(wga: CommandLine, command: str) -> Done:
    """What the command does for another user."""
    script = (
        "import os, sys; from appliance.cli import admin, doctor, main, node, serve\n"
        "from appliance.store import database; admin.HostClock()\n"  # root's Python may be root's alone
        "os.setgroups([]); os.setgid(int(sys.argv.pop())); os.setuid(int(sys.argv.pop())); main()"
    )
    return python(
        *("-c", script, "--config", str(wga.config), *command.split()), str(NOBODY.pw_uid), str(NOBODY.pw_gid)
    )


SWAPPED = (
    *("store.sqlite", "store.sqlite-wal", "store.sqlite-shm", "server.key", "serve.lock", "restore.unfinished"),
    *("restore.unpacking", "running.json", "nftables.json", "admission.json", "sysctls.json"),
)


@contextmanager
def swapping(state: Path, victim: Path) -> Iterator[None]:
    """The owner of `state` swaps its files for links to the victim's, all the time."""
    owner = (str(NOBODY.pw_uid), str(NOBODY.pw_gid))
    command = [sys.executable, "-m", "tests.support.cli.swaps_files", str(state), str(victim), *owner, *SWAPPED]
    with subprocess.Popen(command, cwd=PROJECT, stdout=subprocess.PIPE) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == b"swapping\n"
            yield
            assert process.poll() is None
        finally:
            process.kill()


def tree(folder: Path) -> dict[str, tuple[int, int, int, bytes]]:
    """Every file below a folder: whose it is, its mode, what is in it."""
    found = {}
    for path in sorted(folder.rglob("*")):
        status = path.lstat()
        content = path.read_bytes() if stat.S_ISREG(status.st_mode) else b""
        found[str(path)] = (status.st_uid, status.st_gid, status.st_mode, content)
    return found


@pytest.mark.parametrize(
    "words",
    [
        ("restore", "{backup}"),
        pytest.param(("token", "create", "--account", "eve"), marks=pytest.mark.long),
        pytest.param(("backup", "{copy}"), marks=pytest.mark.long),
        pytest.param(("node", "drain"), marks=pytest.mark.long),
        pytest.param(("doctor",), marks=pytest.mark.long),
    ],
)
def test_links_that_come_while_root_works(theirs: CommandLine, folder: Path, words: tuple[str, ...]) -> None:
    """Whatever the owner swaps at whatever moment, nothing of root's changes or gets out, and no command hangs."""
    (folder / "victim").mkdir()
    victim = CommandLine(folder / "victim")
    victim.do("init")
    victim.do("account", "create", "mallory")
    for name in SWAPPED[7:]:
        (victim.state.path / name).write_text("{}", encoding="utf-8")
    (victim.state.path / "restore.unpacking").mkdir()
    (victim.state.path / "restore.unpacking" / "kept").write_text("kept", encoding="utf-8")
    for path in (victim.state.path, *victim.state.path.rglob("*")):
        path.chmod(0o700 if path.is_dir() else 0o600)
    backup, copy = folder / "backup.tar", folder / "copy.tar"
    theirs.do("backup", str(backup))
    before = tree(victim.state.path)
    with swapping(theirs.state.path, victim.state.path):
        for _ in range(4):
            done = theirs.process(*(word.format(backup=backup, copy=copy) for word in words))
            assert done.status in (0, 1), done
            assert "unexpected" not in done.err, done
            assert not copy.exists() or victim.state.key.read_bytes() not in copy.read_bytes()
    assert tree(victim.state.path) == before


def test_root_removes_nothing_behind_a_link_when_it_closes_the_store(theirs: CommandLine, folder: Path) -> None:
    """SQLite removes the log by its name, in a folder that has become a link meanwhile."""
    store, real = theirs.state.store, theirs.state.path / "real"
    real.mkdir()
    store.rename(real / store.name)
    store.symlink_to(real / store.name)
    for path in (real, store):
        os.chown(path, NOBODY.pw_uid, NOBODY.pw_gid, follow_symlinks=False)
    roots = folder / "roots"
    roots.mkdir(mode=0o700)
    log = roots / "store.sqlite-wal"
    log.touch()
    with snapshot(store):
        real.rename(theirs.state.path / "moved")
        real.symlink_to(roots)
    assert log.exists()


def test_the_oldest_backups_are_removed_as_the_owner(theirs: CommandLine, folder: Path) -> None:
    """The service's folder of backups has become a link to root's."""
    roots = folder / "roots"
    roots.mkdir(mode=0o700)
    for day in "12":
        (roots / f"wg-appliance-2000010{day}T000000Z.tar").touch()
    link = theirs.state.path / "backups"
    link.symlink_to(roots)
    os.chown(link, NOBODY.pw_uid, NOBODY.pw_gid, follow_symlinks=False)
    with suppress(PermissionError):
        drop_oldest(theirs.state, link, 1, link / "wg-appliance-20000103T000000Z.tar")
    assert len([*roots.iterdir()]) == 2


def test_a_devices_file_is_the_callers(theirs: CommandLine, folder: Path) -> None:
    """Root's where root asks for it, in a folder that the store's owner cannot write to; refused, it is not there."""
    with theirs.config.open("a", encoding="utf-8") as config:
        config.write('public_ip = "192.0.2.1"\n')
    place = folder / "roots"
    place.mkdir(mode=0o700)
    assert theirs.process("device", "add", "alice/phone", "--file", str(place / "phone.conf")).status == 0
    found = (place / "phone.conf").stat()
    assert (found.st_uid, stat.S_IMODE(found.st_mode)) == (os.geteuid(), 0o600)
    assert theirs.process("device", "add", "alice/phone", "--file", str(place / "again.conf")).status == 1
    assert [each.name for each in place.iterdir()] == ["phone.conf"]
    assert owners(theirs.state.path) == {(NOBODY.pw_uid, NOBODY.pw_gid)}
