"""An exit as `server.py` builds it, on a tunnel in memory and a clock that the test moves; no socket is opened."""

from __future__ import annotations

import asyncio
import inspect
import sqlite3
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import httpx

from appliance.config.load import parse_settings
from appliance.domain import ids
from appliance.domain.entities import Account, Token
from appliance.domain.errors import EgressError
from appliance.domain.tiers import Tier
from appliance.network.exit_node import build_exit
from appliance.network.wireguard import keys
from appliance.network.wireguard.tunnel import PeerState
from appliance.server import assembly
from appliance.server.http.request_timing import Timed
from appliance.sessions.metrics import Metrics
from appliance.store import peer_lives
from appliance.store.database import Store
from appliance.store.known_time import believed_clock
from appliance.store.queries import accounts as account_rows
from appliance.store.queries import node as node_row
from appliance.store.queries import tokens as token_rows
from tests.support.egress_in_place import IN_PLACE
from tests.support.fake_tunnel import FakeInterface, FakeTunnel
from tests.support.fixed_host import FixedHost
from tests.support.new_store import put_new_store
from tests.support.virtual_clock import VirtualClock

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Collection, Coroutine, Iterator, Mapping
    from ipaddress import IPv4Address, IPv6Address
    from pathlib import Path

    from litestar import Litestar
    from litestar.types import ASGIApp

    from appliance.config.settings import Settings
    from appliance.network.firewall.state import EgressChanges, EgressState
    from appliance.server.assembly import Parts

SERVER_KEY = bytes([7]) * 32
# One handshake lets a tunnel carry as long as any test goes on; tests of handshakes say another time.
LASTING_MS = 10**12
# How long the store waits for other writers of its own process, and for a lock that a test holds.
PATIENCE_S, LOCKED_S = 60.0, 0.05
CONFIG = """
[node]
name = "exit-1"
region = "fsn"
public_ip = "192.0.2.1"
[wireguard]
apply_timeout = "60s"
"""
# How long requests may wait for the tunnel where it is to hang; elsewhere so long that no machine is too slow.
IMPATIENT = {"WG_APPLIANCE_WIREGUARD_APPLY_TIMEOUT": "1s"}
UNHURRIED = "[api]\npublic_burst = 1000\n"  # for tests that ask often without a token


@dataclass
class NoEgress:
    """Egress that is always in place, or fails as told. It forgets flows while `gate` is set."""

    fault: str | None = None
    gate: asyncio.Event = field(default_factory=asyncio.Event)
    forgotten: list[list[str]] = field(default_factory=list)  # the addresses whose flows were to be, each time
    held_at_start: list[str] = field(default_factory=list)  # and those whose flows went on

    def __post_init__(self) -> None:
        self.gate.set()

    async def observe(self) -> None:
        """Nothing changes."""

    async def routing_fault(self) -> str | None:
        return None

    def state(self) -> EgressState:
        return IN_PLACE if self.fault is None else replace(IN_PLACE, rules_stand=False)

    async def apply(self, changes: EgressChanges) -> None:
        if changes.rules and self.fault is not None:
            raise EgressError(self.fault)

    async def forget(self, addresses: Collection[IPv4Address | IPv6Address]) -> None:
        self.forgotten.append(sorted(map(str, addresses)))
        await self.gate.wait()

    async def forget_others(self, held: Collection[IPv4Address | IPv6Address]) -> None:
        self.held_at_start = sorted(map(str, held))


@dataclass
class ExitUnderTest:
    """The running exit. `http` speaks to its API; `tick` is one whole tick; `restart` is a new process."""

    path: Path
    settings: Settings
    clock: VirtualClock
    tunnel: FakeTunnel
    store: Store
    parts: Parts
    app: Litestar
    http: httpx.AsyncClient
    metrics: Metrics
    egress: NoEgress = field(default_factory=NoEgress)
    reject_after_ms: int = LASTING_MS

    # Accounts ---------------------------------------------------------------------------------------

    async def account(self, name: str = "ada", tier: Tier = Tier.PAID) -> Account:
        account = Account(ids.account_id(), name, tier, False, self.clock.wall_ms)
        async with self.store.write() as db:
            await account_rows.insert(db, account)
        return account

    async def token(self, account: Account, expires_at: int | None = None) -> str:
        secret = ids.token_secret()
        token = Token(ids.token_id(), account.name, account.tier, "", self.clock.wall_ms, expires_at, revoked_at=None)
        async with self.store.write() as db:
            await token_rows.insert(db, account, token, ids.token_hash(secret))
        return secret

    async def client(self, name: str = "ada", tier: Tier = Tier.PAID) -> Client:
        """A new account and a token of it."""
        account = await self.account(name, tier)
        return Client(self, account, await self.token(account))

    # What an operator does, from another process ----------------------------------------------------

    async def admin(self, sql: str, *parameters: object) -> None:
        """Change the store as an admin command does, and let the server take it over."""
        with sqlite3.connect(self.path) as other:
            other.execute(sql, parameters)
        other.close()
        async with self.store.write() as db:
            await node_row.request(db)

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Another process keeps the store from being written."""
        other = sqlite3.connect(self.path, isolation_level=None)
        other.execute("BEGIN EXCLUSIVE")
        try:
            yield
        finally:
            other.execute("ROLLBACK")
            other.close()

    # Time -------------------------------------------------------------------------------------------

    async def tick(self, after: float = 0) -> None:
        self.clock.advance(after)
        await self.parts.ticker.tick()
        await self.settled()

    async def shake(self, *public_keys: bytes) -> None:
        """These clients shake hands with the exit, which looks at once."""
        for key in public_keys:
            before = self.tunnel.peers[key].last_handshake_ns
            self.tunnel.add_traffic(key, handshake_ns=max(before + 1, self.clock.wall_ms * 1_000_000))
        await self.parts.ticker.tick(whole=False)
        await self.settled()

    async def restart(self) -> None:
        """The process stops and another one starts, on the same store and interface."""
        await self.stop()
        self.tunnel = type(self.tunnel)(self.tunnel.interface)
        await self.start()

    async def stop(self) -> None:
        await self.http.aclose()
        await self.store.close()
        await self.tunnel.close()

    async def start(self) -> None:
        self.store, self.parts, self.app, self.http, self.metrics = await _build(
            self.path, self.settings, self.clock, self.tunnel, self.egress, self.reject_after_ms
        )

    async def settled(self) -> None:
        """What has begun in the background is done: what batches had left, and flows, while `NoEgress.gate` is set."""
        await self.parts.queue.settled()
        await asyncio.sleep(0)

    # What is there ----------------------------------------------------------------------------------

    def rows(self, sql: str, *parameters: object) -> list[tuple[Any, ...]]:
        with sqlite3.connect(self.path) as other:
            found = other.execute(sql, parameters).fetchall()
        other.close()
        return found

    def holdings(self) -> tuple[object, ...]:
        """All that an open session occupies: rows, addresses, peers, memory."""
        return (
            self.rows("SELECT id, state, reason FROM sessions ORDER BY number"),
            self.parts.pool.in_use,
            self.tunnel.peers,
            set(self.parts.live.public_keys()),
        )

    def state_of(self, session_id: str) -> tuple[str, str | None]:
        """(state, reason) as stored."""
        return self.rows("SELECT state, reason FROM sessions WHERE id = ?", session_id)[0]  # type: ignore[return-value]  # two columns

    def key_of(self, session_id: str) -> bytes:
        key: bytes = self.rows("SELECT public_key FROM sessions WHERE id = ?", session_id)[0][0]
        return key


@dataclass
class Client:
    """An account's holder, with a token."""

    exit_: ExitUnderTest
    account: Account
    token: str

    @property
    def headers(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.token}"}

    async def post(self, body: object = None, **fields: object) -> httpx.Response:
        """POST /v1/sessions: `fields` go beside the region."""
        content = {"region": "fsn", **fields} if body is None else body
        answer = await self.exit_.http.post("/v1/sessions", json=content, headers=self.headers)
        await self.exit_.settled()
        return answer

    async def open(self, **fields: object) -> dict[str, Any]:
        answer = await self.post(**fields)
        assert answer.status_code == 201, answer.text
        opened: dict[str, Any] = answer.json()
        return opened

    async def connect(self, **fields: object) -> dict[str, Any]:
        """Open a session and shake hands: its time begins."""
        opened = await self.open(**fields)
        await self.exit_.shake(self.exit_.key_of(opened["id"]))
        return opened

    async def get(self, path: str, **parameters: str) -> httpx.Response:
        return await self.exit_.http.get(path, params=parameters, headers=self.headers)

    async def status_answer(self, session_id: str) -> httpx.Response:
        return await self.get(f"/v1/sessions/{session_id}")

    async def status(self, session_id: str) -> dict[str, Any]:
        answer = await self.status_answer(session_id)
        assert answer.status_code == 200, answer.text
        found: dict[str, Any] = answer.json()
        return found

    async def delete(self, session_id: str) -> httpx.Response:
        answer = await self.exit_.http.delete(f"/v1/sessions/{session_id}", headers=self.headers)
        await self.exit_.settled()
        return answer


def new_key() -> tuple[str, bytes]:
    """A client's public key, as text and as bytes."""
    raw = keys.public_key(keys.generate_private_key())
    return keys.encode(raw), raw


def address(opened: dict[str, str]) -> str:
    """The IPv4 address of the client."""
    line = next(line for line in opened["wg_config"].splitlines() if line.startswith("Address"))
    return line.removeprefix("Address = ").split("/")[0]


def stranger(public_key: bytes) -> PeerState:
    """A peer as somebody else would have put it into the tunnel."""
    return PeerState(public_key, frozenset(), rx_bytes=0, tx_bytes=0, last_handshake_ns=0)


async def until(probe: Callable[[], object], what: str, seconds: float = 60) -> None:
    """Let the other tasks run until `probe` holds."""
    async with asyncio.timeout(seconds):
        while not probe():  # noqa: ASYNC110 - what it asks sets no event
            await asyncio.sleep(0.005)
    assert probe(), what


async def _build(
    path: Path, settings: Settings, clock: VirtualClock, tunnel: FakeTunnel, egress: NoEgress, reject_after_ms: int
) -> tuple[Store, Parts, Litestar, httpx.AsyncClient, Metrics]:
    exit_, metrics = build_exit(settings.wireguard, SERVER_KEY), Metrics()
    host = FixedHost(str(settings.node.public_ip or "192.0.2.1"))
    store = await Store.open(path, LOCKED_S, metrics.store_used)
    store._patience_s = PATIENCE_S
    async with AsyncExitStack() as undo:
        undo.push_async_callback(store.close)
        believed = await believed_clock(store, clock)
        await peer_lives.follow(store, path.with_name("peer-lives"), believed.now().boot_id)
        parts = await assembly.build(
            settings,
            store=store,
            tunnel=tunnel,
            egress=egress,
            exit_=exit_,
            host=host,
            clock=believed,
            metrics=metrics,
            reject_after_ms=reject_after_ms,
        )
        await parts.ticker.tick()
        app = assembly.build_app(settings, parts, exit_, believed)
        undo.pop_all()
    return store, parts, app, caller(Timed(app, metrics)), metrics


def caller(app: ASGIApp, peer: tuple[str, int] | None = ("127.0.0.1", 50_000)) -> httpx.AsyncClient:
    """`peer` None: one on a Unix socket."""
    transport = httpx.ASGITransport(app, raise_app_exceptions=False, client=peer)  # type: ignore[arg-type]  # ASGI in httpx's words
    return httpx.AsyncClient(transport=transport, base_url="http://exit.test")


@asynccontextmanager
async def serving(
    folder: Path,
    config_text: str = "",
    tunnel: Callable[[FakeInterface], FakeTunnel] = FakeTunnel,
    environ: Mapping[str, str] | None = None,
    reject_after_ms: int = LASTING_MS,
) -> AsyncIterator[ExitUnderTest]:
    """`config_text` is TOML that continues CONFIG, whose last table is [wireguard]; `environ` overrides it."""
    settings = parse_settings(CONFIG + config_text, environ or {}, "host")
    path, clock, device, egress = folder / "store.sqlite", VirtualClock(), tunnel(FakeInterface()), NoEgress()
    await put_new_store(path)
    store, parts, app, http, metrics = await _build(path, settings, clock, device, egress, reject_after_ms)
    exit_ = ExitUnderTest(path, settings, clock, device, store, parts, app, http, metrics, egress, reject_after_ms)
    try:
        yield exit_
    finally:
        device.gate.set()
        egress.gate.set()
        await exit_.stop()


def on_exit(
    config_text: str = "",
    tunnel: Callable[[FakeInterface], FakeTunnel] = FakeTunnel,
    environ: Mapping[str, str] | None = None,
    reject_after_ms: int = LASTING_MS,
) -> Callable[[Callable[..., Coroutine[Any, Any, None]]], Callable[..., None]]:
    """Run an `async def test_x(exit_, ...)` against an exit of its own."""

    def decorate(test: Callable[..., Coroutine[Any, Any, None]]) -> Callable[..., None]:
        async def story(tmp_path: Path, **fixtures: Any) -> None:
            async with serving(tmp_path, config_text, tunnel, environ, reject_after_ms) as exit_:
                await test(exit_, **fixtures)

        def run(tmp_path: Path, **fixtures: Any) -> None:
            asyncio.run(story(tmp_path, **fixtures))

        _, *others = inspect.signature(test).parameters.values()
        place = inspect.Parameter("tmp_path", inspect.Parameter.POSITIONAL_OR_KEYWORD)
        run.__signature__ = inspect.Signature([place, *others])  # type: ignore[attr-defined]  # what pytest reads
        run.__name__, run.__doc__, run.__module__ = test.__name__, test.__doc__, test.__module__
        return run

    return decorate
