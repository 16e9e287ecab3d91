"""Clients that ask for their session again and again. Run as a script on the exit, it polls until its input ends.

In: a line of JSON, {"sessions": [id, ...], "token": T}; one client for each. Out: a line when each was answered once;
at the end a line {"answered": [...], "failed": [...], "odd": [...]}: when a poll was answered, and when one was not,
in seconds of CLOCK_MONOTONIC, which all processes share; and the answers that nothing explains.
"""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from http.client import HTTPConnection, HTTPException
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from tests.support.tunnel.namespace import Namespace

PAUSE_S = 0.2
LONGEST_S = 600.0  # then they stop by themselves
STARTED = b"all were answered\n"


@dataclass
class Polls:
    answered: list[float] = field(default_factory=list)
    failed: list[float] = field(default_factory=list)
    odd: list[str] = field(default_factory=list)

    def downtime(self, since: float, until: float) -> float:
        """The longest time in between in which nobody was answered."""
        answered = sorted(when for when in self.answered if since <= when <= until)
        return max(later - earlier for earlier, later in pairwise([since, *answered, until]))


class Poller:
    """One client. It keeps its connection, and makes a new one after a failure."""

    def __init__(self, session_id: str, token: str, polls: Polls) -> None:
        self.answered = threading.Event()
        self._path = f"/v1/sessions/{session_id}"
        self._headers = {"Authorization": f"Bearer {token}"}
        self._polls = polls
        self._counted = (0, 0)
        self._connection = HTTPConnection("127.0.0.1", 8080, timeout=60)

    def run(self, enough: threading.Event) -> None:
        deadline = time.monotonic() + LONGEST_S
        while not enough.wait(PAUSE_S) and time.monotonic() < deadline:
            try:
                self._poll()
            except (OSError, HTTPException):
                self._polls.failed.append(time.monotonic())
                self._connection.close()
        self._connection.close()

    def _poll(self) -> None:
        self._connection.request("GET", self._path, headers=self._headers)
        answer = self._connection.getresponse()
        body = answer.read()
        self._polls.answered.append(time.monotonic())
        self.answered.set()
        session = json.loads(body)
        if answer.status != 200 or "terminated_at" in session:
            self._polls.odd.append(f"{answer.status} {session}")
            return
        counted = session["bytes_in"], session["bytes_out"]
        if any(now < before for now, before in zip(counted, self._counted, strict=True)):
            self._polls.odd.append(f"figures went down from {self._counted}: {session}")
        self._counted = counted


@contextmanager
def polling(space: Namespace, session_ids: Sequence[str], token: str) -> Iterator[Callable[[], Polls]]:
    """All have been answered when the block begins. The value stops them and tells what they saw."""
    command = (*space.prefix(sys.executable), str(Path(__file__)))
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            process.stdin.write(json.dumps({"sessions": list(session_ids), "token": token}).encode() + b"\n")
            process.stdin.flush()
            assert process.stdout.readline() == STARTED
            yield lambda: Polls(**json.loads(process.communicate(timeout=90)[0]))
        finally:
            process.kill()


def main(asked: dict[str, Any]) -> Polls:
    polls, enough = Polls(), threading.Event()
    pollers = [Poller(session_id, asked["token"], polls) for session_id in asked["sessions"]]
    threads = [threading.Thread(target=poller.run, args=(enough,)) for poller in pollers]
    for thread in threads:
        thread.start()
    for poller in pollers:
        poller.answered.wait(LONGEST_S)
    sys.stdout.write(STARTED.decode())
    sys.stdout.flush()
    sys.stdin.read()
    enough.set()
    for thread in threads:
        thread.join()
    return polls


if __name__ == "__main__":
    json.dump(asdict(main(json.loads(sys.stdin.readline()))), sys.stdout)
