"""Commands that change live state end when the running server has acted on it, or say why not."""

from __future__ import annotations

import sqlite3
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest

from appliance.domain import ids
from appliance.domain.entities import Token
from appliance.store.queries import accounts, tokens

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    import aiosqlite

    from tests.support.cli.command_line import CommandLine

TOKEN_ID = "tok_" + "0" * 16
NOT_RUNNING = "the server is not running: this takes effect when it starts\n"

CHANGES = [
    ("account", "set", "alice", "--disabled"),
    ("account", "set", "alice", "--tier", "paid"),
    ("account", "delete", "alice"),
    ("token", "revoke", TOKEN_ID),
    ("session", "terminate", f"ses_{2:024x}"),
    ("device", "add", "alice/laptop"),
    ("device", "rename", "alice/phone", "tablet"),
    ("device", "pause", "alice/phone"),
    ("device", "resume", "alice/phone"),
    ("device", "rotate", "alice/phone"),
    ("device", "remove", "alice/phone"),
    ("node", "drain"),
    ("node", "drain", "--now"),
    ("node", "resume"),
]


@pytest.fixture
def busy(wga: CommandLine) -> CommandLine:
    """With an account that has a token, a live session and a device."""
    with wga.config.open("a", encoding="utf-8") as config:
        config.write('public_ip = "192.0.2.1"\n')
    wga.do("device", "add", "alice/phone")

    async def insert(db: aiosqlite.Connection) -> None:
        owner = await accounts.by_name(db, "alice")
        assert owner is not None
        token = Token(TOKEN_ID, owner.name, owner.tier, "", created_at=0, expires_at=None, revoked_at=None)
        await tokens.insert(db, owner, token, ids.token_hash("a secret"))
        await db.execute("UPDATE node SET requested = 0")

    wga.write(insert)
    wga.open_session("alice", 2)
    return wga


@contextmanager
def serving(wga: CommandLine) -> Iterator[None]:
    """What a running server does for admin commands: holds the lock, and acknowledges what is asked of it."""
    stop, ready = threading.Event(), threading.Event()

    def acknowledge() -> None:
        store = sqlite3.connect(wga.state.store, isolation_level=None, timeout=60)
        try:
            ready.set()
            while not stop.wait(0.02):
                store.execute("UPDATE node SET applied = requested WHERE applied < requested")
        finally:
            store.close()

    with wga.state.serving():
        thread = threading.Thread(target=acknowledge)
        thread.start()
        try:
            assert ready.wait(10)
            yield
        finally:
            stop.set()
            thread.join()


def numbers(wga: CommandLine) -> tuple[int, int]:
    store = sqlite3.connect(wga.state.store)
    try:
        requested, applied = store.execute("SELECT requested, applied FROM node").fetchone()
    finally:
        store.close()
    return requested, applied


@pytest.mark.parametrize("change", CHANGES, ids=" ".join)
def test_the_server_has_acted_when_the_command_returns(busy: CommandLine, change: tuple[str, ...]) -> None:
    """With a server that acknowledges: status 0, no remark about it, and nothing is left unacknowledged."""
    with serving(busy):
        done = busy.do(*change)
        assert numbers(busy) == (1, 1)
    assert NOT_RUNNING not in done.err


@pytest.mark.parametrize("change", CHANGES, ids=" ".join)
def test_without_a_server_that_is_said(busy: CommandLine, change: tuple[str, ...]) -> None:
    """Status 0, the remark, and the request waits in the store."""
    done = busy.do(*change)
    assert done.err.startswith(NOT_RUNNING)
    assert numbers(busy) == (1, 0)


def test_a_server_that_does_not_act_is_a_failure(busy: CommandLine) -> None:
    """With a server that is stuck: status 1 and one line; the change is stored all the same."""
    with busy.state.serving():
        refused = busy.process("node", "drain")
    assert (refused.status, refused.out) == (1, "")
    assert refused.err == (
        "wg-appliance: error: the change is stored, but the running server has not acted on it within 5 s; "
        "see its log\n"
    )
    assert busy.json("node", "status")["drained"] is True


@pytest.mark.parametrize("command", [("add", "alice/laptop"), ("rotate", "alice/phone")])
def test_a_key_is_not_lost_with_a_server_that_does_not_act(
    busy: CommandLine, tmp_path: Path, command: tuple[str, ...]
) -> None:
    """The device has its key, so its file is handed over; status 1 and the line of the server come after it."""
    path = tmp_path / "file"
    with busy.state.serving():
        refused = busy.process("device", *command, "--file", str(path))
    assert refused.status == 1
    assert refused.err.splitlines()[-2:] == [
        f"written: {path}",
        "wg-appliance: error: the change is stored, but the running server has not acted on it within 5 s; see its log",
    ]
    key = busy.json("device", "show", command[1])["public_key"]
    assert f"# PublicKey = {key}\n" in path.read_text(encoding="utf-8")


@pytest.mark.parametrize("command", [("token", "create", "--account", "alice"), ("account", "create", "bob")])
def test_what_the_server_looks_up_needs_no_wait(busy: CommandLine, command: tuple[str, ...]) -> None:
    """Tokens and accounts that are new are in no memory: a stuck server holds nothing up, and is asked nothing."""
    with busy.state.serving():
        busy.do(*command)
    assert numbers(busy) == (0, 0)


def test_a_refused_change_asks_nothing_of_the_server(busy: CommandLine) -> None:
    """An unknown account or token fails at once and leaves no request behind."""
    with busy.state.serving():
        assert busy("account", "delete", "nobody").status == 1
        assert busy("token", "revoke", "tok_" + "f" * 16).status == 1
    assert numbers(busy) == (0, 0)
