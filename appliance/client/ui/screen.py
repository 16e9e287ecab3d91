"""Shows a connection: a self-updating line on a terminal, plain lines on a pipe, JSON for programs.

A closed terminal or pipe is not an error: it sets `gone`, which the caller checks.
"""

from __future__ import annotations

import os
import sys
from dataclasses import astuple
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol

from appliance.client.terminal import has, json_text, printable
from appliance.client.ui import status_text
from appliance.client.ui.status_text import SEPARATOR

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import TextIO

    from appliance.client.api.responses import OpenedSession
    from appliance.client.run_totals import RunTotals
    from appliance.client.ui.status_text import Glyphs, View

ELLIPSIS = "…"  # what rich puts at the end of a truncated line
ECHOED = len("^C")  # what the terminal echoes after the line on Ctrl-C


class Screen(Protocol):
    @property
    def gone(self) -> bool: ...

    def connected(self, opened: OpenedSession, region: str, interface: str, leave: str) -> None:
        """Shows that the connection is up. `leave`: how to end it, in words."""

    def status(self, view: View) -> None: ...

    def remark(self, text: str) -> None: ...

    def receipt(self, elapsed_s: float, session: Mapping[str, Any], total: RunTotals) -> None:
        """Shows the last session's final figures, and the sums over the run's sessions."""

    def close(self) -> None: ...


class Stream:
    """Writes lines to a file whose reader may go away."""

    def __init__(self, file: TextIO) -> None:
        self.file = file
        self.gone = False

    def write(self, line: str) -> None:
        if self.gone:
            return
        try:
            self.file.write(printable(line, self.file.encoding) + "\n")
            self.file.flush()
        except OSError:
            self.gone = True
            silence(self.file)


def silence(file: TextIO) -> None:
    """Redirects the file to /dev/null, so that flushing its buffer at exit does not fail again."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, file.fileno())
    os.close(nowhere)


class JsonLines:
    """Writes one JSON object per line, each with its `event`."""

    def __init__(self, out: TextIO) -> None:
        self._out = Stream(out)

    @property
    def gone(self) -> bool:
        return self._out.gone

    def connected(self, opened: OpenedSession, region: str, interface: str, leave: str) -> None:  # noqa: ARG002 (for people)
        fields = {"id": opened.id, "region": region, "public_ip": opened.public_ip, "tier": opened.tier}
        self._write({"event": "connected", **fields, "expires_at": opened.expires_at, "interface": interface})

    def status(self, view: View) -> None:
        self._write(status_text.as_json(view))

    def remark(self, text: str) -> None:
        self._write({"event": "remark", "text": text})

    def receipt(self, elapsed_s: float, session: Mapping[str, Any], total: RunTotals) -> None:
        times = {"elapsed_seconds": int(elapsed_s), "counted_seconds": total.seconds}
        self._write({"event": "receipt", **times, **session})

    def close(self) -> None: ...

    def _write(self, fields: Mapping[str, Any]) -> None:
        self._out.write(json_text(fields))


class PlainLines:
    """Writes lines of text. `quiet`: no status, because a program of the user's has the terminal."""

    def __init__(self, out: TextIO, err: TextIO, *, quiet: bool = False) -> None:
        self._out = Stream(out)
        self._err = Stream(err)
        self._quiet = quiet
        self._glyphs = glyphs_for(out)

    @property
    def gone(self) -> bool:
        return self._out.gone

    def connected(self, opened: OpenedSession, region: str, interface: str, leave: str) -> None:  # noqa: ARG002 (for programs)
        self.remark(greeting(opened, region, leave))

    def status(self, view: View) -> None:
        if not self._quiet:
            self._out.write(SEPARATOR.join(part.text for part in status_text.parts(view, self._glyphs)))

    def remark(self, text: str) -> None:
        self._err.write(text)

    def receipt(self, elapsed_s: float, session: Mapping[str, Any], total: RunTotals) -> None:
        fields = status_text.receipt(elapsed_s, session, total)
        width = max(len(name) for name, _ in fields)
        for name, value in fields:
            self._out.write(f"{name:<{width}}  {value}")

    def close(self) -> None: ...


class Terminal:
    """Shows one self-updating line, with remarks above it."""

    def __init__(self, out: TextIO) -> None:
        from rich.console import Console
        from rich.live import Live

        self._console = Console(file=out, highlight=False, markup=False, emoji=False, soft_wrap=True)
        # Leaves other output alone; no refresh thread, so that nothing is drawn outside these calls.
        self._live = Live(
            console=self._console, auto_refresh=False, transient=True, redirect_stdout=False, redirect_stderr=False
        )
        self._glyphs = glyphs_for(out)
        self._file = out
        self.gone = False

    def connected(self, opened: OpenedSession, region: str, interface: str, leave: str) -> None:  # noqa: ARG002 (for programs)
        self._print(greeting(opened, region, leave), "bold")
        self._draw(self._live.start)

    def status(self, view: View) -> None:
        shown = line(view, self._glyphs, self._console.width - ECHOED, self._file.encoding)
        self._draw(lambda: self._live.update(shown, refresh=True))

    def remark(self, text: str) -> None:
        self._print(text, "yellow")

    def receipt(self, elapsed_s: float, session: Mapping[str, Any], total: RunTotals) -> None:
        from rich.text import Text

        fields = status_text.receipt(elapsed_s, session, total)
        width = max(len(name) for name, _ in fields)
        for name, value in fields:
            text = Text.assemble((f"{name:<{width}}", "dim"), SEPARATOR, printable(value, self._file.encoding))
            self._draw(partial(self._console.print, text))

    def close(self) -> None:
        """Removes the line and restores the cursor."""
        self._draw(self._live.stop)

    def _print(self, text: str, style: str) -> None:
        self._draw(lambda: self._console.print(printable(text, self._file.encoding), style=style))

    def _draw(self, draw: Callable[[], object]) -> None:
        if self.gone:
            return
        try:
            draw()
        except OSError:
            self.gone = True
            silence(self._file)


def line(view: View, glyphs: Glyphs, width: int, encoding: str | None) -> Any:
    """Returns the status line as rich draws it."""
    from rich.text import Text

    kept = status_text.fit(status_text.parts(view, glyphs), width)
    pieces: list[Any] = []
    for part in kept:
        piece = (printable(part.text, encoding), part.style)
        pieces += [SEPARATOR, piece] if pieces else [piece]
    shown = Text.assemble(*pieces, no_wrap=True)
    shown.truncate(width, overflow="ellipsis" if has(encoding, ELLIPSIS) else "crop")
    return shown


def greeting(opened: OpenedSession, region: str, leave: str) -> str:
    return f"connected: {region}, traffic leaves from {opened.public_ip} (session {opened.id}); {leave}"


def glyphs_for(out: TextIO) -> Glyphs:
    """Returns arrows and blocks if the terminal's encoding has them, else ASCII."""
    return status_text.UNICODE if has(out.encoding, "".join(astuple(status_text.UNICODE))) else status_text.ASCII


def screen_for(*, as_json: bool, command: bool) -> Screen:
    """Chooses how to show the connection. `command`: a program is run, which owns stdout and the terminal."""
    if as_json:
        return JsonLines(sys.stderr if command else sys.stdout)
    if command:
        return PlainLines(sys.stderr, sys.stderr, quiet=True)
    if sys.stdout.isatty() and os.environ.get("TERM") != "dumb":  # a dumb terminal cannot redraw a line
        return Terminal(sys.stdout)
    return PlainLines(sys.stdout, sys.stderr)
