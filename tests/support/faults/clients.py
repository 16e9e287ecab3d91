"""Clients and an operator that keep a real exit busy, and remember what they asked for and what they were told."""

from __future__ import annotations

import re
import sqlite3
import subprocess
from collections import Counter
from contextlib import closing
from dataclasses import dataclass
from enum import IntEnum
from http.client import HTTPException
from typing import TYPE_CHECKING, Any, NamedTuple

from appliance.network.wireguard import keys
from tests.support.faults.real_exit import REGION, SHORT_LIVED

if TYPE_CHECKING:
    import threading
    from random import Random

    from tests.support.faults.real_exit import RealExit, UnixConnection

MOST_LIVE = 8  # of a client's sessions, before it ends some
PAUSE_S = 0.03  # between two acts of the operator
ENDED_AT_ONCE = 3  # by the operator
# By a server that was made to stand still for so long that its counters are not up to date; nothing has begun.
TURNED_AWAY = (503, {"error": "no active nodes", "code": "no_active_nodes"})


class Ending(IntEnum):
    """What was done to end a session. DONE: whoever asked for it was told that it has ended, or will."""

    NONE = 0
    ASKED = 1
    DONE = 2


@dataclass
class Told:
    """A session as its client knows it; `addresses` None where the answer with them never came."""

    key: str
    addresses: frozenset[str] | None
    ending: Ending = Ending.NONE
    settled: bool = False  # it was seen to have ended


class Request(NamedTuple):
    """`subject` is the public key of a POST, and the session's id else."""

    method: str
    subject: str


class Client:
    """An account's holder, in a thread."""

    def __init__(self, exit_: RealExit, token: str, tier: str, random: Random) -> None:
        self.token = token
        self.short_lived = tier == SHORT_LIVED
        self.sessions: dict[str, Told] = {}
        self.under_way: Request | None = None  # still, when the server has died: cut short
        self.answers: Counter[str] = Counter()
        self.odd: list[str] = []  # answers that nothing explains
        self._exit = exit_
        self._random = random

    def run(self, enough: threading.Event) -> None:
        """Ask until told that it is enough, or until the server is gone."""
        self.under_way = None
        try:
            with self._exit.connection() as connection:
                while not enough.is_set():
                    self._act(connection)
        except (OSError, HTTPException):
            return

    def live(self) -> list[str]:
        """Those that it did not end. A short-lived one ends by itself."""
        return [] if self.short_lived else [id_ for id_, told in self.sessions.items() if told.ending is Ending.NONE]

    def _act(self, connection: UnixConnection) -> None:
        live = self.live()
        what = self._random.choices(("post", "replace", "delete", "get"), (4, 2, 3, 1))[0]
        if what == "post" and len(live) >= MOST_LIVE:
            what = "delete"
        if what == "post" or not live:
            self._post(connection, keys.encode(keys.public_key(keys.generate_private_key())), None)
        elif what == "replace":
            old = self._random.choice(live)
            self._post(connection, self.sessions[old].key, old)
        elif what == "delete":
            self._delete(connection, self._random.choice(live))
        else:
            session_id = self._random.choice(live)
            self._ask(connection, Request("GET", session_id), f"/v1/sessions/{session_id}", 200)

    def _post(self, connection: UnixConnection, key: str, old: str | None) -> None:
        if old is not None:
            self.sessions[old].ending = Ending.ASKED
        body = {"region": REGION, "client_public_key": key}
        opened = self._ask(connection, Request("POST", key), "/v1/sessions", 201, body)
        if opened is None:
            return
        if old is not None:
            self.sessions[old].ending = Ending.DONE
        found = re.search(r"^Address = (.*)$", opened["wg_config"], re.MULTILINE)
        assert found is not None
        self.sessions[opened["id"]] = Told(key, frozenset(found[1].split(", ")))

    def _delete(self, connection: UnixConnection, session_id: str) -> None:
        told = self.sessions[session_id]
        told.ending = Ending.ASKED
        if self._ask(connection, Request("DELETE", session_id), f"/v1/sessions/{session_id}", 200) is not None:
            told.ending = Ending.DONE

    def _ask(
        self, connection: UnixConnection, request: Request, path: str, expected: int, body: object = None
    ) -> dict[str, Any] | None:
        """The answer's body. None where it is another than expected: an odd one, or the client was turned away."""
        self.under_way = request
        status, answer = connection.ask(request.method, path, self.token, body)
        self.under_way = None
        self.answers[f"{request.method} {status}"] += 1
        if status == expected:
            found: dict[str, Any] = answer
            return found
        if (status, answer) == TURNED_AWAY:
            return None
        self.odd.append(f"{request.method} {path}: {status} {answer}")
        return None


class Operator:
    """Ends sessions as an admin command does, and touches the interface: both make the server tick at once."""

    def __init__(self, exit_: RealExit) -> None:
        self.ended: dict[str, Ending] = {}
        self._exit = exit_

    def run(self, enough: threading.Event) -> None:
        number = 0
        while not enough.wait(PAUSE_S):
            number += 1
            self._end_some()
            self._touch_interface(1400 - number % 2)

    def _end_some(self) -> None:
        with closing(sqlite3.connect(self._exit.store, isolation_level=None)) as db:
            query = "SELECT id FROM sessions WHERE state = 'live' ORDER BY random() LIMIT ?"
            chosen = [row[0] for row in db.execute(query, (ENDED_AT_ONCE,))]
            self.ended |= dict.fromkeys(chosen, Ending.ASKED)
            db.execute("BEGIN IMMEDIATE")
            db.executemany(
                "UPDATE sessions SET state = 'closing', reason = 'admin' WHERE id = ? AND state = 'live'",
                [(session_id,) for session_id in chosen],
            )
            db.execute("UPDATE node SET requested = requested + 1")
            db.execute("COMMIT")
            # One that was not live any more has ended otherwise.
            self.ended |= dict.fromkeys(chosen, Ending.DONE)

    def _touch_interface(self, mtu: int) -> None:
        """Where it is: at a killed start it may not be there yet."""
        with self._exit.space.entered():
            command = ["ip", "link", "set", "dev", self._exit.interface, "mtu", str(mtu)]
            subprocess.run(command, check=False, capture_output=True, timeout=60)
