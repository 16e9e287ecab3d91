"""Words the use of an account's windows, the same for its operator and for its owner. Pure."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Any, NamedTuple

from appliance.client.humanize import allowance, brief_span, size
from appliance.domain.errors import HostError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

SHOWN: Mapping[str, Callable[[int], str]] = {"bytes": size, "time": brief_span}
# By window, the members of the answer to GET /v1/usage: what was used, the limit, and when the window resets.
MEMBERS = {
    "bytes": ("bytes_used", "bytes_limit", "bytes_window_resets_at"),
    "time": ("session_seconds", "session_seconds_limit", "seconds_window_resets_at"),
}
TYPES: Mapping[str, type] = {
    name: kind for names in MEMBERS.values() for name, kind in zip(names, (int, int, str), strict=True)
}


class WindowUse(NamedTuple):
    """Holds what was used of a window. `limit`: 0 means unmetered."""

    used: int
    limit: int
    resets_in_s: int


def usage_fields(windows: Mapping[str, WindowUse]) -> list[tuple[str, str]]:
    """Returns names and texts: "5m of 2h, resets in 23 h"; of an unmetered window also what was used of it.

    `windows`: by a name of SHOWN.
    """
    fields = []
    for name, use in windows.items():
        shown = SHOWN[name]
        fields.append((name, allowance(shown(use.used), shown(use.limit) if use.limit else None, use.resets_in_s)))
    return fields + [(f"{name} used", SHOWN[name](use.used)) for name, use in windows.items() if not use.limit]


def answered_fields(body: Mapping[str, Any], now_s: float) -> list[tuple[str, str]]:
    """Returns the same of an answer to GET /v1/usage, and the tier; without a window that it does not tell.

    Raises HostError if a time in it is none.
    """
    told = {name: names for name, names in MEMBERS.items() if all(each in body for each in names)}
    return [("tier", body["tier"]), *usage_fields({name: _use(body, told[name], now_s) for name in told})]


def _use(body: Mapping[str, Any], names: tuple[str, str, str], now_s: float) -> WindowUse:
    used, limit, resets_at = (body[name] for name in names)
    try:
        at = datetime.fromisoformat(resets_at)
        if at.tzinfo is None:
            raise ValueError
        return WindowUse(used, limit, int(at.timestamp() - now_s))
    except (ValueError, OverflowError) as error:
        raise HostError(f"the API's answer has an invalid {names[2]}; is it this appliance that answers?") from error
