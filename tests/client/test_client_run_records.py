"""Names of tunnels, and what is noted of them."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from appliance.client import run_records
from appliance.client.run_records import PREFIX, abandoned, claimed, whole_machine
from appliance.domain.errors import HostError

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Instead of /run; and no interface has any of the names."""
    monkeypatch.setattr(run_records, "FOLDER", tmp_path / "run")
    monkeypatch.setattr(run_records, "_is_free", lambda _: True)
    return tmp_path / "run"


def die_with_a_session() -> None:
    """What a killed run leaves: a note that nobody has locked."""
    with claimed("command") as place:
        place.note_session("https://exit.example", "ses_1")


def test_runs_at_once_have_names_of_their_own(folder: Path) -> None:
    """Each has a name of its own; the notes go when nothing was made, and are root's alone."""
    with claimed("command") as first, claimed("command") as second:
        assert [first.record.interface, second.record.interface] == ["wgc0", "wgc1"]
        assert {path.stat().st_mode & 0o777 for path in (folder, *folder.iterdir())} == {0o700, 0o600}
    assert list(folder.iterdir()) == []


@pytest.mark.parametrize("kind", ["machine", "command"])
def test_one_for_all_traffic(kind: run_records.Kind) -> None:
    """While all traffic goes into a tunnel there is no other, of either kind."""
    with (
        claimed("machine") as place,
        pytest.raises(HostError, match=f"connected already, by process {place.record.pid}"),
        claimed(kind),
    ):
        pass
    with claimed(kind):
        pass


def test_a_run_beside_it_finds_the_mark(folder: Path) -> None:
    """Who asks the API beside it finds how to get past it; not after its end, nor in another network namespace."""
    assert whole_machine() is None
    with claimed("machine") as place:
        place.note_session("https://exit.example", "ses_1")
        place.note_mark(51820)
        found = whole_machine()
        assert found is not None
        assert (found.mark, found.session) == (51820, "ses_1")
        (file,) = folder.glob("*.json")
        file.write_text(json.dumps(json.loads(file.read_text()) | {"namespace": 1}))
        assert whole_machine() is None


def test_what_a_killed_run_left() -> None:
    """It is found once, by whoever locks it; its name is another's until it has been taken away."""
    die_with_a_session()
    with abandoned() as left:
        assert [place.record.session for place in left] == ["ses_1"]
        with abandoned() as again:
            assert again == []
        with claimed("command") as beside:
            assert beside.record.interface == "wgc1"
        left[0].empty()
    with claimed("command") as place:
        assert place.record.interface == "wgc0"


def test_of_another_network_namespace(folder: Path) -> None:
    """It is for a run there to take away."""
    die_with_a_session()
    (file,) = folder.glob("*.json")
    file.write_text(json.dumps(json.loads(file.read_text()) | {"namespace": 1}))
    with abandoned() as left:
        assert left == []
    with claimed("command") as place:
        assert place.record.interface == "wgc1"


def test_an_empty_note(folder: Path) -> None:
    """As of a run that was killed before it wrote, and before it made anything: no error, and it goes."""
    folder.mkdir(mode=0o700)
    (folder / "wgc0.json").touch()
    with abandoned() as left:
        assert left == []
    assert list(folder.iterdir()) == []
    assert whole_machine() is None


@pytest.mark.parametrize("missing", ["content", "note"])
def test_a_note_that_is_lost(folder: Path, missing: str) -> None:
    """Emptied, or gone, and the file of its tunnel is there: that tells that something was made."""
    folder.mkdir(mode=0o700)
    if missing == "content":
        (folder / "wgc0.json").touch()
    (folder / "wgc0.conf").touch()
    with abandoned() as left:
        assert [(place.record.interface, place.is_readable) for place in left] == [("wgc0", False)]
        left[0].empty()
    assert list(folder.iterdir()) == []


@pytest.mark.parametrize("content", ["nonsense", "[]", '{"interface": "wgc0"}', '{"interface": "wgc0', "9" * 5000, "["])
def test_a_note_that_cannot_be_read(folder: Path, content: str) -> None:
    """What it was of may still be there: it is found under its name each time, and the name is not used again."""
    folder.mkdir(mode=0o700)
    (folder / "wgc0.json").write_text(content)
    for _ in range(2):
        with abandoned() as left:
            assert [(place.record.interface, place.is_readable) for place in left] == [("wgc0", False)]
    with claimed("command") as place:
        assert place.record.interface == "wgc1"
    assert whole_machine() is None


def test_a_long_note() -> None:
    """A URL and an id of any length are read again."""
    with claimed("command") as place:
        place.note_session(f"https://{'x' * 5000}", f"ses_{'x' * 5000}")
    with abandoned() as left:
        assert [place.record.session for place in left] == [f"ses_{'x' * 5000}"]


def test_a_note_with_more_in_it(folder: Path) -> None:
    """Of a later version, or with what a longer one before it has left behind: what is known of it counts."""
    die_with_a_session()
    (file,) = folder.glob("*.json")
    file.write_text(json.dumps(json.loads(file.read_text()) | {"later": 1}) + '"}')
    with abandoned() as left:
        assert [(place.record.session, place.is_readable) for place in left] == [("ses_1", True)]


@pytest.mark.parametrize("place", ["a file", "a link", "a folder at a note's path"])
def test_no_room_for_notes(folder: Path, place: str) -> None:
    """Where no folder can be made, or no file in the one that is there: what is wrong, and two ways out."""
    if place == "a file":
        folder.touch()
    elif place == "a folder at a note's path":
        (folder / f"{PREFIX}0.json").mkdir(parents=True)
    else:
        folder.symlink_to("/nonexistent/folder")
    remedy = "mount a tmpfs on it" if place == "a folder at a note's path" else f"remove {folder}, which is no folder"
    with (
        pytest.raises(HostError, match=rf"cannot note in .*; .*{remedy}, or .*connect --config-only FILE"),
        claimed("machine"),
    ):
        pass
