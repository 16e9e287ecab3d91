"""Names of devices: what people call their things is taken as it is; what cannot be seen is refused."""

from __future__ import annotations

import sys
import unicodedata

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from appliance.domain import device_name
from appliance.domain.errors import InvalidRequest

KEPT = {
    "a letter": "a",
    "a word": "phone",
    "words": "Alice's iPhone 15",
    "the longest": "x" * 64,
    "accents": "Zoë's Älp",
    "another script": "私の電話",
    "right to left": "הטלפון שלי",
    "signs": "-_.:;,+*#?\\|<>\"'`@%&()[]{}",
    "a mark on its own": "\u0301",
    "an emoji": "📱",
    "a form": "❤️",
    "another form": "☎︎",
    "a tone of skin": "👋🏽",
    "a joined family": "👨‍👩‍👧‍👦 tablet",
    "joined, with a form": "🏳️‍🌈",
    "joined, with tones": "🧑🏻‍❤️‍💋‍🧑🏼",
    "joined to a sign": "🏴‍☠️",
    "a flag": "🇩🇪",
    "a keycap": "1️⃣",
    "a keycap without its form": "#⃣",
    "an emoji of Unicode 15": "\U0001fa77",
    "one that is yet to come": "\U0001faff‍❤",
    "a digit beside an emoji": "7❤️7",
}


@pytest.mark.parametrize("name", KEPT.values(), ids=KEPT)
def test_a_name_is_kept_as_given(name: str) -> None:
    """What can be seen is a name, and stays as it is."""
    assert device_name.checked(name) == name


TRIMMED = {
    "spaces": "  my phone ",
    "a line end": "my phone\r\n",
    "tabs": "\tmy phone\t",
    "no-break": "\u00a0my phone\u202f",
    "ideographic": "\u3000my phone\u3000",
    "a line separator": "\u2028my phone\x85",
}


@pytest.mark.parametrize("name", TRIMMED.values(), ids=TRIMMED)
def test_white_space_at_the_ends_is_taken_off(name: str) -> None:
    """White space of every kind goes, at the ends; a space within stays."""
    assert device_name.checked(name) == "my phone"


REFUSED = {
    "none": (None, "name is required"),
    "a number": (7, "name must be text"),
    "a list": (["phone"], "name must be text"),
    "true": (True, "name must be text"),
    "empty": ("", "name must be 1 to 64 characters, not 0"),
    "white space": (" \t\u00a0\u3000\n", "name must be 1 to 64 characters, not 0"),
    "too long": ("x" * 65, "name must be 1 to 64 characters, not 65"),
    "a path": ("alice/phone", "name must not contain /"),
    "a null byte": ("a\0b", "name must be printable: it contains U+0000"),
    "an escape": ("a\x1b[31mb", "name must be printable: it contains U+001B"),
    "a control at the end": ("a\x1f", "name must be printable: it contains U+001F"),
    "a line end within": ("a\nb", "name must be printable: it contains U+000A"),
    "delete": ("a\x7f", "name must be printable: it contains U+007F"),
    "no-break within": ("a\u00a0b", "name must be printable: it contains U+00A0 NO-BREAK SPACE"),
    "a line separator within": ("a\u2028b", "name must be printable: it contains U+2028 LINE SEPARATOR"),
    "zero width": ("a\u200bb", "name must be printable: it contains U+200B ZERO WIDTH SPACE"),
    "a byte order mark": ("\ufeffa", "name must be printable: it contains U+FEFF ZERO WIDTH NO-BREAK SPACE"),
    "a turn": ("a\u202eb", "name must be printable: it contains U+202E RIGHT-TO-LEFT OVERRIDE"),
    "a soft hyphen": ("a\xadb", "name must be printable: it contains U+00AD SOFT HYPHEN"),
    "a joiner between letters": ("a\u200db", "name must be printable: it contains U+200D ZERO WIDTH JOINER"),
    "a joiner alone": ("\u200d", "name must be printable: it contains U+200D ZERO WIDTH JOINER"),
    "a joiner at the end": ("❤\u200d", "name must be printable: it contains U+200D ZERO WIDTH JOINER"),
    "two joiners": ("❤\u200d\u200d❤", "name must be printable: it contains U+200D ZERO WIDTH JOINER"),
    "a form of a letter": ("a\ufe0f", "name must be printable: it contains U+FE0F VARIATION SELECTOR-16"),
    "two forms": ("❤\ufe0f\ufe0f", "name must be printable: it contains U+FE0F VARIATION SELECTOR-16"),
    "an ideograph's form": ("葛\U000e0100", "name must be printable: it contains U+E0100 VARIATION SELECTOR-17"),
    "hidden text": ("🏴\U000e0067\U000e007f", "name must be printable: it contains U+E0067 TAG LATIN SMALL LETTER G"),
    "a blank letter": ("\u3164", "name must be printable: it contains U+3164 HANGUL FILLER"),
    "a blank of Braille": ("\u2800", "name must be printable: it contains U+2800 BRAILLE PATTERN BLANK"),
    "a grapheme joiner": ("a\u034f", "name must be printable: it contains U+034F COMBINING GRAPHEME JOINER"),
    "half a pair": ("\ud83d", "name must be printable: it contains U+D83D"),
    "bytes of the command line": ("caf\udce9", "name must be printable: it contains U+DCE9"),
    "private": ("\ue000", "name must be printable: it contains U+E000"),
    "unassigned": ("\u0378", "name must be printable: it contains U+0378"),
    "unassigned among signs": ("\u2b96", "name must be printable: it contains U+2B96"),
}


@pytest.mark.parametrize(("value", "message"), REFUSED.values(), ids=REFUSED)
def test_what_is_no_name_is_refused(value: object, message: str) -> None:
    """The refusal names the field and what is wrong, in ASCII."""
    with pytest.raises(InvalidRequest) as refusal:
        device_name.checked(value)
    assert str(refusal.value) == message
    assert message.isascii()


SAME = {
    "composed and not": ("Zo\u00eb", "Zoe\u0308"),
    "two signs of one letter": ("\u212b", "\u00c5"),
    "marks in another order": ("a\u0323\u0307", "a\u0307\u0323"),
    "Hangul": ("\ud55c", "\u1112\u1161\u11ab"),
}


@pytest.mark.parametrize(("one", "other"), SAME.values(), ids=SAME)
def test_names_are_compared_in_nfc(one: str, other: str) -> None:
    """Names that differ only in how accents are composed are the same name, and each is kept as given."""
    assert device_name.key(one) == device_name.key(other)
    assert (device_name.checked(one), device_name.checked(other)) == (one, other)


def test_other_names_differ() -> None:
    """Letters of another size, width or script are another name."""
    names = ["phone", "Phone", "\uff50hone", "\u0440hone", "phone ₂", "phone 2"]
    assert len({device_name.key(name) for name in names}) == len(names)


# What is invisible, and its ends and neighbours, more often than among all characters.
HIDDEN = "\u200b\u200c\u200d\u2060\ufeff\u202e\xad\ufe0e\ufe0f\u034f\u3164\U000e0067\U000e0100\0\x1b\x85\xa0\u2028 \t/"
TEXT = st.text(st.one_of(st.characters(), st.sampled_from(HIDDEN + "ae\u0308❤👨👩🏽1\u20e3")), max_size=70)


def checked(text: str) -> tuple[str | None, str]:
    """The name, or why it is none."""
    try:
        return device_name.checked(text), ""
    except InvalidRequest as refusal:
        return None, str(refusal)


@given(TEXT)
@example("❤\u200d❤")
@example("1\ufe0f\u20e3")
def test_a_name_that_is_taken_can_be_seen(text: str) -> None:
    """A name is a piece of what was given, checks to itself, and hides nothing outside of an emoji."""
    name, refusal = checked(text)
    assert refusal == "" or (refusal.startswith("name ") and refusal.isascii())
    if name is None:
        return
    assert name == text.strip()
    assert device_name.checked(name) == name
    assert 1 <= len(name) <= 64
    assert "/" not in name
    name.encode()  # no surrogates: SQLite and JSON take it
    for before, each in zip(" " + name, name, strict=False):
        category = unicodedata.category(each)
        assert category not in ("Cc", "Cs", "Co", "Zl", "Zp")
        assert category != "Cn" or "\U0001f000" <= each <= "\U0001faff"
        if category == "Cf":
            assert each == "\u200d"
            assert before > "\u00a8"
            assert not before.isalpha()


def test_every_character_has_its_answer() -> None:
    """Alone, each character is a name or refused; those that are taken are printable, or kept for emoji to come."""
    # Planes 4 to 13 are unassigned, 15 and 16 private.
    for code in (*range(0x40000), *range(0xE0000, 0xE1000), 0xF0000, sys.maxunicode):
        each = chr(code)
        taken = checked(f"a{each}a")[0] is not None
        assert taken <= (each.isprintable() or "\U0001f000" <= each <= "\U0001faff"), hex(code)
        if unicodedata.category(each)[0] in "LNPS" and each != "/" and not taken:
            assert code in (0x115F, 0x1160, 0x2800, 0x3164, 0xFFA0), hex(code)
