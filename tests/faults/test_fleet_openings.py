"""Schedules of lost, late and doubled messages and of restarts, against whole exits of a fleet that open sessions.

What clients were told is what there is, once all exits have answered: no session more, no address, peer or claim.
"""

from __future__ import annotations

import asyncio
import random
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import pytest

from appliance.domain.errors import StoreUnavailable
from tests.support.api.exit_under_test import new_key
from tests.support.fleet.exits_under_test import fleet

if TYPE_CHECKING:
    from pathlib import Path

    import httpx

    from tests.support.fleet.exits_under_test import ExitsUnderTest, FleetClient

NAMES = ("ams", "fra", "nyc")
WORDS = ("lost", "unanswered", "late", "gone", "broken")
OPERATIONS = ("open", "close", "abort", "end", "status", "list")
STEPS = 60


@dataclass
class Clients:
    """What clients were told."""

    exits: ExitsUnderTest
    random: random.Random
    owners: list[FleetClient]
    live: dict[str, bytes] = field(default_factory=dict)  # by id: its key
    texts: dict[bytes, str] = field(default_factory=dict)  # keys as they are sent
    doubtful: set[str] = field(default_factory=set)  # whose end was asked for, and not answered
    unsure: set[str] = field(default_factory=set)  # whose key was to move, which was not answered

    async def open(self) -> None:
        text, raw = new_key()
        self.texts[raw] = text
        await self._open(raw)

    async def move(self) -> None:
        """The key of a session is used again, in any region."""
        before = self.random.choice([None, *self.live])
        if before is None or before in self.unsure | self.doubtful:
            return
        self.unsure.add(before)  # another request may come meanwhile
        if await self._open(self.live[before]):
            self.unsure.discard(before)
            self.doubtful.add(before)

    async def _open(self, raw: bytes) -> bool:
        body = {"region": self._any(), "client_public_key": self.texts[raw]}
        answer = await self._ask("POST", "/v1/sessions", body)
        if answer.status_code == 201:
            self.live[answer.json()["id"]] = raw
        return answer.status_code == 201

    async def close(self) -> None:
        if not self.live:
            return
        session_id = self.random.choice(list(self.live))
        answer = await self._ask("DELETE", f"/v1/sessions/{session_id}")
        assert answer.status_code in (200, 503), answer.text
        self.doubtful.add(session_id)

    async def look(self) -> None:
        answer = await self._ask("GET", "/v1/sessions", limit="200")
        assert answer.status_code == 200, answer.text
        shown = {each["id"] for each in answer.json()["sessions"]}
        assert len(shown) == len(answer.json()["sessions"])
        if self.live:
            answer = await self._ask("GET", f"/v1/sessions/{self.random.choice(list(self.live))}")
            assert answer.status_code in (200, 503), answer.text

    async def fault(self) -> None:
        words = self.random.choices(WORDS, k=self.random.choice((1, 2)))
        self.exits.wire.fault(self._any(), self.random.choice(OPERATIONS), *words)

    async def restart(self) -> None:
        await self.exits[self._any()].restart()

    async def come_late(self) -> None:
        await self.exits.wire.release()

    async def carry_out(self) -> None:
        with suppress(StoreUnavailable):  # it waits 50 ms for its own writer here
            await self.exits.carry_out()

    def _any(self) -> str:
        return self.random.choice(NAMES)

    async def _ask(self, method: str, path: str, body: object = None, **query: str) -> httpx.Response:
        client = self.owners[0].at(self._any())
        answer = await client.exit_.http.request(method, path, json=body, params=query, headers=client.headers)
        assert answer.status_code != 500, (method, path, answer.text)
        return answer


@pytest.mark.parametrize("seed", [*range(5), *(pytest.param(seed, marks=pytest.mark.long) for seed in range(5, 40))])
def test_what_clients_were_told_is_what_there_is(tmp_path: Path, seed: int) -> None:
    """After any schedule, and once all exits have answered, exactly the sessions are live that clients know of."""

    async def story() -> None:
        async with fleet(tmp_path, *NAMES, config_text="[tiers.paid]\nmax_live_sessions = 0\n") as exits:
            clients = Clients(exits, random.Random(seed), [await exits.client()])  # noqa: S311 (no secret)
            together = [clients.open] * 5 + [clients.move] * 2 + [clients.close, clients.look, clients.come_late]
            together += [clients.fault] * 4 + [clients.carry_out]
            for _ in range(STEPS // 3):
                await asyncio.gather(*(step() for step in clients.random.choices(together, k=3)))
                if not clients.random.randrange(5):
                    await clients.restart()
            await _heal(exits)
            _check(exits, clients)

    asyncio.run(story())


async def _heal(exits: ExitsUnderTest) -> None:
    exits.wire.faults.clear()
    await exits.wire.release()
    async with asyncio.timeout(30):
        while exits.intents():
            with suppress(StoreUnavailable):
                await exits.carry_out()
    assert exits.intents() == 0


def _check(exits: ExitsUnderTest, clients: Clients) -> None:
    live = {row[0] for host in exits.hosts.values() for row in host.exit_.rows(_LIVE)}
    known = set(clients.live)
    assert live <= known, "a session that nobody was told of"
    assert known - live <= clients.doubtful | clients.unsure, "a session is gone whose end nobody has asked for"
    assert not live & clients.doubtful, "a session goes on whose end was asked for"
    for host in exits.hosts.values():
        rows = {row[0] for row in host.exit_.rows(_LIVE)}
        keys = {clients.live[each] for each in rows}
        assert set(host.exit_.tunnel.peers) == set(host.exit_.parts.live.public_keys()) == keys
        assert host.any.ops._in_work == {}
    held = exits.ledger.held()
    assert {clients.live[each] for each in live} <= set(held)
    assert {key for key, id_ in held.items() if id_ not in clients.live} == set(), "a claim of which nothing came"


_LIVE = "SELECT id FROM sessions WHERE state <> 'terminated'"
