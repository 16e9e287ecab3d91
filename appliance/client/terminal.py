"""Text of others on a terminal, which takes some characters as orders."""

from __future__ import annotations

import json


def printable(text: str, encoding: str | None = None) -> str:
    """On one line, escaped where a character is none to be seen: controls, ends of lines, what turns the direction of
    writing; and where the encoding, UTF-8 unless it is another, has no such character."""
    seen = "".join(each if each.isprintable() else each.encode("unicode_escape").decode("ascii") for each in text)
    return seen.encode(encoding or "utf-8", "backslashreplace").decode(encoding or "utf-8")


def has(encoding: str | None, characters: str) -> bool:
    """Whether a terminal of that encoding can show them; of none it is ASCII."""
    try:
        characters.encode(encoding or "ascii")
    except (UnicodeEncodeError, LookupError):
        return False
    return True


def json_text(value: object, indent: int | None = None) -> str:
    """Of ASCII, with its own escapes for controls; the one that json.dumps() lets through has its escape here."""
    return json.dumps(value, indent=indent).replace("\x7f", "\\u007f")
