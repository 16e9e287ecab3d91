"""Runs this host's own programs, which end by themselves, and returns what they print. Blocking.

    programs.run("useradd", "--system", name)
    programs.run("nft", "-f", "-", text=script, summary=programs.first_line)

Commands are lists of words, never run by a shell.

    ProgramFailed           it cannot be started, does not end in time, or ends with another status than 0
    └── ProgramMissing      it is not installed
"""

from __future__ import annotations

import os
import re
import subprocess
import tempfile
from contextlib import ExitStack, suppress
from typing import TYPE_CHECKING

from appliance.domain.errors import HostError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from typing import IO

TIMEOUT_S = 30.0
KILLED_WITHIN_S = 1.0
LARGEST_OUTPUT = 256 * 1024 * 1024  # bytes
LONGEST_SUMMARY = 1000  # characters
# What PyInstaller's bootloader says last, of any exception: "[PYI-1234:ERROR] Failed to execute script ...".
UNPACKER = re.compile(r"\[(?:PYI-)?\d+(?::ERROR)?\] Failed to execute script")
# Debian's PATH of root, for what must not depend on who calls.
ROOT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


class ProgramFailed(HostError):
    """Says that a program failed. `reason`: why, to be read behind the program's name; `said`: all that it printed."""

    def __init__(self, command: str, reason: str, said: str = "") -> None:
        super().__init__(f"{command} {reason}")
        self.reason = reason
        self.said = said


class ProgramMissing(ProgramFailed):
    def __init__(self, program: str) -> None:
        super().__init__(program, "is not installed")


def last_line(output: str) -> str:
    """Returns the last line; of a packed Python program that ended by an exception, the exception's."""
    lines = [line for line in output.splitlines() if not UNPACKER.match(line)]
    return (lines or output.splitlines() or [""])[-1]


def first_line(output: str) -> str:
    return (output.splitlines() or [""])[0]


def joined_lines(output: str) -> str:
    return " ".join(output.split())


def run(
    *command: str,
    text: str = "",
    environ: Mapping[str, str] | None = None,
    timeout_s: float = TIMEOUT_S,
    new_session: bool = False,
    merged: bool = False,
    summary: Callable[[str], str] = last_line,
) -> str:
    """Runs a program and returns its stdout. Raises ProgramFailed, also if it prints more than LARGEST_OUTPUT.

    `text` is its input, `environ` its environment (by default this process's). `new_session` puts it out of reach of
    the terminal's signals. `merged` makes stderr part of stdout. `summary` makes the reason of a failure from stderr,
    or from stdout if stderr is empty.

    Blocks: for operators' commands, and for a start of the service.
    """
    with ExitStack() as files:
        # Files in memory, and no pipes: a process that the program leaves behind may keep its output open for good.
        stdin, stdout, stderr = (files.enter_context(_file(command, name)) for name in ("input", "output", "errors"))
        stdin.write(text.encode())
        stdin.seek(0)
        streams = (stdin, stdout, stdout if merged else stderr)
        process = _start(command, streams, os.environ if environ is None else environ, new_session)
        status = _wait(process, command, timeout_s)
        output = _read(command, stdout)
        if status != 0:
            errors = "" if merged else _read(command, stderr)
            why = summary(errors.strip() or output.strip())[:LONGEST_SUMMARY]
            raise ProgramFailed(" ".join(command), f"failed: {why or f'exit status {status}'}", output + errors)
        return output


def search_path(environ: Mapping[str, str]) -> str:
    """Returns PATH with the sbin beside each bin: the PATH of a user has no programs for root."""
    folders = environ.get("PATH", os.defpath).split(":")
    beside = [f"{folder.removesuffix('bin')}sbin" for folder in folders if folder.endswith("/bin")]
    return ":".join([*folders, *(folder for folder in beside if folder not in folders)])


def _start(
    command: Sequence[str], streams: tuple[IO[bytes], IO[bytes], IO[bytes]], environ: Mapping[str, str], session: bool
) -> subprocess.Popen[bytes]:
    stdin, stdout, stderr = streams
    try:
        return subprocess.Popen(  # noqa: S603 (a list of words, of this project's own)
            command,
            stdin=stdin,
            stdout=stdout,
            stderr=stderr,
            start_new_session=session,
            env={**environ, "PATH": search_path(environ)},
        )
    except FileNotFoundError as error:
        raise ProgramMissing(command[0]) from error
    except OSError as error:
        raise ProgramFailed(command[0], f"cannot be run: {error.strerror}") from error


def _wait(process: subprocess.Popen[bytes], command: Sequence[str], timeout_s: float) -> int:
    try:
        return process.wait(timeout_s)
    except BaseException as error:
        process.kill()
        # With a time limit: a program that waits for the kernel cannot be killed either.
        with suppress(subprocess.TimeoutExpired):
            process.wait(KILLED_WITHIN_S)
        if isinstance(error, subprocess.TimeoutExpired):
            raise ProgramFailed(" ".join(command), f"did not end within {timeout_s:g} s") from error
        raise


def _file(command: Sequence[str], name: str) -> IO[bytes]:
    """Opens a file in memory, which works on a full disk too; where the service's unit denies that, another."""
    try:
        try:
            return os.fdopen(os.memfd_create(name), "w+b")
        except PermissionError:
            return tempfile.TemporaryFile()
    except OSError as error:
        raise ProgramFailed(command[0], f"cannot be run: no file for its {name}: {error.strerror}") from error


def _read(command: Sequence[str], file: IO[bytes]) -> str:
    file.seek(0)
    content = file.read(LARGEST_OUTPUT + 1)
    if len(content) > LARGEST_OUTPUT:
        raise ProgramFailed(" ".join(command), f"printed more than {LARGEST_OUTPUT >> 20} MiB")
    return content.decode("utf-8", "replace")
