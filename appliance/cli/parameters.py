"""Declares the types of commands' arguments; any other form is a usage error that names what is allowed."""

from __future__ import annotations

import re
from typing import NamedTuple

import click

from appliance.config.value_types import DURATIONS, REGION, UNICAST, Kind, duration, show
from appliance.domain.charges import month_bounds
from appliance.domain.device_name import SEPARATOR
from appliance.domain.entities import WORDS
from appliance.domain.tiers import Tier

NO_RESOLVERS = "none"  # instead of the addresses of --dns
TIER = click.Choice([tier.value for tier in Tier])


class DeviceName(NamedTuple):
    """Names a device of an account."""

    account: str
    device: str

    def __str__(self) -> str:
        return f"{self.account}{SEPARATOR}{self.device}"


class Text(click.ParamType):  # type: ignore[type-arg]  # no generic class before click 8.4
    """Accepts text on one line, which fits into a table, without characters that SQLite or JSON would refuse."""

    name = "text"

    def __init__(self, shortest: int, longest: int) -> None:
        self._shortest = shortest
        self._longest = longest

    def convert(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> str:
        # isprintable() is false for control characters, line ends and undecodable bytes.
        if self._shortest <= len(value) <= self._longest and value.isprintable() and value == value.strip():
            return value
        return self.fail(
            f"{show(value)}: must be {self._shortest} to {self._longest} printable characters, no space at either end",
            param,
            ctx,
        )


class EndReason(Text):
    """Accepts what a session's client is told as its reason; not what the exit says itself."""

    name = "reason"

    def convert(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> str:
        if value in WORDS:
            return self.fail(f"{show(value)}: is a reason of the exit's own, must be other words", param, ctx)
        return super().convert(value, param, ctx)


class Duration(click.ParamType):  # type: ignore[type-arg]  # no generic class before click 8.4
    """Accepts a duration as in the configuration, more than zero and with a unit; its value is in seconds.

    A bare number is refused: whether it was meant as seconds or days is known to its writer alone.
    """

    name = "duration"
    _kind = duration("1s")

    def convert(self, value: str | int, param: click.Parameter | None, ctx: click.Context | None) -> int:
        try:
            seconds: int = self._kind.parse(value)
        except ValueError:
            allowed = f"a duration from 1s to 36500d with its unit ({', '.join(DURATIONS)}), as in 30d or 12h"
            return self.fail(f"{show(value)}: must be {allowed}", param, ctx)
        return seconds


class Setting(click.ParamType):  # type: ignore[type-arg]  # no generic class before click 8.4
    """Accepts, as text, a value that a key of the configuration accepts."""

    name = "setting"

    def __init__(self, kind: Kind) -> None:
        self._kind = kind

    def convert(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> str:
        try:
            self._kind.parse(value)
        except ValueError:
            return self.fail(f"{show(value)}: must be {self._kind.allowed}", param, ctx)
        return value


class Month(click.ParamType):  # type: ignore[type-arg]  # no generic class before click 8.4
    """Accepts a calendar month such as 2026-11."""

    name = "month"

    def convert(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> str:
        try:
            if not re.fullmatch(r"[0-9]{4}-[0-9]{2}", value):
                raise ValueError
            month_bounds(value)
        except ValueError:
            return self.fail(f"{show(value)}: must be a year and a month, as in 2026-11", param, ctx)
        return value


class OfAccount(click.ParamType):  # type: ignore[type-arg]  # no generic class before click 8.4
    """Accepts ACCOUNT/NAME, split at the last slash. What a device may be called is decided by the command."""

    name = "device"

    def convert(self, value: str | DeviceName, param: click.Parameter | None, ctx: click.Context | None) -> DeviceName:
        if isinstance(value, DeviceName):
            return value
        account, separator, device = value.rpartition(SEPARATOR)
        if not separator:
            return self.fail(f"{show(value)}: must be ACCOUNT/NAME, as in alice/phone", param, ctx)
        return DeviceName(NAME.convert(account, param, ctx), device)


NAME = Text(1, 64)
LABEL = Text(0, 200)
REASON = EndReason(1, 200)
ID = Text(1, 200)
LIMIT = click.IntRange(min=0)
DURATION = Duration()
ADDRESS = Setting(UNICAST)
REGION_CODE = Setting(REGION)
DEVICE = OfAccount()
