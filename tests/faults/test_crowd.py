"""A hundred clients at the same moment, and more clients than there are addresses."""

from __future__ import annotations

import json
import re
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest

from tests.support.faults.aftermath import unfinished
from tests.support.faults.real_exit import REGION
from tests.support.faults.serving import serving

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from tests.support.faults.real_exit import RealExit, UnixConnection

pytestmark = pytest.mark.timeout(600)

CROWD = 100
CAPACITY = 253  # of a /24, without network, exit and broadcast address
LAST = 10
EXHAUSTED = {"error": "subnet exhausted", "code": "subnet_exhausted"}
STORE_UNAVAILABLE = {"error": "store unavailable", "code": "store_unavailable"}
AGAIN_S = 60


@pytest.fixture
def exit_(backend: str) -> Iterator[RealExit]:
    with serving(backend) as served:
        yield served


@pytest.fixture
def token(exit_: RealExit) -> str:
    return exit_.token("anna", "free")


def test_a_hundred_at_once_get_a_session_each(exit_: RealExit, token: str, show: Callable[[str], None]) -> None:
    """Each of them gets a session with an address of its own and a peer; store and tunnel agree."""
    began = time.monotonic()
    answers = at_once(exit_, token, CROWD, show)
    took = time.monotonic() - began
    assert statuses(answers) == {201: CROWD}
    assert_agreed(exit_, [session for _, session in answers])
    show(f"{exit_.backend}: {CROWD} sessions at once in {took:.2f} s")


def test_a_full_pool_gives_each_address_once(exit_: RealExit, token: str, show: Callable[[str], None]) -> None:
    """All 253 addresses of a /24 are given out, each once, also where a hundred ask for the last ten; whoever comes
    then is told when to try again, and succeeds once one has left."""
    with exit_.connection() as connection:
        sessions = [opened(connection, token) for _ in range(CAPACITY - LAST)]
    answers = at_once(exit_, token, CROWD, show)
    assert statuses(answers) == {201: LAST, 503: CROWD - LAST}
    assert [body for status, body in answers if status == 503] == [EXHAUSTED] * (CROWD - LAST)
    sessions += [session for status, session in answers if status == 201]
    assert len(sessions) == CAPACITY
    assert_agreed(exit_, sessions)

    # The server has closed a connection that was idle meanwhile.
    with exit_.connection() as connection:
        assert_told_to_come_again(connection, token)
        assert connection.ask("DELETE", f"/v1/sessions/{sessions[100]['id']}", token)[0] == 200
        sessions[100] = opened(connection, token)
    assert_agreed(exit_, sessions)
    show(f"{exit_.backend}: {CAPACITY} sessions; {CROWD} at once for the last {LAST}: {dict(statuses(answers))}")


def at_once(exit_: RealExit, token: str, many: int, show: Callable[[str], None]) -> list[tuple[int, Any]]:
    """(status, body) of so many POSTs that are sent at the same moment. Those that the store had no time for (a writer
    waits PATIENCE_S for the others, and this machine may be busy) are sent again."""
    start, deadline, again = threading.Barrier(many), time.monotonic() + AGAIN_S, list[int]()

    def post() -> tuple[int, Any]:
        with exit_.connection() as connection:
            connection.connect()
            start.wait(timeout=60)
            while True:
                answer = connection.ask("POST", "/v1/sessions", token, {"region": REGION})
                if answer != (503, STORE_UNAVAILABLE) or time.monotonic() > deadline:
                    return answer
                again.append(answer[0])

    with ThreadPoolExecutor(many) as threads:
        asked = [threads.submit(post) for _ in range(many)]
        answers = [one.result() for one in asked]
    if again:
        show(f"{exit_.backend}: {len(again)} requests sent again: the store had no time for them")
    return answers


def opened(connection: UnixConnection, token: str) -> dict[str, str]:
    status, session = connection.ask("POST", "/v1/sessions", token, {"region": REGION})
    assert status == 201, session
    answer: dict[str, str] = session
    return answer


def assert_told_to_come_again(connection: UnixConnection, token: str) -> None:
    headers = {"Authorization": f"Bearer {token}"}
    connection.request("POST", "/v1/sessions", json.dumps({"region": REGION}), headers)
    answer = connection.getresponse()
    assert (answer.status, json.loads(answer.read())) == (503, EXHAUSTED)
    assert int(answer.headers["Retry-After"]) > 0


def statuses(answers: Sequence[tuple[int, Any]]) -> Counter[int]:
    return Counter(status for status, _ in answers)


def assert_agreed(exit_: RealExit, sessions: Sequence[dict[str, str]]) -> None:
    """What clients were told, what is stored and what the tunnel holds is the same; no address is given out twice."""
    rows = unfinished(exit_)
    assert {row.id for row in rows} == {session["id"] for session in sessions}
    assert {row.key: row.addresses for row in rows} == exit_.peers()
    told = [address for session in sessions for address in addresses(session)]
    assert len(set(told)) == len(told)
    assert set(told) == {address for row in rows for address in row.addresses}


def addresses(session: dict[str, str]) -> list[str]:
    found = re.search(r"^Address = (.*)$", session["wg_config"], re.MULTILINE)
    assert found is not None
    return found[1].split(", ")
