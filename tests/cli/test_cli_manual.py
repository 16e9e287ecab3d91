"""The man pages: one a command, with all of its options, and nothing that groff warns of."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from typing import TYPE_CHECKING

import click
import pytest

from appliance.cli import COMMANDS, cli, manual
from tests.support.cli.command_line import PROJECT

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

PAGES = manual.pages()


def formatted(page: str) -> str:
    """As man shows it, without its bold and underlined letters."""
    command = ["groff", "-man", "-ww", "-Tutf8", "-P-cbou"]
    done = subprocess.run(command, input=page, capture_output=True, encoding="utf-8", timeout=60, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


def options(command: click.Command) -> Iterator[str]:
    for param in command.params:
        if isinstance(param, click.Option):
            yield from (*param.opts, *param.secondary_opts)
    if isinstance(command, click.Group) and command is not cli:
        for name in command.list_commands(click.Context(command)):
            subcommand = command.get_command(click.Context(command), name)
            assert subcommand is not None
            yield from options(subcommand)


def test_a_page_a_command() -> None:
    """And one of the program, which names them all."""
    assert set(PAGES) == {"wg-appliance.1", *(f"wg-appliance-{noun}.1" for noun in COMMANDS)}
    named = re.findall(r"^\.BR wg\\-appliance\\-(\w+) \(1\)$", PAGES["wg-appliance.1"], re.MULTILINE)
    assert list(dict.fromkeys(named)) == list(COMMANDS)


@pytest.mark.skipif(shutil.which("groff") is None, reason="needs groff")
@pytest.mark.parametrize("name", PAGES)
def test_a_page_is_shown_without_a_warning(name: str) -> None:
    """groff has nothing to say, and the page has every option as it is typed."""
    shown = formatted(PAGES[name])
    command = cli.get_command(click.Context(cli), name.removeprefix("wg-appliance-").removesuffix(".1")) or cli
    words = set(re.findall(r"--[a-z][a-z-]*", shown))
    assert {option for option in options(command) if option.startswith("--")} <= words
    assert [line for line in ("NAME", "SYNOPSIS", "DESCRIPTION", "SEE ALSO") if line not in shown.splitlines()] == []


@pytest.mark.skipif(shutil.which("groff") is None, reason="needs groff")
def test_what_groff_would_take_for_its_own() -> None:
    """A dot or a quote at the head of a line, backslashes, hyphens and other letters come out as they were written."""

    @click.command(
        "odd",
        help="""One.

    .TH is no request, 'nor this; C:\\temp, \"quoted\", a-b \u2026""",
    )
    @click.option("--x-y", help="'.so' and \\fB")
    def odd(x_y: str) -> None:
        """Not called."""

    page = "\n".join(manual.page(manual.Named("wg-appliance odd", odd), []))
    shown = " ".join(formatted(page).split())
    assert '.TH is no request, \'nor this; C:\\temp, "quoted", a-b \u2026' in shown
    assert "--x-y TEXT '.so' and \\fB" in shown


def test_the_files_are_written(tmp_path: Path) -> None:
    """As .make/dist asks for them."""
    folder = tmp_path / "man"
    subprocess.run([sys.executable, "-m", "appliance.cli.manual", str(folder)], cwd=PROJECT, check=True, timeout=60)
    assert {file.name: file.read_text(encoding="ascii") for file in folder.iterdir()} == PAGES
