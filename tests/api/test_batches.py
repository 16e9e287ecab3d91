"""Batches of every size in which one thing goes wrong: nothing is left of what failed, and nothing else fails."""

from __future__ import annotations

import asyncio
import sqlite3
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Any

from hypothesis import given, settings
from hypothesis import strategies as st

from appliance.domain.errors import TunnelError
from appliance.network.wireguard.batch import PeersRefused
from appliance.network.wireguard.tunnel import PutPeer
from tests.support.api.exit_under_test import IMPATIENT, Client, ExitUnderTest, new_key, serving
from tests.support.fake_tunnel import FakeInterface, FakeTunnel

if TYPE_CHECKING:
    from collections.abc import Sequence

    import httpx

    from appliance.network.wireguard.tunnel import PeerChange

ROOMY = "[api]\npublic_burst = 1000\n[tiers.paid]\nmax_live_sessions = 0\nrequests_per_minute = 100000\n"
FAULTS = (
    "none",
    "refused",
    "cancelled",
    "given up",
    "apply",
    "dump",
    "not begun",
    "not committed",
    "committed and lost",
)
EXISTING = 4
TURNS = 120  # of the event loop, within which a batch is served


class Choosy(FakeTunnel):
    """It refuses the peers of some keys, and applies all other changes."""

    def __init__(self, interface: FakeInterface | None = None) -> None:
        super().__init__(interface)
        self.refused: set[bytes] = set()

    async def apply(self, changes: Sequence[PeerChange]) -> None:
        refused = {c.public_key for c in changes if isinstance(c, PutPeer) and c.public_key in self.refused}
        await super().apply([c for c in changes if c.public_key not in refused])
        if refused:
            raise PeersRefused("wga0", dict.fromkeys(refused, "no"))

    async def dump(self) -> Any:
        if self.no_dump:
            self.no_dump = False
            raise TunnelError("no dump today")
        return await super().dump()

    no_dump = False


@dataclass
class Asked:
    """A request, what it is about, and what came of it."""

    key: bytes
    kind: str  # open, replace, close
    before: str | None  # the id of the session that has the key
    task: asyncio.Task[httpx.Response] = field(init=False)

    @property
    def status(self) -> int | None:
        """None: the client has gone."""
        return None if self.task.cancelled() else self.task.result().status_code


async def existing(client: Client) -> list[tuple[bytes, str, str]]:
    """(key, its text, id of the session) of sessions that were there before."""
    found = []
    for _ in range(EXISTING):
        text, raw = new_key()
        found.append((raw, text, (await client.open(client_public_key=text))["id"]))
    return found


async def ask_all(client: Client, random: Random, size: int) -> list[Asked]:
    there = await existing(client)
    random.shuffle(there)
    asked = []
    for _ in range(size):
        kind = random.choice(("open", "open", "replace", "close")) if there else "open"
        raw, text, before = there.pop() if kind != "open" else (*reversed(new_key()), None)
        one = Asked(raw, kind, before)
        http, headers = client.exit_.http, client.headers
        if kind == "close":
            request = http.delete(f"/v1/sessions/{before}", headers=headers)
        else:
            request = http.post("/v1/sessions", json={"region": "fsn", "client_public_key": text}, headers=headers)
        one.task = asyncio.create_task(request)
        asked.append(one)
    return asked


def next_transaction_fails(exit_: ExitUnderTest, how: str) -> None:
    writer = exit_.store._writer
    real, at = writer.execute, {"not begun": "BEGIN"}.get(how, "COMMIT")

    async def execute(sql: str, *arguments: Any) -> Any:
        if not sql.startswith(at):
            return await real(sql, *arguments)
        writer.execute = real  # type: ignore[method-assign]  # once
        if how == "committed and lost":
            await real(sql, *arguments)
        raise sqlite3.OperationalError("disk I/O error")

    writer.execute = execute  # type: ignore[method-assign,assignment]  # what it does, and may fail to


async def a_batch_with(exit_: ExitUnderTest, fault: str, size: int, turn: int, random: Random) -> list[Asked]:
    client = await exit_.client()
    tunnel = exit_.tunnel
    assert isinstance(tunnel, Choosy)
    asked = await ask_all(client, random, size)
    one = random.choice(asked)
    if fault == "refused":
        tunnel.refused = {one.key}
    elif fault == "apply":
        tunnel.fail_next(TunnelError("no"))
    elif fault == "dump":
        tunnel.no_dump = True
    elif fault in ("not begun", "not committed", "committed and lost"):
        next_transaction_fails(exit_, fault)
    elif fault == "cancelled":
        for _ in range(turn):
            await asyncio.sleep(0)
        one.task.cancel()
    elif fault == "given up":
        # The batch is at the tunnel until all have waited for too long.
        tunnel.gate.clear()
        await asyncio.wait([a.task for a in asked])
        tunnel.gate.set()
    await asyncio.wait([a.task for a in asked])
    return asked


async def nothing_is_left(exit_: ExitUnderTest, asked: list[Asked]) -> None:
    """Store, tunnel, memory and pool hold what was answered, and what was there before and was not ended."""
    tunnel = exit_.tunnel
    assert isinstance(tunnel, Choosy)
    tunnel.refused, tunnel.no_dump = set(), False
    await exit_.settled()
    for _ in range(2):
        await exit_.tick(after=1)
    await exit_.settled()
    rows = exit_.rows("SELECT id, public_key, state, reason FROM sessions")
    live = {row[0]: row[1] for row in rows if row[2] == "live"}
    assert {row[2] for row in rows} <= {"live", "terminated"}
    for a in asked:
        if a.kind == "close":
            assert a.status != 200 or a.before not in live
            continue
        if a.status == 201:
            assert live.pop(a.task.result().json()["id"]) == a.key
        assert a.before is None or (a.before in live) == (a.status != 201), "the predecessor stays, or has gone"
    # What is left are sessions of before.
    assert live.keys() <= {row[0] for row in rows[:EXISTING]}
    keys = {row[1] for row in rows if row[2] == "live"}
    assert set(tunnel.peers) == keys == set(exit_.parts.live.public_keys())
    assert exit_.parts.live.in_sync
    assert exit_.parts.pool.in_use == len(keys)
    assert not exit_.parts.records.ended
    open_lines = {row[0] for row in exit_.rows("SELECT session_id FROM invoice_lines WHERE ended_at IS NULL")}
    assert open_lines == {row[0] for row in rows if row[2] == "live"}


def others_succeeded(fault: str, asked: list[Asked]) -> None:
    failed = [a for a in asked if a.status not in (200, 201)]
    assert all(a.status in (503, None) for a in failed), [a.status for a in failed]
    if fault == "none":
        assert not failed
    elif fault in ("refused", "cancelled"):
        assert len(failed) <= 1


@settings(max_examples=60, deadline=None)
@given(
    fault=st.sampled_from(FAULTS),
    size=st.integers(1, 10),
    turn=st.integers(0, TURNS),
    seed=st.integers(0, 2**32),
)
def test_one_fault_in_a_batch_of_any_size(fault: str, size: int, turn: int, seed: int) -> None:
    """One peer is refused, one request is cancelled at any moment, all are given up, an apply, a dump, a BEGIN or a
    COMMIT fails, a COMMIT is made and said to have failed: each request is answered, and what was not answered with a
    session left nothing; a predecessor whose replacement failed is live."""

    environ = IMPATIENT if fault == "given up" else {}

    async def story() -> None:
        with tempfile.TemporaryDirectory() as folder:
            async with serving(Path(folder), ROOMY, Choosy, environ) as exit_:
                asked = await a_batch_with(exit_, fault, size, turn, Random(seed))  # noqa: S311 (a test's choices)
                others_succeeded(fault, asked)
                await nothing_is_left(exit_, asked)

    asyncio.run(story())
