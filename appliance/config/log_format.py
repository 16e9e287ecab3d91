"""Formats log lines, one event with its fields each, as text or as JSON.

What may stand in a field: ids, tiers, counts, reasons. No token, no key, no client's config or address.
"""

from __future__ import annotations

import json
import logging
from datetime import UTC, datetime
from heapq import nsmallest
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

FORMATS = ("text", "json")
SHOWN = 5  # of many


def about(**fields: object) -> dict[str, object]:
    """Returns fields for `extra` of a logging call."""
    return {"fields": fields}


def some(values: Iterable[str]) -> str:
    """Joins the first SHOWN values, sorted, with commas."""
    return ",".join(nsmallest(SHOWN, values))


def formatter(log_format: str, *, with_time: bool) -> logging.Formatter:
    return JsonLogFormatter() if log_format == "json" else TextLines(with_time=with_time)


class TextLines(logging.Formatter):
    """Formats `LEVEL logger: event field=value`. A traceback follows on separate lines."""

    def __init__(self, *, with_time: bool) -> None:
        super().__init__(("%(asctime)s " if with_time else "") + "%(levelname)s %(name)s: %(message)s")

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 (logging's name)
        line = " ".join([super().formatMessage(record), *(f"{k}={_word(v)}" for k, v in _fields(record).items())])
        return line.replace("\r", "\\r").replace("\n", "\\n")


class JsonLogFormatter(logging.Formatter):
    """Formats one JSON object per line: fields, `time`, `level`, `logger`, `message`; `exception` holds a traceback."""

    def format(self, record: logging.LogRecord) -> str:
        line = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")[:-6] + "Z",
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            **_fields(record),
        }
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line, default=str)


def _fields(record: logging.LogRecord) -> Mapping[str, object]:
    fields: Mapping[str, object] = getattr(record, "fields", {})
    return fields


def _word(value: object) -> str:
    text = str(value)
    return text if text.isprintable() and text and not set(text) & set(' "=') else json.dumps(text)
