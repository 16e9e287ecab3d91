"""One source that takes all the places it can get, beside clients that take their time."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import threading
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import pytest

from tests.support.faults.real_exit import PROJECT
from tests.support.faults.tcp_exit import ADDRESS, serving_tcp
from tests.support.tunnel.waiting import READY_SECONDS

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.support.faults.tcp_exit import TcpExit

MANY, SECONDS = 6000, 4.0
GOOD_CLIENTS, PAUSE_S = 4, 0.5  # in the middle of a request


@dataclass
class Slow:
    """A client that takes its time to ask, each time on a new connection."""

    exit_: TcpExit
    token: str
    stop: threading.Event
    answers: list[float] = field(default_factory=list)
    faults: list[object] = field(default_factory=list)

    def run(self) -> None:
        while not self.stop.is_set():
            began = time.perf_counter()
            try:
                answer = self._ask()
            except OSError as error:
                answer = repr(error).encode()
            if answer.startswith(b"HTTP/1.1 200 "):
                self.answers.append(time.perf_counter() - began - PAUSE_S)
            else:
                self.faults.append(answer)

    def _ask(self) -> bytes:
        with self.exit_.space.entered():
            connection = socket.create_connection(ADDRESS, READY_SECONDS)
        with connection:
            connection.sendall(b"GET /v1/usage HTTP/1.1\r\nHost: exit.test\r\n")
            time.sleep(PAUSE_S)
            connection.sendall(f"Authorization: Bearer {self.token}\r\nConnection: close\r\n\r\n".encode())
            return connection.recv(65536)


@pytest.mark.black_box
def test_one_source_takes_no_place_of_others(once: str, show: Callable[[str], None]) -> None:
    """While one address opens 1,500 silent connections a second, clients of another one get every answer, also where
    they take their time to ask."""
    with serving_tcp(once) as exit_:
        token, stop = exit_.token("ada", "paid"), threading.Event()
        clients = [Slow(exit_, token, stop) for _ in range(GOOD_CLIENTS)]
        threads = [threading.Thread(target=client.run) for client in clients]
        with exit_.space.entered():
            command = [sys.executable, "-m", "tests.faults.attacker", "one_source", "--port", str(ADDRESS[1])]
            command += ["--many", str(MANY), "--seconds", str(SECONDS)]
            for thread in threads:
                thread.start()
            flood = subprocess.run(command, cwd=PROJECT, capture_output=True, text=True, timeout=120, check=False)
        stop.set()
        for thread in threads:
            thread.join(READY_SECONDS)
        assert flood.returncode == 0, flood.stderr
        took = sorted(one for client in clients for one in client.answers)
        faults = [fault for client in clients for fault in client.faults]
        opened = json.loads(flood.stdout)["connections"]
        show(f"{opened} connections of one source; {len(took)} answers, {len(faults)} lost, at most {took[-1]:.2f} s")
        assert faults == []
        assert len(took) >= GOOD_CLIENTS
        assert opened > 1024  # twice all places
