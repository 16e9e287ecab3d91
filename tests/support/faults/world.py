"""One exit over many processes: the real store, meter, policy, sessions and ticker around a model of the kernel."""

from __future__ import annotations

import shutil
import sqlite3
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from appliance.config.load import parse_settings
from appliance.domain.entities import Account, Baseline
from appliance.domain.tiers import Tier
from appliance.network.exit_node import build_exit
from appliance.network.wireguard import keys
from appliance.server import assembly
from appliance.sessions.metrics import Metrics
from appliance.store.database import Store
from appliance.store.known_time import believed_clock
from appliance.store.queries import accounts as account_rows
from tests.support.egress_in_place import EgressInPlace
from tests.support.faults.host import Host
from tests.support.faults.inline_sqlite import InlineConnection
from tests.support.faults.kernel import ModelKernel, MortalTunnel
from tests.support.faults.ledger import Ledger, Mark, Pair
from tests.support.faults.process import Disk, MortalConnection, Process
from tests.support.fixed_host import FixedHost

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from pathlib import Path

    from appliance.config.settings import Settings
    from appliance.domain.believed_clock import BelievedClock
    from appliance.domain.clock import Moment
    from appliance.domain.entities import Session
    from appliance.server.assembly import Parts

    Connect = Callable[[Path], Awaitable[Any]]

SERVER_KEY = bytes([7]) * 32
PUBLIC_KEY = keys.public_key(SERVER_KEY)
IDLE_MS = 300_000
ACCOUNTS = (("ada", Tier.ANONYMOUS), ("bob", Tier.FREE), ("cyd", Tier.PAID), ("dan", Tier.PAID))

COMMON = """
[node]
name = "exit-1"
region = "fsn"
[wireguard]
subnet = "10.101.0.0/28"
[tiers.paid]
max_live_sessions = 4
"""
# What an operator may change between two starts: limits, windows, prices, retention.
VARIANTS = tuple(
    parse_settings(COMMON + text, {}, "host")
    for text in (
        """
        bytes_limit = 0
        [pricing]
        currency = "eur"
        [tiers.anonymous]
        max_devices = 2
        bytes_limit = 40000
        bytes_window = "1h"
        seconds_limit = "12m"
        seconds_window = "2h"
        max_session = "5h"
        [tiers.free]
        bytes_limit = 300000
        bytes_window = "2d"
        seconds_limit = "1h"
        """,
        """
        bytes_limit = 5000000
        seconds_window = "1h"
        max_session = "3h"
        [meter]
        retention = "30m"
        [pricing]
        currency = "usd"
        millicents_per_minute = 1777
        millicents_per_gib = 99999999
        [tiers.anonymous]
        max_devices = 2
        bytes_limit = 20000
        seconds_limit = "20m"
        seconds_window = "61m"
        [tiers.free]
        bytes_limit = 0
        seconds_limit = "7m"
        seconds_window = "10m"
        max_session = "2h"
        """,
        """
        bytes_limit = 0
        [tiers.anonymous]
        max_devices = 2
        max_live_sessions = 1
        [tiers.free]
        bytes_limit = 100000
        """,
    )
)


async def inline(path: Path) -> InlineConnection:
    return InlineConnection(path)


@dataclass
class Running:
    """One process: its life, its connections and the parts it built."""

    process: Process
    connections: list[Any]
    store: Store
    parts: Parts | None = None  # until it has built them


class World:
    """`template`: a new store, brought to its schema. `connect`: how a connection to the store is made."""

    def __init__(
        self, folder: Path, template: Path, wall_ms: int, reject_after_ms: int, connect: Connect = inline
    ) -> None:
        self.path = folder / "store.db"
        shutil.copyfile(template, self.path)
        self.host = Host(wall_ms)
        self.ledger = Ledger(self.host, reject_after_ms)
        self.reject_after_ms = reject_after_ms
        self.kernel = ModelKernel(self.host, self.ledger)
        self.disk = Disk()
        self.settings: Settings = VARIANTS[0]
        self.running: Running | None = None
        self.clock: BelievedClock | None = None  # of the last process
        self.account_ids = {name: f"acc_{name}" for name, _ in ACCOUNTS}
        self.deleted = 0  # accounts
        self.asked: set[bytes] = set()  # keys for devices whose requests may have failed: their peers may be there
        # Another process: an admin's commands, and the test's own looking.
        self.admin_connection = InlineConnection(self.path)
        self.admin = Store(self.path, self.admin_connection, self.admin_connection)  # type: ignore[arg-type]
        self.raw = sqlite3.connect(self.path, isolation_level=None)
        self.raw.row_factory = sqlite3.Row
        self._connect = connect

    async def prepare(self) -> None:
        async with self.admin.write() as db:
            for name, tier in ACCOUNTS:
                await account_rows.insert(db, Account(self.account_ids[name], name, tier, False, self.host.wall_ms))

    async def account(self, name: str) -> Account:
        """As a request finds it when its token is looked up."""
        async with self.admin.read() as db:
            found = await account_rows.by_id(db, self.account_ids[name])
        assert found is not None
        return found

    def now(self) -> Moment:
        """By the clock that the appliance goes by."""
        return self.host.now() if self.clock is None else self.clock.now()

    @property
    def parts(self) -> Parts | None:
        return None if self.running is None else self.running.parts

    async def open_store(self) -> Process:
        """A new process opens the store, and is ready to build its parts."""
        process = Process()
        counted = {key for (key,) in self.raw.execute("SELECT public_key FROM sessions WHERE state <> 'terminated'")}
        self.ledger.carried.forgotten(self.ledger.beat_at, counted)
        connections = [await self._connect(self.path) for _ in range(2)]
        writer, reader = (MortalConnection(c, process, self.disk, self._committed) for c in connections)
        self.running = Running(process, connections, Store(self.path, writer, reader))  # type: ignore[arg-type]
        return process

    async def build(self) -> None:
        """As server.py starts: the parts, and one whole tick."""
        running = self.running
        assert running is not None
        self.clock = await believed_clock(running.store, self.host)
        running.parts = await assembly.build(
            self.settings,
            store=running.store,
            tunnel=MortalTunnel(self.kernel, running.process),
            egress=EgressInPlace(),
            exit_=build_exit(self.settings.wireguard, SERVER_KEY),
            host=FixedHost(),
            clock=self.clock,
            metrics=Metrics(),
            reject_after_ms=self.reject_after_ms,
        )
        self._note_undone(running.parts)
        await running.parts.ticker.tick()
        if running.parts.live.heartbeat.boot_id != self.host.boot_id:
            await (
                running.parts.ticker.tick()
            )  # the first one has made the interface, and the next follows within a second

    def _note_undone(self, parts: Parts) -> None:
        """Notes whose openings are undone: a client that was told of none may have used it until then."""
        undo = parts.ticker._turnover._ending._undo
        add = undo.add

        def noted(session: Session, replaced: Session | None) -> None:
            self.ledger.undone[session.account_id].add(session.public_key)
            add(session, replaced)

        undo.add = noted  # type: ignore[method-assign]  # until the process ends

    def end_faults(self) -> None:
        """Nothing fails any more."""
        self.kernel.failing_dumps, self.kernel.short_dump = 0, None
        self.kernel.failing_changes.clear()
        self.disk.failing.clear()

    async def bury(self) -> None:
        """The process is gone: its files are closed, and nothing else of it is tidied up."""
        if self.running is not None:
            self.running.process.dead = True
            for connection in self.running.connections:
                await connection.close()
            self.running = None

    async def close(self) -> None:
        await self.bury()
        await self.admin_connection.close()
        self.raw.close()

    def _committed(self) -> None:
        self.ledger.stored(*read_marks(self.raw, self.host))


# Of a device that has a session, the session has it.
_MARKS = """
SELECT s.public_key, coalesce(p.baseline_boot_id, p.counted_boot_id), p.ifindex, p.rx_bytes, p.tx_bytes, 0, 0, 1
FROM sessions s JOIN peers p ON p.address_offset = s.address_offset WHERE s.state IN ('live', 'closing') UNION ALL
SELECT public_key, baseline_boot_id, ifindex, rx_bytes, tx_bytes, unfinished_rx, unfinished_tx, 0 FROM devices d
WHERE removed_at IS NULL AND (ifindex IS NOT NULL OR unfinished_rx OR unfinished_tx) AND NOT EXISTS (
    SELECT 1 FROM sessions s WHERE s.public_key = d.public_key AND s.state IN ('live', 'closing'))
"""


def read_marks(raw: sqlite3.Connection, host: Host) -> tuple[dict[bytes, Mark], dict[bytes, str], set[bytes], int]:
    (beat,) = raw.execute("SELECT beat_boot_id, beat_boot_ms FROM node").fetchall()
    beat_at = host.ran_at(beat[0], beat[1]) if beat[0] else 0
    devices = dict(raw.execute("SELECT public_key, id FROM devices WHERE removed_at IS NULL"))
    new = {key for (key,) in raw.execute("SELECT public_key FROM devices WHERE removed_at IS NULL AND NOT installed")}
    return {key: _mark(*rest) for key, *rest in raw.execute(_MARKS).fetchall()}, devices, new, beat_at


def _mark(
    boot_id: str | None, ifindex: int | None, rx: int, tx: int, unfinished_rx: int, unfinished_tx: int, of_session: int
) -> Mark:
    baseline = None if ifindex is None else Baseline(boot_id, ifindex, rx, tx)  # type: ignore[arg-type]
    return Mark(baseline, Pair(unfinished_rx, unfinished_tx), bool(of_session))
