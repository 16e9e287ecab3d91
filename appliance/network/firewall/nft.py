"""Says how nft(8) is run: its arguments, and which line of its output is the error. Blocking."""

from __future__ import annotations

from typing import TYPE_CHECKING

from appliance.network import programs

if TYPE_CHECKING:
    from collections.abc import Mapping

PROGRAM = "nft"
TIMEOUT_S = 120.0  # the kernel may be busy with other transactions
EXECUTE = ("-f", "-")  # the script on stdin
LIST_TERSE = ("--json", "--terse", "list", "ruleset")  # without the elements of sets, which may be many
LIST_WHOLE = ("--json", "list", "ruleset")


def complaint(stderr: str) -> str:
    """Returns the error message: nft prints the line at fault, and marks under it, behind the message."""
    return programs.first_line(stderr)


def execute(script: str, environ: Mapping[str, str] | None = None) -> None:
    """Executes a script. Raises ProgramFailed if nft refuses it."""
    _run(*EXECUTE, script=script, environ=environ)


def tables(environ: Mapping[str, str] | None = None) -> list[str]:
    """Returns every table as its family and name; none if nft is not installed. Raises ProgramFailed."""
    try:
        listed = _run("list", "tables", environ=environ)
    except programs.ProgramMissing:
        return []
    return [line.removeprefix("table ") for line in listed.splitlines()]


def listing(arguments: tuple[str, ...] = LIST_TERSE, environ: Mapping[str, str] | None = None) -> str:
    """Lists the ruleset as JSON. Raises ProgramFailed."""
    return _run(*arguments, environ=environ)


def _run(*arguments: str, script: str = "", environ: Mapping[str, str] | None = None) -> str:
    return programs.run(PROGRAM, *arguments, text=script, environ=environ, timeout_s=TIMEOUT_S, summary=complaint)
