"""A QR code of half-block characters, as a camera sees it."""

from __future__ import annotations

import re

PIXELS = 4  # of a module's side


def photographed(text: str, *, light_on_dark: bool) -> tuple[bytes, int, int]:
    """What a camera sees of half-block characters: (grey pixels, width, height)."""
    halves = {" ": (0, 0), "▀": (1, 0), "▄": (0, 1), "█": (1, 1)}
    rows = []
    for line in re.sub(r"\x1b\[[0-9;]*m", "", text).splitlines():
        for half in (0, 1):
            ink = [halves[character][half] for character in line]
            row = bytes(255 if inked is light_on_dark else 0 for inked in map(bool, ink) for _ in range(PIXELS))
            rows += [row] * PIXELS
    return b"".join(rows), len(rows[0]), len(rows)
