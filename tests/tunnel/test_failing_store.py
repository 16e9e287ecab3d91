"""The real server while its store fails: no wrong answer, tunnels go on, and it recovers without a restart."""

from __future__ import annotations

import hashlib
import sqlite3
import time
from contextlib import closing, contextmanager
from typing import TYPE_CHECKING

import pytest

from tests.support.small_disk import PAGE, full, mount, small_disk
from tests.support.tunnel.sessions import client_key, settled_figures
from tests.support.tunnel.waiting import until
from tests.support.tunnel.world import EXIT_IP

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.support.tunnel.appliance_process import Appliance
    from tests.support.tunnel.client import Client
    from tests.support.tunnel.http_api import Answer

DISK = 4 * 2**20


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A small file system of its own."""
    with small_disk(tmp_path / "disk", DISK) as folder:
        yield folder


@contextmanager
def locked(store: Path) -> Iterator[None]:
    with closing(sqlite3.connect(store, isolation_level=None)) as other:
        other.execute("BEGIN EXCLUSIVE")
        yield


def unavailable(answer: Answer) -> bool:
    return (answer.status, answer.body) == (503, {"error": "store unavailable", "code": "store_unavailable"})


@pytest.mark.parametrize("held_s", [2.0, pytest.param(10.0, marks=pytest.mark.long)])
def test_a_store_held_by_another_process_is_said_and_got_over(
    start_appliance: Callable[..., Appliance], client: Client, show: Callable[[str], None], held_s: float
) -> None:
    """For seconds nothing can be written: POST says so, GET answers, traffic flows; then all of it is billed."""
    appliance = start_appliance()
    token = appliance.token()
    session = appliance.open(token)
    client.wg_quick(session["wg_config"])
    client.address_seen()
    answers = []
    with locked(appliance.store):
        began = time.monotonic()
        while time.monotonic() - began < held_s:
            answers.append(appliance.api("POST", "/v1/sessions", {"region": "test"}, token))
            assert appliance.api("GET", f"/v1/sessions/{session['id']}", token=token).status == 200
        assert client.address_seen() == EXIT_IP
        until(lambda: appliance.api("GET", "/readyz").status == 503, "/readyz says that the store does not work")
    released = time.monotonic()
    assert [answer for answer in answers if answer.status != 503] == []
    assert any(map(unavailable, answers))
    until(lambda: appliance.api("POST", "/v1/sessions", {"region": "test"}, token).status == 201, "POST answers again")
    again = time.monotonic() - released
    client.down()
    key = client_key(session["wg_config"])
    settled_figures(appliance, session["id"], token, key)
    show(f"held for {held_s:.0f} s: {len(answers)} times 503, a session granted {again:.2f} s after the release")


def test_a_full_disk_is_said_and_got_over(
    start_appliance: Callable[..., Appliance], client: Client, disk: Path, show: Callable[[str], None]
) -> None:
    """No byte is left on the disk: 503 and /readyz says why, nothing half done; with room, it goes on by itself."""
    appliance = start_appliance(node={"state_dir": str(disk / "state")}, meter={"interval": "1s"})
    token = appliance.token()
    session = appliance.open(token)
    client.wg_quick(session["wg_config"])
    client.address_seen()
    others: list[str] = []

    def full_is_said() -> bool:
        """Writes, meanwhile, until what the store's log has of the disk is used up."""
        opened = appliance.api("POST", "/v1/sessions", {"region": "test"}, token)
        if opened.status == 201:
            others.append(opened.body["id"])
            appliance.api("DELETE", f"/v1/sessions/{others[-1]}", token=token)
        return "full" in str(appliance.api("GET", "/readyz").body)

    with full(disk):
        until(full_is_said, "/readyz says that the disk is full")
        refused = appliance.api("POST", "/v1/sessions", {"region": "test"}, token)
        assert refused.status == 503
        assert appliance.api("DELETE", f"/v1/sessions/{session['id']}", token=token).status == 503
        assert "terminated_at" not in appliance.session(session["id"], token)
        assert client.address_seen() == EXIT_IP
    room = time.monotonic()
    until(lambda: appliance.api("GET", "/readyz").status == 200, "ready again")
    ready = time.monotonic() - room
    for other in others:
        appliance.close(other, token)
    key = client_key(session["wg_config"])
    assert appliance.peers() == {key}
    client.down()
    settled_figures(appliance, session["id"], token, key)
    assert appliance.close(session["id"], token)["terminated_reason"] == "closed"
    show(f"disk full: ready {ready:.2f} s after there was room")


def test_a_store_damaged_at_start_is_named_and_kept(start_appliance: Callable[..., Appliance]) -> None:
    """One line that names the file and the command; the file is not touched, and neither is the tunnel."""
    appliance = start_appliance(wireguard={"keep_on_exit": True})
    session = appliance.open(appliance.token())
    appliance.stop()
    key = client_key(session["wg_config"])
    whole = appliance.store.read_bytes()
    appliance.store.write_bytes(whole[:PAGE] + b"\xa5" * (len(whole) - PAGE))
    before = digest(appliance.store)
    status, words = appliance.try_to_start()
    assert status == 1
    last = words.splitlines()[-1]
    assert last.startswith(f"wg-appliance: error: the store {appliance.store} is damaged: ")
    assert last.endswith("bring a backup back with: wg-appliance restore FILE")
    assert "Traceback" not in words
    assert digest(appliance.store) == before
    assert appliance.peers() == {key}
    appliance.store.write_bytes(whole)
    appliance.start()
    assert [s["id"] for s in appliance.live_sessions()] == [session["id"]]


def test_a_store_read_only_at_start_is_named(start_appliance: Callable[..., Appliance], disk: Path) -> None:
    """A state directory that cannot be written: one line that names it, exit status 1."""
    appliance = start_appliance(node={"state_dir": str(disk / "state")})
    appliance.stop()
    mount("-o", "remount,ro", str(disk))
    status, words = appliance.try_to_start()
    assert status == 1
    assert words.count("\n") == 1
    assert str(disk / "state") in words
    assert words.startswith("wg-appliance: error: ")
    mount("-o", "remount,rw", str(disk))


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
