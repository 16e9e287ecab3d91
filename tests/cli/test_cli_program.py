"""wg-appliance as a program: exit statuses, --help, init, faults of the host."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from appliance.cli import COMMANDS, output
from appliance.cli.unexpected import is_journal
from tests.support.cli.command_line import PROJECT, python

if TYPE_CHECKING:
    from tests.support.cli.command_line import CommandLine

HEAVY = (
    *("litestar", "aiosqlite", "pyroute2", "cryptography", "cffi", "_cffi_backend", "uvicorn", "throttled"),
    *("asyncio", "sqlite3", "jinja2"),
)


def test_help_imports_nothing_heavy() -> None:
    """--help lists every command without loading what only the server or the store needs."""
    done = python("-X", "importtime", "-m", "appliance", "--help")
    assert done.status == 0
    imported = {line.rpartition("|")[2].strip() for line in done.err.splitlines()}
    assert "click" in imported
    assert not [name for name in imported if name.partition(".")[0] in HEAVY]
    assert all(f"  {noun} " in done.out for noun in COMMANDS)


@pytest.mark.parametrize("noun", COMMANDS)
def test_every_command_has_help(bare: CommandLine, noun: str) -> None:
    """Each name in the table leads to a command, and its --help needs no store."""
    assert bare.do(noun, "--help").out.startswith(f"Usage: wg-appliance {noun} ")


def test_the_console_script_is_main() -> None:
    """The entry point of the package and `python -m appliance` are the same program."""
    assert python("-c", "import sys; sys.argv = ['x', '--version']; from appliance.cli import main; main()") == python(
        "-m", "appliance", "--version"
    )
    assert 'wg-appliance = "appliance.cli:main"' in (PROJECT / "pyproject.toml").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("arguments", "meant"), [(("tokens",), "token"), (("sesion", "list"), "session"), (("token", "creat"), "create")]
)
def test_a_misspelled_command_is_guessed(bare: CommandLine, arguments: tuple[str, ...], meant: str) -> None:
    """Status 2, and the command that was probably meant."""
    refused = bare(*arguments)
    assert refused.status == 2
    assert f"Did you mean '{meant}'?" in refused.err


def test_exit_statuses_of_a_real_process(wga: CommandLine) -> None:
    """0 done, 1 failed with one line and no traceback, 2 usage."""
    assert wga.process("account", "create", "alice").status == 0
    failed = wga.process("account", "create", "alice")
    assert (failed.status, failed.err.count("\n")) == (1, 1)
    assert failed.err.startswith("wg-appliance: error: ")
    assert wga.process("account", "create").status == 2


@pytest.mark.parametrize(
    "command", [("token", "create", "--account", "a"), ("session", "list"), ("node", "status"), ("account", "list")]
)
def test_admin_commands_make_no_store(bare: CommandLine, command: tuple[str, ...]) -> None:
    """With a wrong --config nothing is created; the line says which store is missing and what makes one."""
    refused = bare(*command)
    assert (refused.status, refused.out, refused.err.count("\n")) == (1, "", 1)
    assert f"no store at {bare.state.store}: run wg-appliance init or serve first" in refused.err
    assert not bare.state.path.exists()


def test_a_bad_config_is_one_line(bare: CommandLine) -> None:
    """An unknown key fails any command, naming it."""
    bare.config.write_text("[node]\nnmae = 1\n", encoding="utf-8")
    for command in (("account", "list"), ("serve",), ("init",)):
        refused = bare.process(*command)
        assert (refused.status, refused.err.count("\n")) == (1, 1 + (command == ("init",)))
        assert "node.nmae" in refused.err


def test_a_damaged_store_is_one_line(wga: CommandLine) -> None:
    """Bytes that are no database: no traceback, the file is named."""
    wga.state.store.write_bytes(b"nonsense" * 1000)
    refused = wga.process("account", "list")
    assert (refused.status, refused.err.count("\n")) == (1, 1)
    assert f"the store {wga.state.store} is damaged" in refused.err


def test_a_full_stdout_is_a_failure(wga: CommandLine) -> None:
    """A result that could not be written is not called done."""
    with Path("/dev/full").open("w", encoding="utf-8") as full:
        done = subprocess.run(
            [sys.executable, "-m", "appliance", "--config", wga.config, "node", "status"],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            cwd=PROJECT,
            check=False,
            timeout=60,
        )
    assert (done.returncode, done.stderr) == (
        1,
        "wg-appliance: error: cannot write the result: No space left on device\n",
    )


def test_a_terminal_without_the_letters_gets_escapes(wga: CommandLine) -> None:
    """A name that the locale's encoding lacks is printed escaped, not as a traceback."""
    wga.do("account", "create", "日本")
    done = python(
        *("-m", "appliance", "--config", str(wga.config), "account", "list"),
        environ={"PYTHONIOENCODING": "latin-1"},
    )
    assert (done.status, "\\u65e5\\u672c" in done.out) == (0, True)


def test_the_environment_names_the_config(wga: CommandLine) -> None:
    """WG_APPLIANCE_CONFIG does as --config does; --config comes first."""
    environ = {"WG_APPLIANCE_CONFIG": str(wga.config)}
    assert python("-m", "appliance", "node", "status", environ=environ).status == 0
    other = python("-m", "appliance", "--config", "/nonexistent/c.toml", "node", "status", environ=environ)
    assert (other.status, "/nonexistent/c.toml" in other.err) == (1, True)


# init ----------------------------------------------------------------------------------------------


def test_init_creates_and_then_skips(tmp_path: Path) -> None:
    """All four are made, for the owner's eyes alone; the second time nothing is touched and the status is 0."""
    config, state = tmp_path / "etc" / "deep" / "config.toml", tmp_path / "state"
    environ = {"WG_APPLIANCE_NODE_STATE_DIR": str(state)}
    made = [config, state, state / "store.sqlite", state / "server.key"]
    first = python("-m", "appliance", "--config", str(config), "init", environ=environ)
    assert (first.status, first.out) == (0, "")
    assert first.err == "".join(f"created {path}\n" for path in made)
    assert state.stat().st_mode & 0o777 == 0o700
    before = [path.read_bytes() for path in (config, state / "server.key")]
    second = python("-m", "appliance", "--config", str(config), "init", environ=environ)
    assert (second.status, second.err) == (0, "".join(f"exists: {path}\n" for path in made))
    assert [path.read_bytes() for path in (config, state / "server.key")] == before


def test_init_where_it_may_not_write_is_one_line(tmp_path: Path) -> None:
    """A folder that cannot be made: status 1, the file and the reason."""
    (tmp_path / "file").touch()
    refused = python("-m", "appliance", "--config", str(tmp_path / "file" / "c.toml"), "init")
    assert (refused.status, refused.err.count("\n")) == (1, 1)
    assert "cannot write the configuration" in refused.err


# serve ---------------------------------------------------------------------------------------------


def test_serve_that_cannot_start_is_one_error_line(bare: CommandLine) -> None:
    """With the state served already: status 1, and the last line on stderr says so."""
    bare.state.create()
    with bare.state.serving():
        refused = bare.process("serve")
    assert refused.status == 1
    assert refused.err.splitlines()[-1] == (
        f"wg-appliance: error: another wg-appliance is already serving {bare.state.path}; stop it first: "
        "systemctl stop wg-appliance"
    )
    assert "Traceback" not in refused.err


def test_serve_that_cannot_start_says_so_in_its_format(bare: CommandLine) -> None:
    """With --log-format json every line is an object, the last one too."""
    bare.state.create()
    with bare.state.serving():
        refused = bare.process("serve", "--log-format", "json")
    lines = [json.loads(line) for line in refused.err.splitlines()]
    assert (refused.status, lines[-1]["level"]) == (1, "critical")
    assert f"already serving {bare.state.path}" in lines[-1]["message"]


def test_the_journal_is_known_by_its_inode(tmp_path: Path) -> None:
    """JOURNAL_STREAM counts only while it names what stderr is; a child with its own stderr inherits it."""
    with (tmp_path / "stderr").open("w", encoding="utf-8") as stream:
        found = os.fstat(stream.fileno())
        assert is_journal(stream, {"JOURNAL_STREAM": f"{found.st_dev}:{found.st_ino}"})
        assert not is_journal(stream, {"JOURNAL_STREAM": f"{found.st_dev}:{found.st_ino + 1}"})
        assert not is_journal(stream, {})


# words ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, "0 B"),
        (1023, "1023 B"),
        (1024, "1.0 KiB"),
        (1024**2 - 1, "1.0 MiB"),
        (1258291, "1.2 MiB"),
        (1024**4, "1.0 TiB"),
        (5000 * 1024**4, "5000.0 TiB"),
    ],
)
def test_sizes_read_well(count: int, text: str) -> None:
    """One decimal in the largest unit that leaves at least one; never 1024 of a unit."""
    assert output.size(count) == text


@pytest.mark.parametrize(
    ("ms", "text"), [(-5, "0s"), (59_999, "59s"), (60_000, "1m"), (7_199_000, "1h"), (86_400_000 * 40, "40d")]
)
def test_spans_read_well(ms: int, text: str) -> None:
    """Whole units, the largest that fits; a clock that stepped back is no negative age."""
    assert output.span(ms) == text


@pytest.mark.parametrize(
    ("name", "value"), [("WG_APPLIANCE_WIREGUARD_MTU", "big"), ("WG_APPLIANCE_TIER_FREE_BYTES_LIMIT", "1")]
)
def test_doctor_mends_a_wrong_variable_where_it_is(
    wga: CommandLine, monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    """Where a variable is wrong, no file need be edited."""
    monkeypatch.setenv(name, value)
    done = wga("doctor", "--json")
    (found,) = json.loads(done.out)["checks"]
    assert (done.status, found["check"], found["status"]) == (1, "config", "failed")
    assert found["mend"] == f"unset {name}, where it is set"


def test_a_variable_of_a_platform_is_named_on_stderr(wga: CommandLine) -> None:
    """Every command names it, and does what it does."""
    environ = {"WG_APPLIANCE_PORT": "tcp://x"}
    done = python("-m", "appliance", "--config", str(wga.config), "account", "list", "--json", environ=environ)
    assert (done.status, json.loads(done.out)) == (0, {"accounts": []})
    assert done.err.startswith("WG_APPLIANCE_PORT looks like a setting")
