"""Makes untrusted text safe for a terminal, which takes some characters as commands."""

from __future__ import annotations

import json


def printable(text: str, encoding: str | None = None) -> str:
    """Returns `text` on one line, with unprintable characters escaped (controls, line ends, changes of the writing
    direction), and those that `encoding` (default UTF-8) lacks."""
    if text.isascii() and text.isprintable():
        return text  # every encoding has these
    seen = "".join(each if each.isprintable() else each.encode("unicode_escape").decode("ascii") for each in text)
    return seen.encode(encoding or "utf-8", "backslashreplace").decode(encoding or "utf-8")


def has(encoding: str | None, characters: str) -> bool:
    """Tells whether a terminal with this encoding can show these characters; None means ASCII."""
    try:
        characters.encode(encoding or "ascii")
    except (UnicodeEncodeError, LookupError):
        return False
    return True


def json_text(value: object, indent: int | None = None) -> str:
    """Formats JSON in ASCII with control characters escaped, including DEL, which json.dumps() does not escape."""
    return without_del(json.dumps(value, indent=indent))


def without_del(encoded: str) -> str:
    """Returns JSON with DEL escaped."""
    return encoded.replace("\x7f", "\\u007f")
