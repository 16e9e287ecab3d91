"""Generates the man pages from the click commands: `python -m appliance.cli.manual FOLDER`.

This happens when the one file is built, not when it is installed: to undo an upgrade, the pages of the version before
are needed, and each version's files contain its own.
"""

from __future__ import annotations

import inspect
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import click

from appliance import __version__
from appliance.cli import COMMANDS, PROGRAM, cli

if TYPE_CHECKING:
    from collections.abc import Iterator

SECTION = 1
DASH = "\\-"
SENTENCE = re.compile(r"(?<=\.)\s")


class Named(NamedTuple):
    """Holds a command and its full name, with those of the groups that it is in."""

    name: str
    command: click.Command


def pages() -> dict[str, str]:
    """Returns every page by its file's name: one for the program, and one per command with its subcommands."""
    root = Named(PROGRAM, cli)
    children = _subcommands(root)
    found = {_file(root): "\n".join(page(root, _commands(children))) + "\n"}
    for child in children:
        subcommands = [line for each in _subcommands(child) for line in _subsection(each)]
        body = [".SH COMMANDS", *subcommands] if subcommands else []
        found[_file(child)] = "\n".join(page(child, body)) + "\n"
    return found


def _file(named: Named) -> str:
    return f"{named.name.replace(' ', '-')}.{SECTION}"


def _subcommands(named: Named) -> list[Named]:
    group = named.command
    if not isinstance(group, click.Group):
        return []
    context = click.Context(group)
    found = ((name, group.get_command(context, name)) for name in group.list_commands(context))
    return [Named(f"{named.name} {name}", command) for name, command in found if command is not None]


def page(named: Named, body: list[str]) -> Iterator[str]:
    title = named.name.replace(" ", "-")
    summary, _, rest = _help(named.command).partition("\n\n")
    yield f'.TH "{_text(title.upper())}" "{SECTION}" "" "{PROGRAM} {_text(__version__)}" "wg\\-appliance manual"'
    yield from (".nh", ".ad l")  # no hyphenation: words of the command line must stay whole
    first = SENTENCE.split(" ".join(summary.split()))[0]
    yield from (".SH NAME", f"{_text(title)} {DASH} {_line(first.rstrip('.'))}")
    yield from (".SH SYNOPSIS", _synopsis(named))
    yield ".SH DESCRIPTION"
    yield from _paragraphs("\n\n".join((summary, rest)))
    yield from _options(named, ".SH OPTIONS")
    yield from body
    if named.command.epilog:
        yield from (".SH EXIT STATUS", *_paragraphs(named.command.epilog.removeprefix("Exit status: ")))
    elif named.command is cli:
        yield from (".SH EXIT STATUS", *_paragraphs("0 done, 1 failed with one line on stderr, 2 usage."))
        yield from (".SH ENVIRONMENT", *_paragraphs("WG_APPLIANCE_<SECTION>_<KEY> sets a key of the configuration."))
        yield from (".SH FILES", ".TP", ".I /etc/wg\\-appliance/config.toml", "The configuration file.")
    see = [f".BR {_text(name)} ({SECTION})" for name in _see_also(named)]
    yield from (".SH SEE ALSO", *(f"{line.removesuffix(')')})," for line in see[:-1]), *see[-1:])
    yield ".PP"
    yield f"{_bold(f'{PROGRAM} help')} prints the other pages of the manual, by topic."


def _see_also(named: Named) -> list[str]:
    return [f"{PROGRAM}-{noun}" for noun in COMMANDS] if named.command is cli else [PROGRAM]


def _commands(children: list[Named]) -> list[str]:
    lines = [".SH COMMANDS"]
    for child in children:
        noun = child.name.partition(" ")[2]
        lines += [".TP", f".BR {_text(child.name.replace(' ', '-'))} ({SECTION})", _line(COMMANDS[noun][1])]
    return lines


def _subsection(named: Named) -> Iterator[str]:
    yield f".SS {_text(named.name.removeprefix(PROGRAM).strip())}"
    yield _synopsis(named)
    yield from _paragraphs(_help(named.command))
    yield from _options(named, None)


def _synopsis(named: Named) -> str:
    pieces = named.command.collect_usage_pieces(click.Context(named.command))
    return f"{_bold(named.name)} {_text(' '.join(pieces))}"


def _options(named: Named, heading: str | None) -> Iterator[str]:
    context = click.Context(named.command, info_name=named.name, help_option_names=["-h", "--help"])
    parameters = (each for each in named.command.get_params(context) if isinstance(each, click.Option))
    records = [each.get_help_record(context) for each in parameters]
    options = [record for record in records if record is not None]
    if options and heading is not None:
        yield heading
    for names, text in options:
        yield from (".TP", _bold(names))
        yield _line(text) if text else "\\&"


def _help(command: click.Command) -> str:
    return inspect.cleandoc(command.help or "")


def _paragraphs(text: str) -> Iterator[str]:
    for paragraph in filter(None, re.split(r"\n\s*\n", text.strip())):
        yield from (".PP", _line(paragraph))


def _line(text: str) -> str:
    """Joins a text to one line, which groff does not take for a request."""
    return _text(" ".join(text.replace("\b", "").split()))


def _bold(text: str) -> str:
    return f"\\fB{_text(text)}\\fR"


def _text(text: str) -> str:
    """Escapes groff's special characters. Hyphens become minus signs, which can be copied to a shell."""
    text = text.replace("\\", "\\e").replace("-", "\\-").replace('"', "\\(dq").replace("'", "\\(aq")
    text = "".join(each if each.isascii() else f"\\[u{ord(each):04X}]" for each in text)
    return f"\\&{text}" if text.startswith(".") else text


if __name__ == "__main__":
    target = Path(sys.argv[1])
    target.mkdir(parents=True, exist_ok=True)
    for name, text in pages().items():
        (target / name).write_text(text, encoding="ascii")
