"""An exception that no command expects: one line that names it, and a traceback where it can be found."""

from __future__ import annotations

import re
import stat
from typing import TYPE_CHECKING

import click
import pytest
from click.testing import CliRunner

from appliance.cli import COMMANDS, Root, cli, unexpected
from tests.support.cli.command_line import Done

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.support.cli.command_line import CommandLine

LAZY = {"broken": ("tests.support.cli.broken_command:broken", "Fail.")}
SAID = {
    "words": "unexpected RuntimeError: first \\x1b[31m second;",
    "tasks": "unexpected KeyError: 'absent';",
    "disk": "unexpected OSError: [Errno 28] No space left on device: '/var/lib/file';",
}


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Done]:
    """Runs the program with the command `broken`; temporary files go into `tmp_path`."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    root = Root(name="wg-appliance", lazy=LAZY, params=[unexpected.option()])

    def invoke(*arguments: str) -> Done:
        done = CliRunner().invoke(root, arguments)
        return Done(done.exit_code, done.stdout, done.stderr)

    return invoke


@pytest.mark.parametrize("name", SAID)
def test_one_line_and_a_file(run: Callable[..., Done], tmp_path: Path, name: str) -> None:
    """Type and text stand in one line; the file it names has the traceback, and is for this user alone."""
    done = run("broken", name)
    assert done.status == 1
    assert done.err.count("\n") == 1
    assert done.err.startswith(f"wg-appliance: error: {SAID[name]} its traceback is in ")
    (path,) = tmp_path.iterdir()
    assert done.err.endswith(f" {path}\n")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    text = path.read_text(encoding="utf-8")
    assert re.match(r"wg-appliance \S+, Python 3\.", text)
    assert "Traceback (most recent call last):" in text
    assert "broken_command.py" in text


@pytest.mark.parametrize("line", ["--debug broken words", "broken --debug words", "broken words --debug"])
def test_debug(run: Callable[..., Done], tmp_path: Path, line: str) -> None:
    """With --debug, wherever it stands, the traceback is on stderr, the line below it, and no file is made."""
    done = run(*line.split())
    assert done.status == 1
    assert done.err.startswith("Traceback (most recent call last):\n")
    assert done.err.splitlines()[-1].endswith("; its traceback is above")
    assert not list(tmp_path.iterdir())


def test_nowhere_to_keep_it(run: Callable[..., Done], monkeypatch: pytest.MonkeyPatch) -> None:
    """Where no file can be made, the line still stands, and says what prints the traceback."""
    monkeypatch.setattr("tempfile.tempdir", "/nonexistent")
    done = run("broken", "words")
    assert done.err.startswith("wg-appliance: error: unexpected RuntimeError: ")
    assert done.err.endswith("could not be kept (No such file or directory): --debug prints it\n")


def test_debug_of_an_expected_error(bare: CommandLine) -> None:
    """--debug also tells where an error with a sentence of its own comes from; the sentence is the last line."""
    plain, debugged = bare("account", "list"), bare("account", "list", "--debug")
    assert "Traceback" not in plain.err
    assert debugged.status == plain.status == 1
    assert "Traceback" in debugged.err
    assert debugged.err.splitlines()[-1] == plain.err.splitlines()[-1]


def _all(command: click.Command, name: str, parents: tuple[str, ...] = ()) -> list[tuple[str, ...]]:
    here = (*parents, name)
    if not isinstance(command, click.Group):
        return [here]
    context = click.Context(command)
    children = [(each, command.get_command(context, each)) for each in command.list_commands(context)]
    return [path for each, child in children if child is not None for path in _all(child, each, here)]


def test_every_command_takes_debug(bare: CommandLine) -> None:
    """--debug is an option of each command and of the program itself, and their help says so."""
    commands = _all(cli, "wg-appliance")
    assert len(commands) > len(COMMANDS)
    for _, *words in commands:
        done = bare(*words, "--debug", "--help")
        assert done.status == 0, (words, done.err)
        assert "--debug" in done.out
    assert "--debug" in bare("--help").out
