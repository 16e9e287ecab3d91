"""The variable that makes handshakes count for less long, for tests."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from appliance.config.load import parse_settings, read_settings
from appliance.config.reject_after import VARIABLE, reject_after_ms
from appliance.domain.carrying import REJECT_AFTER_MS
from appliance.domain.errors import ConfigError

if TYPE_CHECKING:
    from pathlib import Path


def test_without_it_wireguards_own_time_holds(caplog: pytest.LogCaptureFixture) -> None:
    """Where it is not set, a handshake counts for 180 s, and nothing is said."""
    assert reject_after_ms({"PATH": "/bin"}) == REJECT_AFTER_MS == 180_000
    assert not caplog.records


@pytest.mark.parametrize(("text", "ms"), [("1", 1000), ("3", 3000), ("003", 3000), ("180", 180_000)])
def test_a_number_of_seconds(text: str, ms: int, caplog: pytest.LogCaptureFixture) -> None:
    """It is a whole number of seconds, up to WireGuard's own, and is named in a warning."""
    assert reject_after_ms({VARIABLE: text}) == ms
    (record,) = caplog.records
    assert record.levelname == "WARNING"
    assert record.getMessage().startswith(f"{VARIABLE} is set: a handshake counts for {ms // 1000} s")
    assert "for tests only" in record.getMessage()


@pytest.mark.parametrize("text", ["0", "181", "x", "", "-1", "+3", "3.0", " 3", "3\n", "3s", "1e1", "٣", "9" * 5000])
def test_anything_else_is_refused(text: str) -> None:
    """What is no such number is refused by the variable's name, in one line, with what is allowed."""
    with pytest.raises(ConfigError) as refused:
        reject_after_ms({VARIABLE: text})
    assert str(refused.value) == f"{VARIABLE} = {text!r}: must be a whole number of seconds, 1 to 180"


@pytest.mark.parametrize("text", ["3", "x"])
def test_it_is_no_setting(text: str, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """The configuration takes no notice of it, and says nothing of it: only the server reads it."""
    assert parse_settings("", {VARIABLE: text}, "host") == parse_settings("", {}, "host")
    read_settings(None, {VARIABLE: text}, tmp_path / "config.toml")
    assert not caplog.records


@pytest.mark.parametrize(
    "name", [f"{VARIABLE}S", VARIABLE.removesuffix("R"), "WG_APPLIANCE_REJECT_AFTER", VARIABLE.replace("TEST", "TESTS")]
)
def test_a_name_that_is_nearly_it_changes_nothing(name: str, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A misspelt name is left alone, as a platform's variable is, and named in a warning: 180 s hold."""
    read_settings(None, {name: "3"}, tmp_path / "config.toml")
    (record,) = caplog.records
    assert record.getMessage().startswith(f"{name} ")
    assert "left alone" in record.getMessage()
    assert reject_after_ms({name: "3"}) == REJECT_AFTER_MS
