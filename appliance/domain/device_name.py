"""Checks and compares the names of devices, which people choose and programs print."""

from __future__ import annotations

import re
import unicodedata

from appliance.domain.errors import InvalidRequest

LONGEST = 64
SEPARATOR = "/"  # of account and device, on the command line

# https://www.unicode.org/Public/UCD/latest/ucd/PropList.txt, White_Space. str.strip() takes four controls as well.
WHITE_SPACE = (
    "\t\n\v\f\r \x85\xa0\u1680\u2000\u2001\u2002\u2003\u2004\u2005\u2006\u2007\u2008\u2009\u200a\u2028\u2029\u202f"
    "\u205f\u3000"
)

# Letters, marks and a symbol that leave no ink: those of Default_Ignorable_Code_Point that are no format characters
# (DerivedCoreProperties.txt), and the Braille pattern without a dot.
BLANK = re.compile("[\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180f\u2800\u3164\ufe00-\ufe0f\uffa0\U000e0100-\U000e01ef]")

# Python's tables are older than the newest emoji: Unicode keeps this range for them (Extended_Pictographic).
EMOJI_RANGE = "\U0001f000-\U0001faff"
_PICTURE = (
    "[\u00a9\u00ae\u203c\u2049\u2122\u2139\u2190-\u21ff\u2300-\u23ff\u24c2\u25a0-\u27bf\u2934\u2935\u2b00-\u2bff"
    f"\u3030\u303d\u3297\u3299{EMOJI_RANGE}]"
)
_ONE = f"{_PICTURE}[\ufe0e\ufe0f]?[\U0001f3fb-\U0001f3ff]?"  # with its form, and its tone of skin
# https://www.unicode.org/reports/tr51/#EBNF_and_Regex: the place in which a joiner or a selector is part of a picture.
EMOJI = re.compile(f"{_ONE}(?:\u200d{_ONE})*|[0-9#*]\ufe0f?\u20e3")
_GLUE = re.compile("[\u200d\ufe0e\ufe0f]")
_NEW_PICTURE = re.compile(f"[{EMOJI_RANGE}]")


def checked(value: object) -> str:
    """Returns the name as given, but for white space at its ends. Raises InvalidRequest if it cannot be one."""
    if value is None:
        raise InvalidRequest("name is required")
    if not isinstance(value, str):
        raise InvalidRequest("name must be text")
    name = trimmed(value)
    if not 1 <= len(name) <= LONGEST:
        raise InvalidRequest(f"name must be 1 to {LONGEST} characters, not {len(name)}")
    if SEPARATOR in name:
        raise InvalidRequest(f"name must not contain {SEPARATOR}")
    outside = EMOJI.sub(lambda found: _GLUE.sub("", found[0]), name)
    hidden = next((each for each in outside if not _shows(each)), None)
    if hidden is not None:
        raise InvalidRequest(f"name must be printable: it contains {_described(hidden)}")
    return name


def trimmed(name: str) -> str:
    return name.strip(WHITE_SPACE)


def key(name: str) -> str:
    """Returns what names are compared by: two that look alike because an accent is composed or not are the same."""
    return unicodedata.normalize("NFC", name)


def _shows(character: str) -> bool:
    if BLANK.match(character):
        return False
    return character.isprintable() or _NEW_PICTURE.match(character) is not None


def _described(character: str) -> str:
    return f"U+{ord(character):04X} {unicodedata.name(character, '')}".rstrip()
