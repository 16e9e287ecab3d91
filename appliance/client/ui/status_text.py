"""Words a connection's status as a status line, as JSON and as a receipt. Pure."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from appliance.client.api.responses import COST, QUOTAS
from appliance.client.humanize import brief_span, clock_time, long_span, price, short_size, size, span
from appliance.client.run_totals import RunTotals

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

BAR, SHORT_BAR = 10, 5
WRITTEN_SHORT = 6  # parts of more weight are dropped before the others are shortened
SEPARATOR = "  "  # between the parts of the line
STALE_HANDSHAKE_S = 180  # a live tunnel has a handshake at least every 3 minutes (REJECT_AFTER_TIME)


@dataclass(frozen=True, slots=True)
class Glyphs:
    up: str
    down: str
    full: str
    empty: str


UNICODE = Glyphs("↑", "↓", "█", "░")
ASCII = Glyphs("up", "down", "#", "-")


@dataclass(frozen=True, slots=True)
class Traffic:
    """Holds what the tunnel carries. `down`, `up`: bytes since this connection began; the rates: bytes per second."""

    down: int
    up: int
    down_rate: float
    up_rate: float
    handshake_age_s: float | None  # None before the first handshake


@dataclass(frozen=True, slots=True)
class View:
    """Holds the status to show. `session`: the API's last answer. `away`: why the API has not answered since; empty if
    it has. `earlier`: of the run's sessions before this one."""

    id: str
    region: str
    public_ip: str
    elapsed_s: float
    traffic: Traffic
    session: Mapping[str, Any]
    away: str = ""
    earlier: RunTotals = field(default_factory=RunTotals)

    @property
    def total(self) -> RunTotals:
        return self.earlier.plus(self.session)


@dataclass(frozen=True, slots=True)
class Part:
    """Holds a piece of the status line.

    `weight`: the heaviest parts are dropped first if the line is too long. `short`: the same in fewer columns, if there
    is such a form.
    """

    text: str
    style: str = ""
    weight: int = 0
    short: str = ""


def rates(earlier: tuple[float, int, int] | None, now: tuple[float, int, int]) -> tuple[float, float]:
    """Returns bytes per second, down and up, from two readings of (time, down, up)."""
    if earlier is None or now[0] <= earlier[0]:
        return 0.0, 0.0
    passed = now[0] - earlier[0]
    # A tunnel that was created anew counts from zero.
    return max(0, now[1] - earlier[1]) / passed, max(0, now[2] - earlier[2]) / passed


def parts(view: View, glyphs: Glyphs) -> list[Part]:
    """Returns the whole line's parts, from left to right."""
    traffic, total = view.traffic, view.total
    shown = [
        Part(view.region, "bold", weight=5),
        Part(view.public_ip, weight=7),
        *_times(int(view.elapsed_s), total),
        Part(f"{glyphs.down} {size(traffic.down)}", "green", short=f"{glyphs.down} {short_size(traffic.down)}"),
        _rate(traffic.down_rate),
        Part(f"{glyphs.up} {size(traffic.up)}", "cyan", short=f"{glyphs.up} {short_size(traffic.up)}"),
        _rate(traffic.up_rate),
        _handshake(traffic.handshake_age_s),
    ]
    left = quota_left(view.session)
    if left is not None:
        style = "green" if left.share > 0.25 else "yellow" if left.share > 0.1 else "red"
        shown += [
            Part(_bar(left.share, BAR, glyphs), style, weight=2, short=_bar(left.share, SHORT_BAR, glyphs)),
            Part(f"{left.amount} left", style, weight=4),
        ]
    cost = total_cost(total)
    if cost is not None:
        shown.append(Part(cost, "magenta", weight=1))
    if view.away:
        short = "no word from the API"
        shown.append(Part(f"{short} ({view.away})", "yellow", weight=1, short=short))
    return shown


def fit(line: Sequence[Part], width: int) -> list[Part]:
    """Returns the parts that fit into `width` columns: drops the heaviest, shortens the others."""
    kept = _without_heaviest(line, width, down_to=WRITTEN_SHORT)
    if _columns(kept) <= width:
        return kept
    return _without_heaviest([replace(part, text=part.short or part.text) for part in kept], width)


def _without_heaviest(line: Sequence[Part], width: int, down_to: int = 0) -> list[Part]:
    kept = list(line)
    while kept and _columns(kept) > width:
        heaviest = max(kept, key=lambda part: part.weight)
        if heaviest.weight <= down_to:
            break
        kept.remove(heaviest)
    return kept


def _columns(line: Sequence[Part]) -> int:
    return sum(len(part.text) for part in line) + len(SEPARATOR) * (len(line) - 1)


def as_json(view: View) -> dict[str, Any]:
    """Returns the status event, with the API's names where it has them. Null: not known."""
    traffic, age = view.traffic, view.traffic.handshake_age_s
    quotas = {name: view.session.get(name) for name in (*QUOTAS, *COST, "cost_currency")}
    return {
        "event": "status",
        "id": view.id,
        "region": view.region,
        "public_ip": view.public_ip,
        "elapsed_seconds": int(view.elapsed_s),
        "counted_seconds": view.total.seconds,
        "down_bytes": traffic.down,
        "up_bytes": traffic.up,
        "down_bytes_per_second": int(traffic.down_rate),
        "up_bytes_per_second": int(traffic.up_rate),
        "handshake_age_seconds": None if age is None else int(age),
        **quotas,
        "api_away": view.away or None,
    }


def receipt(elapsed_s: float, session: Mapping[str, Any], total: RunTotals) -> list[tuple[str, str]]:
    """Returns the receipt's (name, value) lines.

    `session`: the last one's final figures, as DELETE returns them. `total`: of all sessions of the run, with this one.
    """
    which = str(session["id"])
    fields = [
        ("session", which if total.sessions == 1 else f"{which}, the last of {total.sessions}"),
        ("ended", str(session.get("terminated_reason", "not yet"))),
        ("connected", clock_time(int(elapsed_s))),
        *([] if total.seconds is None else [("counted", clock_time(total.seconds))]),
        ("downloaded", size(total.bytes_out)),
        ("uploaded", size(total.bytes_in)),
    ]
    left = quota_left(session)
    if left is not None:
        fields.append(("quota left", left.amount))
    cost = total_cost(total)
    if cost is not None:
        fields.append(("cost", cost))
    return fields


@dataclass(frozen=True, slots=True)
class Left:
    """Says what is left of a quota window: its share from 0 to 1, and the amount in words."""

    share: float
    amount: str


def quota_left(session: Mapping[str, Any]) -> Left | None:
    """Returns what is left of the window with the smaller share left; None if nothing is metered."""
    windows = []
    for window, shown in (("bytes", size), ("seconds", long_span)):
        limit = session.get(f"quota_{window}_limit", 0)
        if limit:
            left = max(0, limit - session.get(f"quota_{window}_used", 0))
            windows.append(Left(left / limit, shown(left)))
    return min(windows, key=lambda left: left.share, default=None)


def total_cost(total: RunTotals) -> str | None:
    """Returns what the sessions cost; None: no price is configured."""
    return " + ".join(price(amount, currency) for currency, amount in total.millicents.items()) or None


def _times(elapsed_s: int, total: RunTotals) -> list[Part]:
    """Returns for how long the run is connected, and the time of it that the exit counts, which is what is paid for."""
    if total.seconds is None:
        return [Part(clock_time(elapsed_s))]
    minutes = total.seconds if total.seconds < 60 else total.seconds // 60 * 60
    return [
        Part(f"connected {clock_time(elapsed_s)}", short=clock_time(elapsed_s)),
        Part(
            f"counted {clock_time(total.seconds)}",
            weight=3 if total.millicents else WRITTEN_SHORT,
            short=f"counted {brief_span(minutes)}",
        ),
    ]


def _rate(bytes_per_s: float) -> Part:
    count = int(bytes_per_s)
    return Part(f"({size(count)}/s)", weight=3, short=f"{short_size(count)}/s")


def _bar(share: float, columns: int, glyphs: Glyphs) -> str:
    full = min(columns, int(share * columns + 0.5))
    return glyphs.full * full + glyphs.empty * (columns - full)


def _handshake(age_s: float | None) -> Part:
    if age_s is None:
        return Part("no handshake yet", "yellow", short="no handshake")
    style = "yellow" if age_s > STALE_HANDSHAKE_S else ""
    short = f"handshake {span(int(age_s * 1000))}"
    return Part(f"{short} ago", style, weight=0 if style else 1, short=short)
