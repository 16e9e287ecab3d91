"""`python -m tests.support.fleet.member_process FILE`: one host's part in reports, as a process that can be killed.

An exit has the real store, meter, sessions and ticker over a tunnel in a file, and reports; a hub folds. What is to be
done is asked on standard input, a line of JSON each, and answered on standard output.
"""

from __future__ import annotations

import asyncio
import json
import logging
import sys
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from appliance.config.load import parse_settings
from appliance.domain.clock import HostClock, Moment
from appliance.domain.entities import Account
from appliance.domain.errors import ApplianceError
from appliance.domain.tiers import Tier
from appliance.fleet.link.link import LinkState, NatsLink, hub_tls
from appliance.fleet.link.nats_client import LinkUser
from appliance.fleet.link.nkey import NKey
from appliance.fleet.reports.fold import Fold
from appliance.fleet.reports.fold_answers import FoldAnswers
from appliance.fleet.reports.reporting import Reporting, ReportingPace
from appliance.fleet.reports.streams import NatsStreams
from appliance.network.exit_node import build_exit
from appliance.server import assembly
from appliance.sessions.metrics import Metrics
from appliance.sessions.opening import SessionRequest
from appliance.store import peer_lives
from appliance.store.database import Store
from appliance.store.known_time import believed_clock
from appliance.store.queries import accounts, fleet_reports
from tests.support.egress_in_place import EgressInPlace
from tests.support.fixed_host import FixedHost
from tests.support.fleet.hub_process import At
from tests.support.fleet.kept_tunnel import KeptTunnel

if TYPE_CHECKING:
    from collections.abc import Callable

    from appliance.server.assembly import Parts

TICK_S = 0.15
PACE = ReportingPace(report_s=0.4, look_s=0.05, answer_s=2.0, per_second=200)
ACCOUNT = Account("acc_fleet", "fleet", Tier.PAID, False, 1)
SETTINGS = parse_settings(
    """
    [node]
    region = "fsn"
    [wireguard]
    subnet = "10.101.0.0/24"
    [tiers.paid]
    bytes_limit = 0
    seconds_limit = 0
    max_live_sessions = 0
    idle_timeout = 0
    """,
    {},
    "host",
)


class MemberConfig(msgspec.Struct):
    """Says who this is. `nodes`: of a hub, whose streams it folds. `boot`: of this start's host."""

    node: str
    seed: str
    inbox: str
    ca: str
    port: int
    server_name: str
    store: str
    tunnel: str = ""
    boot: str = ""
    nodes: tuple[str, ...] = ()


class BootClock:
    """Reads this host's clocks, of a boot that the test names."""

    def __init__(self, boot: str) -> None:
        self._host = HostClock()
        self._boot = boot

    def now(self) -> Moment:
        now = self._host.now()
        return Moment(now.wall_ms, now.boot_ms, self._boot)

    def synchronised(self) -> bool:
        return True


def link_of(config: MemberConfig, changed: Callable[[LinkState], None]) -> NatsLink:
    user = LinkUser(config.node, config.inbox, NKey.from_seed(config.seed), hub_tls(config.ca))
    at = At(f"127.0.0.1:{config.port}", config.server_name)
    return NatsLink(lambda: (at,), user, HostClock(), changed)


async def fold(config: MemberConfig, store: Store) -> None:
    streams = NatsStreams(lambda: link.jetstream())
    folding = Fold(store, streams, lambda: config.nodes)
    link = link_of(config, lambda state: folding.reconnected() if state.connected else None)
    await folding.listen(link)
    await FoldAnswers(store, folding, lambda node: node in config.nodes).listen(link)
    link.start()
    running = asyncio.create_task(folding.run())
    await served(_nothing, running)


async def own(config: MemberConfig, store: Store) -> None:
    async with store.write() as db:
        if await accounts.by_id(db, ACCOUNT.id) is None:
            await accounts.insert(db, ACCOUNT)
        await fleet_reports.begin_reporting(db)
    clock = await believed_clock(store, BootClock(config.boot))
    await peer_lives.follow(store, Path(config.store).with_name("peer-lives"), config.boot)
    parts = await assembly.build(
        SETTINGS,
        store=store,
        tunnel=KeptTunnel(Path(config.tunnel)),
        egress=EgressInPlace(),
        exit_=build_exit(SETTINGS.wireguard, bytes([7]) * 32),
        host=FixedHost(),
        clock=clock,
        metrics=Metrics(),
    )
    await parts.ticker.tick()
    await parts.ticker.tick()  # the first has made the interface
    link = link_of(config, lambda state: reporting.reconnected() if state.connected else None)
    reporting = Reporting(config.node, link, store, clock, PACE)
    link.start()
    tasks = asyncio.create_task(reporting.run()), asyncio.create_task(_tick(parts))
    await served(lambda asked: _done(parts, store, asked), *tasks)


async def _tick(parts: Parts) -> None:
    while True:
        await asyncio.sleep(TICK_S)
        await parts.ticker.tick()


async def _done(parts: Parts, store: Store, asked: dict[str, Any]) -> object:
    async with store.read() as db:
        account = await accounts.by_id(db, ACCOUNT.id)
    assert account is not None
    if asked["do"] == "open":
        key = bytes.fromhex(asked["key"])
        return (await parts.services.sessions.open(account, SessionRequest("fsn", key, ipv6=False))).session.id
    if asked["do"] == "close":
        return (await parts.services.sessions.close(account, asked["session"])).id
    return [[session.id, session.public_key.hex()] for session in parts.live]


async def _nothing(_: dict[str, Any]) -> object:
    return None


async def served(do: Callable[[dict[str, Any]], Any], *running: asyncio.Task[None]) -> None:
    """Answers what is asked until the end of the input, or until one of the tasks ends, which none should."""
    reader = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    _say({"ready": True})
    while line := await reader.readline():
        for each in running:
            if each.done():
                each.result()
                raise AssertionError("what was to run has ended")
        try:
            _say({"done": await do(json.loads(line))})
        except ApplianceError as error:
            _say({"error": repr(error)})


def _say(answer: object) -> None:
    sys.stdout.write(json.dumps(answer) + "\n")
    sys.stdout.flush()


async def main(config: MemberConfig) -> None:
    store = await Store.open(Path(config.store))
    with suppress(asyncio.CancelledError):
        await (fold if config.nodes else own)(config, store)


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    asyncio.run(main(msgspec.json.decode(Path(sys.argv[1]).read_bytes(), type=MemberConfig)))
