"""Whole appliances with three hubs: another leads by itself when the one that led is lost; that one follows later."""

from __future__ import annotations

import json
import os
import signal
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.support.fleet.appliances import FleetAppliance, await_regions, exits_of
from tests.support.fleet.several_hubs import agreed, await_roles, await_successor, leading
from tests.support.fleet.whole_fleet import WholeFleet, await_token
from tests.support.fleet.world import new_fleet_world
from tests.support.real_backend import NO_ROOT, backend_here
from tests.support.tunnel.client import clients_of
from tests.support.tunnel.waiting import until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


pytestmark = [pytest.mark.long, pytest.mark.timeout(900)]


@pytest.fixture(scope="module")
def three(tmp_path_factory: pytest.TempPathFactory) -> Iterator[WholeFleet]:
    """A fleet whose three exits are its hubs. Each test leaves it so."""
    backend, folder = backend_here(), tmp_path_factory.mktemp("three")
    if backend is None:
        pytest.skip(NO_ROOT)
    with (
        new_fleet_world(3, 1) as world,
        clients_of(world, folder) as clients,
        exits_of(world, backend, folder, fleet={"report": "1s"}) as exits,
    ):
        first, *others = exits
        first.admin("fleet", "init")
        for each in others:
            each.admin("node", "join", first.admin("fleet", "invite").strip(), "--yes")
        await_regions(exits, {each.region for each in exits})
        first.admin("fleet", "hubs", *(each.name for each in exits))
        until(lambda: {leading(each) for each in exits} == {(first.name, 2)}, "all know who leads")
        yield WholeFleet(world, exits, clients)


def leader(fleet: WholeFleet) -> tuple[FleetAppliance, list[FleetAppliance], int]:
    """The hub that leads, the others, and the generation; once all agree."""
    (name, gen) = until(lambda: agreed(fleet.exits), "all know who leads")
    led = next(each for each in fleet.exits if each.name == name)
    return led, [each for each in fleet.exits if each is not led], gen


def token_of(fleet: WholeFleet, led: FleetAppliance, account: str) -> str:
    """Makes one on the hub that leads; returns once each exit takes it."""
    token = led.token(account)
    for each in fleet.exits:
        await_token(each, token)
    return token


def test_its_host_is_lost(three: WholeFleet, show: Callable[[str], None]) -> None:
    """Tokens made before hold, and those made afterwards on the new hub; sessions of other exits go on."""
    led, others, gen = leader(three)
    token = token_of(three, led, "before")
    (client,) = three.clients
    opened = led.open(token, region=others[1].region)
    client.wg_quick(opened["wg_config"])
    began = time.monotonic()
    led.lose_host()
    new = await_successor(others, gen)
    show(f"the host of the hub that led is lost: another leads after {time.monotonic() - began:.1f} s")
    later = new.token("later")
    for each in others:
        await_token(each, later)
        await_token(each, token)
    assert client.address_seen() == others[1].host.ip
    await_regions(others, {each.region for each in others})
    began = time.monotonic()
    led.revive_host()
    until(lambda: leading(led) == leading(new), "the old hub follows")
    await_token(led, later)
    await_regions(three.exits, {each.region for each in three.exits})
    show(f"it is back: {time.monotonic() - began:.1f} s")
    assert client.address_seen() == others[1].host.ip
    client.down()


def test_it_is_cut_off(three: WholeFleet, show: Callable[[str], None]) -> None:
    """What it changes alone is said to be queued, and listed once it follows the other; the rest is as it was."""
    led, others, gen = leader(three)
    three.world.cut_off(led.host)
    new = await_successor(others, gen)
    said = led.attempt("account", "create", "unseen", check=True)
    show(said.stderr.strip())
    later = new.token("of-new")
    for each in others:
        await_token(each, later)
    three.world.heal()
    until(lambda: leading(led) == leading(new), "the old hub follows")
    await_token(led, later)
    (change,) = json.loads(led.admin("fleet", "conflicts", "--json"))
    assert change["row"]["name"] == "unseen"
    led.admin("fleet", "conflicts", "--dismiss")


def test_its_process_stands_still(three: WholeFleet, show: Callable[[str], None]) -> None:
    """For long enough that another leads: it goes on as one that follows."""
    led, others, gen = leader(three)
    began = time.monotonic()
    os.kill(led.pid, signal.SIGSTOP)
    try:
        new = await_successor(others, gen)
        show(f"another leads after {time.monotonic() - began:.1f} s")
        later = new.token("while-still")
        for each in others:
            await_token(each, later)
    finally:
        os.kill(led.pid, signal.SIGCONT)
    until(lambda: leading(led) == leading(new), "the old hub follows")
    await_token(led, later)


def test_it_is_started_anew(three: WholeFleet, show: Callable[[str], None]) -> None:
    """As at an upgrade: one of the three leads, and all tokens hold."""
    led, _, _ = leader(three)
    token = token_of(three, led, "again")
    led.stop()
    began = time.monotonic()
    led.start()
    now_leads, _, _ = leader(three)
    show(f"all know who leads {time.monotonic() - began:.1f} s after the start")
    for each in three.exits:
        await_token(each, token)
    later = now_leads.token("restarted")
    for each in three.exits:
        await_token(each, later)


def nats_server_of(exit_: FleetAppliance) -> int:
    config = str(exit_.store.parent / "fleet/hub/hub.conf")
    for cmdline in Path("/proc").glob("[0-9]*/cmdline"):
        words = cmdline.read_bytes().split(b"\0")
        if config.encode() in words and words[0].endswith(b"nats-server"):
            return int(cmdline.parent.name)
    raise AssertionError(f"no nats-server runs by {config}")


def test_the_nats_server_of_one_dies(three: WholeFleet, show: Callable[[str], None]) -> None:
    """Of the one that leads: it is started again, and a token made meanwhile is good everywhere."""
    led, _, _ = leader(three)
    began = time.monotonic()
    os.kill(nats_server_of(led), signal.SIGKILL)
    token = led.token("server-died")
    for each in three.exits:
        await_token(each, token)
    show(f"its token is good everywhere after {time.monotonic() - began:.1f} s")
    leader(three)


def test_two_of_three_are_lost(three: WholeFleet, show: Callable[[str], None]) -> None:
    """The one that is left takes known tokens and goes on; when one is back, one of both leads."""
    led, others, gen = leader(three)
    token = token_of(three, led, "known")
    others[0].lose_host()
    led.lose_host()
    left = others[1]
    opened = left.open(token)
    assert opened["public_ip"] == left.host.ip
    left.close(opened["id"], token)
    assert leading(left)[1] == gen, "one alone leads nothing"
    began = time.monotonic()
    others[0].revive_host()
    new = await_successor(others, gen)
    show(f"one of two lost is back: another leads after {time.monotonic() - began:.1f} s")
    later = new.token("of-two")
    for each in others:
        await_token(each, later)
    led.revive_host()
    until(lambda: leading(led) == leading(new), "the old hub follows")
    await_token(led, later)
    await_regions(three.exits, {each.region for each in three.exits})


def test_one_of_three_is_lost_for_good(three: WholeFleet, show: Callable[[str], None]) -> None:
    """Forgotten, it leaves a hub and its standby; what it held is free, and it can join anew and be a hub again."""
    led, others, _ = leader(three)
    lost, stays = others
    token = token_of(three, led, "before-forget")
    lost.lose_host()
    show(led.attempt("fleet", "forget", lost.name, "--yes", check=True).stderr.strip())
    await_roles([led, stays], {led.name: "hub", stays.name: "standby"})
    later = led.token("forgotten")
    for each in (led, stays):
        await_token(each, token)
        await_token(each, later)
    lost.revive_host()
    lost.admin("fleet", "leave", "--force", "--yes")
    lost.admin("node", "join", led.admin("fleet", "invite").strip(), "--yes")
    await_token(lost, later)
    show(led.attempt("fleet", "hubs", *(each.name for each in three.exits), check=True).stderr.splitlines()[-1])
    leader(three)
    for each in three.exits:
        await_token(each, token)
