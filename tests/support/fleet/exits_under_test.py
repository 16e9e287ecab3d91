"""Whole exits of a fleet in one process, joined by calls in memory, each with a real store and a tunnel in memory.

    async with fleet(tmp_path, "ams", "fra") as exits:      # names are regions, too
        ada = await exits.client("ada")
        answer = await ada.at("fra").post(region="ams")

`Wire` loses requests and answers as a test says; `Ledger` is the real one, in memory; `Reports` has what was reported
to the first host, which is the hub.
"""

from __future__ import annotations

import asyncio
import inspect
from collections import defaultdict
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import msgspec

from appliance.domain import ids
from appliance.domain.entities import Account, Session, State, Token
from appliance.domain.errors import (
    CutOff,
    DeviceNameTaken,
    InvalidRequest,
    KeyInUse,
    NoActiveNodeInRegion,
    NoActiveNodes,
    NoResponder,
    NotAnswered,
)
from appliance.domain.tiers import Tier
from appliance.fleet.accounts.caller import Caller
from appliance.fleet.claims.claiming import Whereabouts
from appliance.fleet.claims.claims import KeyClaimLedger, KeyRecord, NameClaimLedger, NewClaims, key_name
from appliance.fleet.claims.messages import ClaimKey, ClaimName, Granted, ReleaseKey, ReleaseName, SettleKey, Taken
from appliance.fleet.reports.reported import Folded
from appliance.fleet.routing import any_exit
from appliance.network.exit_node import build_exit
from appliance.store.queries import accounts as account_rows
from appliance.store.queries import tokens as token_rows
from tests.support.api.exit_under_test import SERVER_KEY, Client, serving
from tests.support.fleet.claims_kept import RecordsInMemory
from tests.support.virtual_clock import VirtualClock

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Collection, Coroutine, Mapping, Sequence
    from pathlib import Path

    from appliance.fleet.routing.any_exit import AnyExit
    from appliance.fleet.rpc.operations import Place
    from tests.support.api.exit_under_test import ExitUnderTest


@dataclass
class Wire:
    """Carries calls between exits. Faults are of the next calls of an operation to an exit: one word for each.

    "lost": the request is; "unanswered": the answer is; "late": it is served only when `release` is called, and
    not answered; "gone": nobody is there; "broken": the answer is no JSON; "dies": it is, and its host is cut off;
    "hangs": nothing comes, and a moment later the host is cut off.
    """

    hosts: dict[str, FleetHost] = field(default_factory=dict)
    faults: dict[tuple[str, str], list[str]] = field(default_factory=lambda: defaultdict(list))
    cut: set[str] = field(default_factory=set)  # node ids
    calls: list[tuple[str, str]] = field(default_factory=list)
    held: list[Callable[[], Any]] = field(default_factory=list)

    def fault(self, name: str, operation: str, *words: str) -> None:
        self.faults[next(n for n, h in self.hosts.items() if h.name == name), operation] += words

    async def release(self) -> None:
        held, self.held = self.held, []
        for serve in held:
            await serve()

    async def call(self, sender: str, node_id: str, operation: str, payload: bytes, timeout_s: float) -> bytes:
        del timeout_s  # what is lost is known at once
        self.calls.append((node_id, operation))
        host = self.hosts.get(node_id)
        if sender in self.cut:
            raise CutOff("cut off")
        if host is None or not host.up or node_id in self.cut:
            raise NoResponder(f"{node_id} is not there")
        waiting = self.faults[node_id, operation]
        word = waiting.pop(0) if waiting else ""
        if word == "lost":
            raise NotAnswered("the request was lost")
        if word == "dies":
            self.cut.add(node_id)
            raise NotAnswered("nothing is heard any more")
        if word == "hangs":
            asyncio.get_running_loop().call_later(0.1, self.cut.add, node_id)
            await asyncio.Event().wait()
        if word == "gone":
            raise NoResponder("gone")
        if word == "late":
            self.held.append(lambda: host.any.owner.answer(sender, operation, payload))
            raise NotAnswered("it is on its way")
        answer = await host.any.owner.answer(sender, operation, payload)
        await host.exit_.settled()
        if word == "unanswered":
            raise NotAnswered("the answer was lost")
        return b"?" if word == "broken" else answer


class Ledger:
    """Is the ledger of the hubs, with records in memory. `away`: it is not there; `hangs`: it does not answer."""

    def __init__(self) -> None:
        self.records = RecordsInMemory()
        self.named_records = RecordsInMemory()
        new = NewClaims(VirtualClock())
        self.of_keys = KeyClaimLedger(self.records, VirtualClock(), new)
        self.of_names = NameClaimLedger(self.named_records, VirtualClock(), new)
        self.away = self.hangs = False
        self._keys: dict[str, bytes] = {}  # by what stands for them

    def at(self, node_id: str) -> ClaimsOf:
        return ClaimsOf(self, node_id)

    def named(self, public_key: bytes) -> str:
        self._keys[public_key.hex()] = public_key
        return key_name(b"of the fleet", public_key)

    def held(self) -> dict[bytes, str]:
        """The session or device that has each key."""
        records = self.records.known
        named = {self.named(key): key for key in list(self._keys.values())}
        return {
            named[name]: msgspec.json.decode(record.value or b"", type=KeyRecord).holder.id
            for name, record in records.items()
            if name in named
        }

    def names(self) -> int:
        """How many names are claimed."""
        return len(self.named_records.known)


@dataclass
class ClaimsOf:
    """Asks the ledger as one exit, whose requests it gets."""

    ledger: Ledger
    node_id: str

    async def _ask(self) -> None:
        if self.ledger.hangs:
            await asyncio.Event().wait()
        if self.ledger.away:
            raise NotAnswered("the ledger is away")

    async def claim_key(self, public_key: bytes, account_id: str, op: str, *, device: bool) -> Whereabouts | None:
        await self._ask()
        asked = ClaimKey(self.ledger.named(public_key), account_id, op, device)
        answer = await self.ledger.of_keys.claim(self.node_id, asked)
        if isinstance(answer, Granted):
            return Whereabouts(answer.node, answer.id) if answer.node and answer.id else None
        if answer.by == "account":
            raise InvalidRequest("client_public_key is in use by another account")
        raise KeyInUse

    async def settle_key(self, public_key: bytes, account_id: str, op: str, made_id: str, *, device: bool) -> bool:
        await self._ask()
        asked = SettleKey(self.ledger.named(public_key), account_id, op, made_id, device)
        return not (await self.ledger.of_keys.settle(self.node_id, asked)).lost

    async def release_key(self, public_key: bytes, op: str) -> None:
        await self._ask()
        await self.ledger.of_keys.release(self.node_id, ReleaseKey(self.ledger.named(public_key), op))

    async def claim_name(self, account_id: str, name: str, op: str) -> None:
        await self._ask()
        if isinstance(await self.ledger.of_names.claim(self.node_id, ClaimName(account_id, name, op)), Taken):
            raise DeviceNameTaken

    async def release_name(self, account_id: str, name: str, op: str = "") -> None:
        await self._ask()
        await self.ledger.of_names.release(self.node_id, ReleaseName(account_id, name, op))


@dataclass
class Reports:
    """Has what exits have reported. `away`: no hub tells."""

    sessions: dict[str, Folded] = field(default_factory=dict)
    away: bool = False

    async def session(self, session_id: str) -> Folded | None:
        self._ask()
        return self.sessions.get(session_id)

    async def page(
        self, account_id: str, node_ids: Collection[str], *, live: bool, before: Place | None, limit: int
    ) -> Sequence[Session]:
        self._ask()
        found = [f.session for f in self.sessions.values() if f.node_id in node_ids]
        found = [s for s in found if s.account_id == account_id and (s.state is State.LIVE or not live)]
        found = [s for s in found if before is None or (s.created_at, s.id) < tuple(before)]
        return sorted(found, key=lambda s: (s.created_at, s.id), reverse=True)[:limit]

    def _ask(self) -> None:
        if self.away:
            raise CutOff("cut off")


@dataclass
class FleetHost:
    """One host of the fleet: implements `FleetView` for itself."""

    name: str
    node_id: str
    exit_: ExitUnderTest
    fleet: ExitsUnderTest
    any: AnyExit = field(init=False)
    up: bool = True
    order: list[str] = field(default_factory=list)  # of candidates; empty: this host first

    def wire(self) -> None:
        """Puts the fleet's parts around those of the exit, as the server does when it starts."""
        exit_ = self.exit_
        described = build_exit(exit_.settings.wireguard, SERVER_KEY)
        parts = exit_.parts
        parts.node.id_mark = ids.mark_of_node(self.node_id)
        wire, own = self.fleet.wire, self.node_id

        async def call(node_id: str, operation: str, payload: bytes, timeout_s: float) -> bytes:
            return await wire.call(own, node_id, operation, payload, timeout_s)

        self.any = any_exit.build(
            any_exit.ThisExit(
                own_id=own,
                region=self.name,
                store=exit_.store,
                tokens=parts.tokens,
                clock=parts.records.clock,
                sessions=parts.services.sessions,
                devices=parts.services.devices,
                own_keys={described.public_key},
                wake=parts.wakeup.request_tick,
            ),
            any_exit.TheFleet(
                view=self,
                call=call,
                claims=self.fleet.ledger.at(own),
                folds=self.fleet.reports if own == self.fleet.hub else None,
                hub_id=lambda: self.fleet.hub,
                patience_s=60.0,
                may_drain=lambda sender: sender == self.fleet.hub,
            ),
            parts.services.quotas,
            parts.records.lending,
        )
        offered = parts.services.offered
        offered.sessions, offered.devices, offered.regions = self.any.sessions, self.any.devices, self
        offered.caller, offered.quotas = Caller.of, self.any.quotas

    # FleetView --------------------------------------------------------------------------------------

    def _active(self) -> list[FleetHost]:
        cut = self.fleet.wire.cut
        if self.node_id in cut:
            return [self]
        return [h for h in self.fleet.hosts.values() if h is self or (h.up and h.node_id not in cut)]

    def regions(self) -> list[tuple[str, int]]:
        names = [h.exit_.settings.node.region for h in self._active() if h.exit_.parts.node.active]
        return [(name, names.count(name)) for name in sorted(set(names))]

    def candidates(self, region: str) -> Sequence[str]:
        active = [h for h in self._active() if h.exit_.parts.node.active]
        if not active:
            raise NoActiveNodes
        there = [h for h in active if h.exit_.settings.node.region == region]
        if not there:
            raise NoActiveNodeInRegion(region, tuple(code for code, _ in self.regions()))
        there.sort(key=lambda h: (self.order.index(h.name) if h.name in self.order else 9, h is not self))
        return [h.node_id for h in there]

    def standing(self) -> dict[str, bool]:
        active = self._active()
        return {h.node_id: h in active for h in self.fleet.hosts.values()}

    def heard_for_s(self, node_id: str) -> float:
        return 0.0 if node_id in self.fleet.wire.cut else 0.05  # there are beats all the while

    # What happens to it -----------------------------------------------------------------------------

    async def stop(self) -> None:
        """The process stops."""
        self.up = False
        await self.settled()
        await self.exit_.stop()

    async def start(self) -> None:
        """A process starts on what is left."""
        self.exit_.tunnel = type(self.exit_.tunnel)(self.exit_.tunnel.interface)
        await self.exit_.start()
        self.wire()
        self.up = True

    async def restart(self) -> None:
        await self.stop()
        await self.start()

    async def settled(self) -> None:
        await self.exit_.settled()
        if not self.fleet.ledger.hangs:
            await self.any.key_claims.settled()

    def report(self) -> None:
        """Reports its sessions as they are."""
        for session in self.exit_.parts.live.public_keys():
            found = self.exit_.parts.live[session]
            self.fleet.reports.sessions[found.id] = Folded(self.node_id, found)

    def left(self) -> tuple[object, ...]:
        """All that sessions and devices occupy here."""
        return (
            self.exit_.rows("SELECT id FROM sessions WHERE state <> 'terminated'"),
            self.exit_.rows("SELECT id FROM devices WHERE removed_at IS NULL"),
            self.exit_.rows("SELECT session_id FROM invoice_lines"),
            self.exit_.parts.pool.in_use,
            set(self.exit_.tunnel.peers),
            set(self.exit_.parts.live.public_keys()),
        )


@dataclass
class FleetClient:
    """An account that all exits know, with one token."""

    fleet: ExitsUnderTest
    account: Account
    token: str

    def at(self, name: str) -> Client:
        """The client, calling this host's API."""
        return Client(self.fleet[name].exit_, self.account, self.token)


@dataclass
class ExitsUnderTest:
    hosts: dict[str, FleetHost] = field(default_factory=dict)  # by name
    wire: Wire = field(default_factory=Wire)
    ledger: Ledger = field(default_factory=Ledger)
    reports: Reports = field(default_factory=Reports)
    hub: str = ""

    def __getitem__(self, name: str) -> FleetHost:
        return self.hosts[name]

    async def client(self, name: str = "ada", tier: Tier = Tier.PAID) -> FleetClient:
        secret = ids.token_secret()
        clock = next(iter(self.hosts.values())).exit_.clock
        account = Account(ids.account_id(), name, tier, False, clock.wall_ms)
        token = Token(ids.token_id(), name, tier, "", clock.wall_ms, expires_at=None, revoked_at=None)
        for host in self.hosts.values():
            async with host.exit_.store.write() as db:
                await account_rows.insert(db, account)
                await token_rows.insert(db, account, token, ids.token_hash(secret))
        return FleetClient(self, account, secret)

    async def carry_out(self) -> None:
        """All exits ask what they still have to ask."""
        for host in self.hosts.values():
            if host.up:
                await host.any.intents.carry_out()
        await self.settled()

    async def settled(self) -> None:
        for host in self.hosts.values():
            if host.up:
                await host.settled()

    def intents(self) -> int:
        return sum(host.exit_.rows("SELECT count(*) FROM fleet_intents")[0][0] for host in self.hosts.values())


@asynccontextmanager
async def fleet(
    folder: Path,
    *names: str,
    config_text: str = "",
    regions: dict[str, str] | None = None,
    environ: Mapping[str, str] | None = None,
) -> AsyncIterator[ExitsUnderTest]:
    exits = ExitsUnderTest()
    async with AsyncExitStack() as stack:
        for number, name in enumerate(names, 1):
            place = folder / name
            place.mkdir()
            own = {
                "WG_APPLIANCE_NODE_REGION": (regions or {}).get(name, name),
                "WG_APPLIANCE_NODE_NAME": name,
                "WG_APPLIANCE_NODE_PUBLIC_IP": f"192.0.2.{number}",
                "WG_APPLIANCE_WIREGUARD_SUBNET": f"10.{number}.0.0/24",
            }
            exit_ = await stack.enter_async_context(serving(place, config_text, environ=own | dict(environ or {})))
            host = FleetHost(name, f"nod_{number:024x}", exit_, exits)
            exits.hosts[name] = host
            exits.wire.hosts[host.node_id] = host
        exits.hub = exits.hosts[names[0]].node_id
        for host in exits.hosts.values():
            host.wire()
        yield exits
        for host in exits.hosts.values():
            if not host.up:
                await host.start()


def on_fleet(
    *names: str,
    config_text: str = "",
    regions: dict[str, str] | None = None,
    environ: Mapping[str, str] | None = None,
) -> Callable[[Callable[..., Coroutine[Any, Any, None]]], Callable[..., None]]:
    """Runs an `async def test_x(exits, ...)` on a fleet of its own."""

    def decorate(test: Callable[..., Coroutine[Any, Any, None]]) -> Callable[..., None]:
        async def story(tmp_path: Path, **fixtures: Any) -> None:
            async with fleet(tmp_path, *names, config_text=config_text, regions=regions, environ=environ) as exits:
                await test(exits, **fixtures)

        def run(tmp_path: Path, **fixtures: Any) -> None:
            asyncio.run(story(tmp_path, **fixtures))

        _, *others = inspect.signature(test).parameters.values()
        place = inspect.Parameter("tmp_path", inspect.Parameter.POSITIONAL_OR_KEYWORD)
        run.__signature__ = inspect.Signature([place, *others])  # type: ignore[attr-defined]  # what pytest reads
        run.__name__, run.__doc__, run.__module__ = test.__name__, test.__doc__, test.__module__
        return run

    return decorate
