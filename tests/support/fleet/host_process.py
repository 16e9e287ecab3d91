"""`python -m tests.support.fleet.host_process FILE`: a whole host of a fleet, as a process that can be killed.

As `serve`, it holds the lock of its state directory, acts on commands and takes part in the fleet that they found and
join, as a hub with nats-server beside it; its tunnel is in a file, and it has no HTTP. Sessions are asked for on
standard input.
"""

from __future__ import annotations

import asyncio
import logging
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from appliance.config.load import read_settings
from appliance.domain.clock import HostClock
from appliance.network.exit_node import build_exit
from appliance.server import assembly
from appliance.server.fleet_membership import FleetMembership
from appliance.server.served_exit import ServedExit
from appliance.sessions.metrics import Metrics
from appliance.sessions.opening import SessionRequest
from appliance.store import peer_lives
from appliance.store.database import Store
from appliance.store.known_time import believed_clock
from appliance.store.queries import accounts
from appliance.store.state_dir import StateDir
from tests.support.egress_in_place import EgressInPlace
from tests.support.fixed_host import FixedHost
from tests.support.fleet.kept_tunnel import KeptTunnel
from tests.support.fleet.member_process import served

if TYPE_CHECKING:
    from appliance.server.assembly import Parts

TICK_S = 0.5


class HostConfig(msgspec.Struct):
    """Says where its files are. `account`: the one whose sessions are asked for."""

    config: str
    tunnel: str
    account: str


async def main(host: HostConfig) -> None:
    settings = read_settings(Path(host.config), {})
    state, clock, metrics = StateDir(settings.node.state_dir), HostClock(), Metrics()
    with state.serving():
        store = await Store.open(state.store)
        believed = await believed_clock(store, clock)
        await peer_lives.follow(store, state.peer_lives, clock.now().boot_id)
        exit_ = build_exit(settings.wireguard, state.private_key())
        parts = await assembly.build(
            settings,
            store=store,
            tunnel=KeptTunnel(Path(host.tunnel)),
            egress=EgressInPlace(),
            exit_=exit_,
            host=FixedHost(),
            clock=believed,
            metrics=metrics,
        )
        await parts.ticker.tick()
        await parts.ticker.tick()  # the first has made the interface
        take_over = parts.services.terms.take_over
        here = ServedExit(settings, state, store, parts, exit_.public_key, believed, metrics, take_over)
        fleet = asyncio.create_task(FleetMembership(here).run(asyncio.Event()))
        await served(lambda asked: _done(parts, store, host.account, asked), fleet, asyncio.create_task(_tick(parts)))


async def _tick(parts: Parts) -> None:
    while True:
        await asyncio.sleep(TICK_S)
        await parts.ticker.tick()


async def _done(parts: Parts, store: Store, owner: str, asked: dict[str, Any]) -> object:
    async with store.read() as db:
        account = await accounts.by_name(db, owner)
    if account is None:
        return None
    sessions = parts.services.offered.sessions
    if asked["do"] == "open":
        request = SessionRequest(parts.node.region, bytes.fromhex(asked["key"]), ipv6=False)
        return (await sessions.open(account, request)).session.id
    if asked["do"] == "close":
        return (await sessions.close(account, asked["session"])).id
    return [[session.id, session.public_key.hex()] for session in parts.live]


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    asyncio.run(main(msgspec.json.decode(Path(sys.argv[1]).read_bytes(), type=HostConfig)))
    os._exit(0)  # its test has ended: the store's threads would have it stay for ever
