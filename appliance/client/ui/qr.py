"""Draws a config as a QR code in a terminal, for the WireGuard app of a phone."""

from __future__ import annotations

from typing import TYPE_CHECKING

from appliance.client.terminal import has
from appliance.domain.errors import HostError

if TYPE_CHECKING:
    from collections.abc import Sequence

QUIET = 4  # width of the light border, in modules (ISO/IEC 18004)
BLACK_ON_WHITE, RESET = "\x1b[38;5;16;48;5;231m", "\x1b[0m"
# Two modules per character, the upper one first; True is dark.
INK = {(False, False): " ", (True, False): "▀", (False, True): "▄", (True, True): "█"}


def check(encoding: str | None, otherwise: str = "--qr --json, or --config-only") -> None:
    """Raises HostError if the encoding cannot represent the drawing. `otherwise`: options that need none."""
    if not has(encoding, "".join(INK.values())):
        raise HostError(
            f"the encoding of stdout, {encoding}, has no blocks to draw a QR code with; take a terminal of UTF-8 "
            f"(LC_ALL=C.UTF-8), or {otherwise}"
        )


def draw(text: str, *, colour: bool) -> str:
    """Draws `text`. Without colour, light modules are drawn in the foreground colour: the background must be dark."""
    import segno

    # The least error correction: a screen has no stains, and fewer modules are easier to scan.
    matrix = segno.make(text, error="l", micro=False).matrix
    side = len(matrix) + 2 * QUIET
    rows = [[False] * side for _ in range(side + side % 2)]
    for y, row in enumerate(matrix):
        for x, module in enumerate(row):
            rows[y + QUIET][x + QUIET] = bool(module)
    lines = [_line(upper, lower, colour=colour) for upper, lower in zip(rows[::2], rows[1::2], strict=True)]
    return "\n".join(lines)


def size(drawn: str) -> tuple[int, int]:
    """Returns the columns and lines that a drawing takes."""
    lines = drawn.splitlines()
    return len(lines[0].removeprefix(BLACK_ON_WHITE).removesuffix(RESET)), len(lines)


def _line(upper: Sequence[bool], lower: Sequence[bool], *, colour: bool) -> str:
    if colour:
        return BLACK_ON_WHITE + "".join(INK[pair] for pair in zip(upper, lower, strict=True)) + RESET
    return "".join(INK[not above, not below] for above, below in zip(upper, lower, strict=True))
