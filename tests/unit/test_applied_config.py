"""The note of what the server runs with."""

from __future__ import annotations

from typing import TYPE_CHECKING

from appliance.config import applied
from appliance.config.load import parse_settings
from appliance.config.reloadable import differing, in_force
from appliance.config.settings import KEYS, by_key

if TYPE_CHECKING:
    from pathlib import Path

    import pytest

BEFORE = parse_settings("[pricing]\n", {}, "host")
AFTER = parse_settings('[node]\nregion = "fsn"\n[tiers.free]\nmax_live_sessions = 7\n', {}, "host")


def test_every_key_is_noted_and_read_back(tmp_path: Path) -> None:
    """Every key is in it; a second note takes the place of the first, and nothing else is left in the folder."""
    file = tmp_path / "running.json"
    applied.note(file, BEFORE)
    assert applied.read(file) == by_key(BEFORE)
    assert set(by_key(BEFORE)) == {".".join(path) for path in KEYS}
    applied.note(file, AFTER)
    assert applied.read(file) == by_key(AFTER)
    assert list(tmp_path.iterdir()) == [file]


def test_a_missing_or_cut_short_note_is_none(tmp_path: Path) -> None:
    """No note, or one that is cut short, is none."""
    file = tmp_path / "running.json"
    assert applied.read(file) is None
    file.write_text('{"node.na', encoding="utf-8")
    assert applied.read(file) is None


def test_a_note_that_cannot_be_written_is_logged_and_no_more(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A full disk, or no folder: a line in the log, and the server goes on."""
    applied.note(tmp_path / "no folder" / "running.json", BEFORE)
    assert "cannot note the settings in use" in caplog.text


def test_in_force_after_a_reload() -> None:
    """Tiers and prices are taken over; what differs still is the rest."""
    now = in_force(BEFORE, AFTER)
    assert differing(by_key(now), by_key(AFTER)) == ["node.region"]
    assert now.pricing is None
