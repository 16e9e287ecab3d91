"""Reports an exception that no command expects: type and text for the one line, the traceback in a file.

With --debug, which every command takes, the traceback goes to stderr instead, as it does in the journal of a service.
"""

from __future__ import annotations

import os
import sys
import traceback
from typing import IO, TYPE_CHECKING

import click

from appliance import __version__

if TYPE_CHECKING:
    from collections.abc import Mapping

_WANTED = __name__  # the key in click's Context.meta, which a command shares with the groups it is in


def add_option(command: click.Command) -> click.Command:
    """Gives a command the option --debug. Returns the command."""
    if not any(parameter.name == "debug" for parameter in command.params):
        command.params.append(option())
    return command


def option() -> click.Option:
    """Returns the option --debug."""
    return click.Option(
        ["--debug"],
        is_flag=True,
        is_eager=True,
        expose_value=False,
        callback=_note,
        help="Print the traceback of an error on stderr.",
    )


def _note(ctx: click.Context, _: click.Parameter, wanted: bool) -> None:
    if wanted:
        ctx.meta[_WANTED] = True


def debugging(ctx: click.Context) -> bool:
    """Tells whether --debug was given, to a command or to a group that it is in."""
    return bool(ctx.meta.get(_WANTED))


def is_journal(stderr: IO[str], environ: Mapping[str, str]) -> bool:
    """Tells whether stderr goes to the journal, which adds the time itself.

    systemd.exec(5): JOURNAL_STREAM is the device and inode of the stream to the journal. Programs started by a service
    inherit the variable even if their stderr is another stream.
    """
    try:
        stream = os.fstat(stderr.fileno())
    except (OSError, ValueError):
        return False
    return environ.get("JOURNAL_STREAM") == f"{stream.st_dev}:{stream.st_ino}"


def describe(error: Exception, *, on_stderr: bool) -> str:
    """Prints the traceback or keeps it in a file; returns the line that says what happened and where to read on."""
    line = f"unexpected {_name(error)}"
    if on_stderr:
        traceback.print_exception(error, file=sys.stderr)
        return f"{line}; its traceback is above"
    try:
        return f"{line}; its traceback is in {_keep(error)}"
    except OSError as fault:
        return f"{line}; its traceback could not be kept ({fault.strerror}): --debug prints it"


def _name(error: Exception) -> str:
    """Returns type and text of the error; of the only one in a group."""
    while isinstance(error, ExceptionGroup) and len(error.exceptions) == 1:
        error = error.exceptions[0]
    return "".join(traceback.format_exception_only(error)).strip()


def _keep(error: Exception) -> str:
    """Writes the traceback into a new file that only this user can read. Returns its path. Raises OSError."""
    import platform
    import tempfile

    number, path = tempfile.mkstemp(prefix="wg-appliance-traceback-", suffix=".txt")
    with os.fdopen(number, "w", encoding="utf-8", errors="backslashreplace") as file:
        # Not the command line: there may be a token in it.
        file.write(f"wg-appliance {__version__}, Python {platform.python_version()}, {platform.platform()}\n")
        traceback.print_exception(error, file=file)
    return path
