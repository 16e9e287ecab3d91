"""A config as a QR code in a terminal, for the WireGuard app of a phone."""

from __future__ import annotations

from typing import TYPE_CHECKING

from appliance.client.terminal import has
from appliance.domain.errors import HostError

if TYPE_CHECKING:
    from collections.abc import Sequence

QUIET = 4  # modules of light around it (ISO/IEC 18004)
BLACK_ON_WHITE, RESET = "\x1b[38;5;16;48;5;231m", "\x1b[0m"
# Two modules a character, the upper one first; true is dark.
INK = {(False, False): " ", (True, False): "▀", (False, True): "▄", (True, True): "█"}


def check(encoding: str | None) -> None:
    """Raises HostError where what is drawn could not be written."""
    if not has(encoding, "".join(INK.values())):
        raise HostError(
            f"the encoding of stdout, {encoding}, has no blocks to draw a QR code with; take a terminal of UTF-8 "
            "(LC_ALL=C.UTF-8), or --qr --json, or --config-only"
        )


def draw(text: str, *, colour: bool) -> str:
    """Without colour it is drawn in light on whatever the terminal's ground is, which has to be a dark one."""
    import segno

    # The least redundancy: a screen has no stains, and the fewer modules the better they are seen.
    matrix = segno.make(text, error="l", micro=False).matrix
    side = len(matrix) + 2 * QUIET
    rows = [[False] * side for _ in range(side + side % 2)]
    for y, row in enumerate(matrix):
        for x, module in enumerate(row):
            rows[y + QUIET][x + QUIET] = bool(module)
    lines = [_line(upper, lower, colour=colour) for upper, lower in zip(rows[::2], rows[1::2], strict=True)]
    return "\n".join(lines)


def _line(upper: Sequence[bool], lower: Sequence[bool], *, colour: bool) -> str:
    if colour:
        return BLACK_ON_WHITE + "".join(INK[pair] for pair in zip(upper, lower, strict=True)) + RESET
    return "".join(INK[not above, not below] for above, below in zip(upper, lower, strict=True))
