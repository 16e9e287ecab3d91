"""Tens of thousands of connections: who has them takes nothing from others, and their end holds up no other request."""

from __future__ import annotations

import json
import re
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from typing import TYPE_CHECKING

import pytest

from tests.support.egress.capture import Capture, send
from tests.support.egress.flood import begin_on, flows, flows_to, trackable, tracked
from tests.support.egress.packets import token, udp
from tests.support.egress.vantage import WEB_OF
from tests.support.tunnel.appliance_process import Appliance
from tests.support.tunnel.client import Client
from tests.support.tunnel.waiting import until
from tests.support.tunnel.watched_exit import watched_exit
from tests.support.tunnel.world import World, new_world

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.support.tunnel.watched_exit import WatchedExit

MANY = 65_000
GREEDY = 8


@pytest.fixture(scope="module")
def exit_(backend: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[WatchedExit]:
    with watched_exit(backend, tmp_path_factory.mktemp("many")) as made:
        yield made


def seconds(work: Callable[[], object]) -> float:
    began = time.monotonic()
    work()
    return time.monotonic() - began


@pytest.mark.black_box
def test_an_end_with_many_flows_holds_up_nobody(exit_: WatchedExit, show: Callable[[str], None]) -> None:
    """A session ends that has 65,000 connections: its own DELETE and another account's, sent right after it, are
    answered as fast as ever. The connections are gone soon after, and before another gets the address."""
    host, appliance = exit_.world.exit, exit_.appliance
    mine, theirs = appliance.token("mine"), appliance.token("theirs")
    few, none = (appliance.open(each)["id"] for each in (mine, theirs))
    before = max(seconds(lambda: appliance.close(few, mine)), seconds(lambda: appliance.close(none, theirs)))
    opened, others = appliance.open(mine), appliance.open(theirs)["id"]
    (address,) = re.findall(r"^Address = ([0-9.]+)/32", opened["wg_config"], re.MULTILINE)
    room = trackable(host) - tracked(host) - 500
    begin_on(host, flows_to(address, WEB_OF[4], min(MANY, room)))
    many = tracked(host)
    assert many > min(MANY, room) * 0.9

    with ThreadPoolExecutor(2) as asking:
        own = asking.submit(seconds, lambda: appliance.close(opened["id"], mine))
        time.sleep(0.05)
        other = asking.submit(seconds, lambda: appliance.close(others, theirs))
        took = own.result(), other.result()
    show(
        f"DELETE of a session with {many} connections {took[0] * 1000:.0f} ms, another account's meanwhile "
        f"{took[1] * 1000:.0f} ms; without them {before * 1000:.0f} ms at most"
    )
    until(lambda: tracked(host) < many / 10, "the connections are gone")
    assert appliance.api("GET", "/readyz").status == 200


def test_who_holds_and_opens_most(exit_: WatchedExit) -> None:
    """`session list --flows`: live sessions, the one with the most connections first; over both IP versions, and how
    many it opens a second. In --json, too. A plain user is told in one line that only root may."""
    host, members = exit_.world.exit, exit_.members
    address = members[1].addresses.partition("/")[0]
    begin_on(host, flows(address, WEB_OF[4], 300))
    with ThreadPoolExecutor(1) as asking:
        listing = asking.submit(exit_.appliance.admin, "session", "list", "--flows", "--json")
        port = 10
        while not listing.done():
            begin_on(host, flows(address, WEB_OF[4], 20, port))
            port += 1
            time.sleep(0.1)
    first, *_ = listed = json.loads(listing.result())["sessions"]
    assert first["address"] == address
    assert first["id"] == members[1].session
    assert first["flows"] >= 300
    assert first["new_flows_per_second"] > 20
    assert all(each["flows"] < 100 for each in listed[1:])
    table = exit_.appliance.admin("session", "list", "--flows").splitlines()
    assert table[0].split() == ["ID", "ACCOUNT", "DEVICE", "TIER", "ADDRESS", "CONNECTIONS", "NEW/S"]
    assert table[1].split()[4] == address


class Crowd:
    """Nine clients, each with an interface of its own and no route to it: what it sends is put into its tunnel."""

    def __init__(self, world: World, appliance: Appliance, directory: Path, stack: ExitStack) -> None:
        self.world, self.appliance = world, appliance
        self.far = stack.enter_context(Capture(world.internet, "net0"))
        self.members: list[tuple[Client, str]] = []
        for number in range(GREEDY + 1):
            client = Client(world.clients[0], world.interface(f"m{number}"), directory / f"member{number}")
            stack.callback(client.close)
            config = appliance.open(appliance.token(f"account{number}"))["wg_config"]
            (address,) = re.findall(r"^Address = ([0-9.]+)/32", config, re.MULTILINE)
            client.wg_quick(config.replace("[Interface]\n", "[Interface]\nTable = off\n"))
            self.members.append((client, address))
            until(lambda c=client, a=address: self.passes(c, a), "its tunnel carries")  # type: ignore[misc]

    def passes(self, client: Client, address: str) -> bool:
        mark = token()
        send(client.space, client.interface, udp(address, WEB_OF[4], mark, source_port=999).whole())
        return bool(self.far.carrying(mark))


@pytest.mark.long
@pytest.mark.black_box
def test_eight_at_their_limit_leave_room_for_a_ninth(backend: str, tmp_path: Path, show: Callable[[str], None]) -> None:
    """Eight clients open as many connections as they can, more than the host can track; a ninth opens 100 of 100."""
    with ExitStack() as stack:
        world = stack.enter_context(new_world(1))
        made = Appliance(world, backend, tmp_path / "appliance", {})
        appliance = stack.enter_context(made.serving())
        crowd = Crowd(world, appliance, tmp_path, stack)
        room = trackable(world.exit)
        for client, address in crowd.members[:GREEDY]:
            packets = flows_to(address, WEB_OF[4], room // GREEDY + 100)
            for begun in range(0, len(packets), 100):
                send(client.space, client.interface, *packets[begun : begun + 100])
                time.sleep(0.01)
        held = tracked(world.exit)
        ninth, address = crowd.members[-1]
        marks = [token() for _ in range(100)]
        for port, mark in enumerate(marks, start=20_000):
            send(ninth.space, ninth.interface, udp(address, WEB_OF[4], mark, source_port=port).whole())
            time.sleep(0.005)
        come = until(lambda: (found := came_out(crowd.far, marks)) >= 100 and found, "all come out")
        show(f"{GREEDY} clients hold {held} of {room} connections; a ninth opened {come} of 100")


def came_out(far: Capture, marks: list[bytes]) -> int:
    payloads = b"".join(seen.payload for seen in far.packets()[-4000:])
    return sum(mark in payloads for mark in marks)
