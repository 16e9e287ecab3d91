"""Log lines: one an event, with its fields, for people and for programs."""

from __future__ import annotations

import json
import logging
import sys
from typing import Any

import pytest

from appliance.config.log_format import about, formatter, some


def record(message: str, *arguments: object, exc_info: Any = None, **fields: object) -> logging.LogRecord:
    made = logging.LogRecord("appliance.part", logging.WARNING, __file__, 1, message, arguments, exc_info)
    made.__dict__.update(about(**fields))
    made.created = 1_790_000_000.25
    return made


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("ses_1", "ses_1"),
        (7, "7"),
        ("", '""'),
        ("two words", '"two words"'),
        ('a"b', '"a\\"b"'),
        ("a=b", '"a=b"'),
        ("a\nb", '"a\\nb"'),
    ],
)
def test_fields_follow_the_event_and_are_quoted_where_needed(value: object, text: str) -> None:
    """Fields follow the event as name=value; what could be taken for something else is quoted."""
    line = formatter("text", with_time=False).format(record("it happened", thing=value))
    assert line == f"WARNING appliance.part: it happened thing={text}"


def test_text_is_one_line() -> None:
    """Whatever stands in a message; only a traceback has lines of its own."""
    assert formatter("text", with_time=False).format(record("%s", "a\nb\rc")).endswith(": a\\nb\\rc")


def test_time_is_said_once() -> None:
    """With the time for a terminal, without it for the journal, which has its own."""
    assert formatter("text", with_time=True).format(record("it")).endswith(" WARNING appliance.part: it")
    assert formatter("text", with_time=False).format(record("it")) == "WARNING appliance.part: it"


def test_a_json_line_is_one_object() -> None:
    """An object a line: time in UTC, level, logger, message, and the fields."""
    line = formatter("json", with_time=True).format(record("it %s", "happened\n", session="ses_1", count=2))
    assert "\n" not in line
    assert json.loads(line) == {
        "time": "2026-09-21T14:13:20.250Z",
        "level": "warning",
        "logger": "appliance.part",
        "message": "it happened\n",
        "session": "ses_1",
        "count": 2,
    }


def test_json_with_a_traceback() -> None:
    """It is a field, so that an event stays a line."""
    try:
        raise ZeroDivisionError("why")
    except ZeroDivisionError:
        line = formatter("json", with_time=False).format(record("it crashed", exc_info=sys.exc_info()))
    assert "\n" not in line
    assert "ZeroDivisionError: why" in json.loads(line)["exception"]


def test_of_many_ids_the_first_few_are_named() -> None:
    """Of many, the first few."""
    assert some(f"ses_{n}" for n in range(9, 0, -1)) == "ses_1,ses_2,ses_3,ses_4,ses_5"
    assert some([]) == ""
