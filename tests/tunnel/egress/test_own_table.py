"""The claim of an nftables table, by the real nft."""

from __future__ import annotations

import asyncio
import subprocess
from contextlib import suppress
from ipaddress import ip_network
from typing import TYPE_CHECKING

from appliance.domain.errors import EgressError
from appliance.network.firewall.nft_events import table_events
from appliance.network.firewall.own_table import OwnTable, standing
from appliance.network.firewall.rules import Blocks, EgressRules, Translation, TunnelNetworks
from tests.support import netns
from tests.support.tunnel.world import new_world

if TYPE_CHECKING:
    from pathlib import Path

ROUNDS = 5
REPLACED = 10
AT_ONCE = ("wga0", "wgb-0", "wgc_0")


def rules(interface: str) -> EgressRules:
    tunnel = TunnelNetworks(interface, ip_network("10.101.0.0/24"), None)  # type: ignore[arg-type]  # it is IPv4
    return EgressRules(tunnel, Blocks(smtp=True, private=True, other_clients=True, extra=()), Translation())


async def run_nft(script: str, *arguments: str) -> str:
    command = ["nft", *(arguments or ("-f", "-"))]

    def run() -> subprocess.CompletedProcess[str]:
        return subprocess.run(command, input=script, capture_output=True, text=True, timeout=60, check=False)

    # A thread begins in the network namespace of the one that starts it.
    done = await asyncio.to_thread(run)
    if done.returncode != 0:
        raise EgressError(done.stderr)
    return done.stdout


def test_appliances_that_start_at_once_have_different_tables(once: str, tmp_path: Path) -> None:  # noqa: ARG001 - asked for its check of root
    """One has the known name, each other one that of its interface, and each finds its own again."""

    async def claimed(number: int) -> list[str]:
        tables = [OwnTable(name, tmp_path / f"{name}.{number}", run_nft) for name in AT_ONCE]
        await asyncio.gather(*(table.replace(rules(name)) for table, name in zip(tables, AT_ONCE, strict=True)))
        return [table.name for table in tables]

    with new_world(clients=0) as world, netns.Namespace(world.exit.name).entered():
        for number in range(ROUNDS):
            names = asyncio.run(claimed(number))
            assert names.count("wg_appliance") == 1
            for name, interface in zip(names, AT_ONCE, strict=True):
                assert name in ("wg_appliance", f"wg_appliance_{interface}")
                assert standing(interface, tmp_path / f"{interface}.{number}") == name
                assert standing(interface, tmp_path / "no record") == name
            # One that has claimed none yet, as it could not start, removes none.
            asyncio.run(OwnTable("wgd0", tmp_path / "no record", run_nft).remove())
            assert all(standing(interface, tmp_path / "no record") for interface in AT_ONCE)
            subprocess.run(["nft", "flush", "ruleset"], check=True, timeout=60)


def test_no_event_is_lost_while_the_table_is_replaced(once: str, tmp_path: Path) -> None:  # noqa: ARG001 - as above
    """The kernel tells of every rule that goes and comes. Were it too much to keep, the table would count as changed
    by another program, be replaced again, and so on."""
    changes: list[int] = []
    lost: list[bool] = []

    async def replaced() -> None:
        table = OwnTable("wga0", tmp_path / "record", run_nft)
        with table_events(
            lambda: table.name, lambda by: bool(changes.append(by)), lambda _: None, lambda: lost.append(True)
        ) as events:
            for _ in range(REPLACED):
                await table.replace(rules("wga0"))
            with suppress(TimeoutError):
                await asyncio.wait_for(events.happened(), 0.1)

    with new_world(clients=0) as world, netns.Namespace(world.exit.name).entered():
        asyncio.run(replaced())
    assert len(set(changes)) == REPLACED
    assert not lost
