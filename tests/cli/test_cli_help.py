"""`wg-appliance help`, and what README and its pages say: every link leads somewhere, every command shown exists."""

from __future__ import annotations

import os
import pty
import re
import shlex
import subprocess
import sys
from typing import TYPE_CHECKING

import click
import pytest

from appliance.cli import COMMANDS, cli
from appliance.cli.help import LINK, plain, read, summary, topics
from appliance.ops.doctor.fleet import ROTATE
from tests.support.cli.command_line import PROJECT

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from command_line import CommandLine

DOCS = PROJECT / "appliance" / "docs"
GUIDES = [*sorted(DOCS.glob("*.md")), PROJECT / "README.md"]
TEXTS = [*GUIDES, PROJECT / "CONTRIBUTING.md", PROJECT / "SECURITY.md", PROJECT / "systemd" / "README.md"]
CODE = re.compile(r"`([^`\n]+)`")
MOST_WORDS = 1500


def name_of(file: Path) -> str:
    return str(file.relative_to(PROJECT))


# The command ----------------------------------------------------------------------------------------


def test_topics_are_listed(bare: CommandLine) -> None:
    """Without a topic: a line a page, its name and what it is for; it fits a terminal and needs no store."""
    listed = bare.do("help").out.splitlines()[2:]
    assert [line.split()[0] for line in listed] == [file.stem for file in sorted(DOCS.glob("*.md"))]
    assert all(len(line) <= 100 and line.endswith(".") and len(line.split()) > 3 for line in listed)


@pytest.mark.parametrize("topic", topics())
def test_a_page_is_printed(bare: CommandLine, topic: str) -> None:
    """Every word of the page, as plain text."""
    out = bare.do("help", topic).out
    assert not re.search(r"\]\(|\*\*|^#|^```|^\|", out, re.MULTILINE)
    written = re.findall(r"\w+", LINK.sub(r"\1", read(topic).replace("```sh", "").replace("```toml", "")))
    printed = out.lower()
    assert not [word for word in written if word.lower() not in printed]


@pytest.mark.parametrize(("asked", "meant"), [("conect", "connect"), ("backups", "backup"), ("nonsense", None)])
def test_an_unknown_topic_is_refused_with_a_suggestion(bare: CommandLine, asked: str, meant: str | None) -> None:
    """Status 2, and one line that names the topics and the one that was probably meant."""
    refused = bare("help", asked)
    assert (refused.status, refused.out) == (2, "")
    assert all(topic in refused.err.splitlines()[-1] for topic in topics())
    assert (f"Did you mean '{meant}'?" in refused.err) == (meant is not None)
    assert refused.err.count("Error:") == 1


def test_a_terminal_gets_a_pager(tmp_path: Path) -> None:
    """On a terminal, and there alone, the page goes through $PAGER."""
    seen = tmp_path / "seen"
    pager = tmp_path / "pager"
    pager.write_text(f"#!/bin/sh\ncat >{seen}\n", encoding="utf-8")
    pager.chmod(0o755)
    main, terminal = pty.openpty()
    command = [sys.executable, "-m", "appliance", "help", "doctor"]
    environment = os.environ | {"PAGER": str(pager), "TERM": "xterm"}
    try:
        subprocess.run(command, stdin=terminal, stdout=terminal, check=True, cwd=PROJECT, env=environment, timeout=60)
    finally:
        os.close(terminal)
        os.close(main)
    assert seen.read_text(encoding="utf-8").startswith("DOCTOR\n")
    seen.unlink()
    piped = subprocess.run(command, capture_output=True, check=True, cwd=PROJECT, env=environment, timeout=60)
    assert piped.stdout.startswith(b"DOCTOR\n")
    assert not seen.exists()


def test_markdown_as_text() -> None:
    """Paragraphs and items are wrapped, code is not, and a column that is too wide has lines of its own."""
    page = (
        "# A page\n\nDo **this** with `that`: see [other](other.md)\nand [a site](https://a.example).\n\n"
        "- one item\n  that goes on\n- two\n\n```sh\nkept   as it is, however long the line may be\n```\n\n"
        "| a | b |\n|---|---|\n| 1 | `x\\|y` |\n\n| | b |\n|---|---|\n| wide enough for its own | line |\n"
    )
    assert plain(page, 40).splitlines() == [
        "A PAGE",
        "",
        "Do this with that: see wg-appliance help",
        "other and a site (https://a.example).",
        "",
        "- one item that goes on",
        "- two",
        "",
        "    kept   as it is, however long the line may be",
        "",
        "a  b",
        "1  x|y",
        "",
        "    b",
        "wide enough for its own",
        "    line",
    ]
    assert summary(page) == "Do this with that."


# What is written ------------------------------------------------------------------------------------


def test_readme_is_short() -> None:
    """As `wc -w` counts."""
    assert len((PROJECT / "README.md").read_text(encoding="utf-8").split()) <= MOST_WORDS


def test_readme_names_every_page() -> None:
    """In its table, each once."""
    text = (PROJECT / "README.md").read_text(encoding="utf-8")
    assert re.findall(r"^\| \[(\w+)\]\(appliance/docs/\1\.md\)", text, re.MULTILINE) == topics()


@pytest.mark.parametrize("file", TEXTS, ids=name_of)
def test_links_lead_somewhere(file: Path) -> None:
    """Each names a file that is there, and a heading of it where it says so. Pages link to no other folder: the one
    file has them alone."""
    for _, target in LINK.findall(file.read_text(encoding="utf-8")):
        if target.startswith("https://"):
            continue
        path, _, heading = target.partition("#")
        aim = (file.parent / path) if path else file
        assert aim.exists(), target
        assert file.parent != DOCS or aim.parent == DOCS, target
        if heading:
            assert heading in {_anchor(line) for line in aim.read_text(encoding="utf-8").splitlines()}, target


def _anchor(line: str) -> str | None:
    """As the sites that show Markdown make it of a heading."""
    words = re.sub(r"[^\w\- ]", "", line.lstrip("# ").lower()).replace(" ", "-")
    return words if line.startswith("#") else None


def shown(text: str) -> Iterator[list[str]]:
    """The words after `wg-appliance` of each command line in blocks of code and between backticks."""
    blocks = re.findall(r"^```(?:sh)?\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    lines = [line for block in blocks for line in block.splitlines()]
    lines += CODE.findall(re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL))
    for line in lines:
        found = re.match(r"(?:sudo (?:-E )?|export \w+=\$\()?wg-appliance ([^)|>]*)", line)
        if found:
            yield shlex.split(re.sub(r"\[[^\]]*\]", "", found[1]), comments=True)


def parsed(words: list[str]) -> None:
    """Raises click.UsageError where there is no such command, or it does not take these words. Runs nothing."""
    command: click.Command = cli
    path = []
    while isinstance(command, click.Group):
        if not words:
            return  # a group by its name
        found = command.get_command(click.Context(command), words[0])
        if found is None:
            raise click.UsageError(f"no command {words[0]!r}")
        path.append(words[0])
        command, words = found, words[1:]
    if "--help" not in words:
        command.make_context(" ".join(path), [*words])


@pytest.mark.parametrize("file", TEXTS, ids=name_of)
def test_commands_shown_exist(file: Path) -> None:
    """Each with the options that are shown."""
    for words in shown(file.read_text(encoding="utf-8")):
        if not words or words[0] == "COMMAND":
            continue
        if len(words) == 1 and isinstance(cli.get_command(click.Context(cli), words[0]), click.Command):
            continue  # by its name alone, in a sentence
        parsed(["api" if word == "TOPIC" else word for word in words])


def test_doctor_names_a_command_that_exists() -> None:
    """For the fleet's authority, which ends so late that nobody would see it fail."""
    (words,) = shown(f"`{ROTATE}`")
    assert words == ["fleet", "rotate-ca"]
    parsed(words)


def test_every_command_is_in_the_table() -> None:
    """The page of commands names all of them, their subcommands, and no option that they do not have."""
    named = set()
    for row in re.findall(r"^\| (`.*?) \| ", read("commands"), re.MULTILINE):
        group: click.Group = cli
        for code in CODE.findall(row.replace("\\|", "|")):
            words = code.split()
            command = group.get_command(click.Context(group), words[0])
            if command is None:
                group = cli
                command = cli.get_command(click.Context(cli), words[0])
            assert command is not None, code
            if group is cli:
                named.add(words[0])
            if isinstance(command, click.Group):
                group = command
                command = group.get_command(click.Context(group), words[1])
                assert command is not None, code
            options = {each for param in command.params for each in (*param.opts, *param.secondary_opts)}
            assert set(re.findall(r"--[a-z-]+", code)) <= options, code
    assert named == set(COMMANDS)


@pytest.mark.parametrize("words", [["tokens"], ["token", "make"], ["connect", "--fast"], ["help", "nonsense"]])
def test_what_does_not_exist_is_found(words: list[str]) -> None:
    """A command, an option or a topic that does not exist is found."""
    with pytest.raises(click.UsageError):
        parsed(words)
    assert list(shown(f"`wg-appliance {' '.join(words)}`")) == [words]
