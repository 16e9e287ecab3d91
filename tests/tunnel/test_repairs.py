"""Somebody changes a running exit behind the appliance's back: it is put right, and only who was concerned notices."""

from __future__ import annotations

import time
from contextlib import ExitStack, suppress
from typing import TYPE_CHECKING

import pytest
from client import new_key_pair
from ping import Ping
from tampering import TABLE, Loss, Row, Sessions
from waiting import until
from watched_exit import WatchedExit, watched_exit
from world import EXIT_IP, EXIT_IP6, WEB, WEB6, WEB_IP, WEB_IP6

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from ping import Pinged

# Seldom: whatever is put right sooner was seen in an event, or at the look about each second.
INTERVAL = "60s"
REPAIR_SECONDS = 30.0


@pytest.fixture(scope="module")
def shared_exit(backend: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[WatchedExit]:
    """One for all: every repair leaves it as it was."""
    with watched_exit(backend, tmp_path_factory.mktemp("repairs"), meter={"interval": INTERVAL}) as made:
        yield made


@pytest.fixture
def exit_(shared_exit: WatchedExit, request: pytest.FixtureRequest) -> Iterator[WatchedExit]:
    before = len(shared_exit.appliance.log())
    yield shared_exit
    request.node.add_report_section("teardown", "log of the appliance", shared_exit.appliance.log()[before:])


@pytest.fixture
def pings(exit_: WatchedExit, tmp_path: Path) -> Iterator[dict[str, Ping]]:
    """The unconcerned client's, over IPv4 and over IPv6; both are answered."""
    with ExitStack() as stack:
        running = {}
        for name, address in (("IPv4", WEB_IP), ("IPv6", WEB_IP6)):
            running[name] = Ping(exit_.members[1].client.space, address, tmp_path / name)
            stack.callback(running[name].kill)
        for ping in running.values():
            ping.goes_on(5)
        yield running


@pytest.mark.parametrize("row", TABLE, ids=lambda row: row.name)
def test_repaired(
    exit_: WatchedExit, pings: dict[str, Ping], row: Row, backend: str, show: Callable[[str], None]
) -> None:
    """It is as it was; nobody lost a packet but who was concerned, and their traffic flows again; one repair is
    logged, of this and nothing else."""
    if row.userspace_only and backend != "userspace":
        pytest.skip("the kernel's WireGuard has no process to kill")
    concerned, unconcerned = exit_.members
    words = {
        "{concerned}": concerned.key,
        "{unconcerned}": unconcerned.key,
        "{addresses}": concerned.addresses,
        "{foreign}": new_key_pair().public,
        "{wireguard_go}": " ".join(map(str, exit_.appliance.space.pids_of("wireguard-go"))),
    }
    expected = [_with(words, line) for line in row.repairs]
    before, logged = exit_.facts(), len(exit_.appliance.log())

    exit_.sh(_with(words, row.tamper))
    tampered = time.monotonic()
    # The log is read first: asking the kernel in a loop would keep the processor from the repair.
    until(lambda: len(exit_.repairs(logged)) >= len(expected), "the repair is logged", REPAIR_SECONDS, every=0.005)
    told = time.monotonic()
    until(lambda: exit_.fact(row.fact) == before[row.fact], f"{row.fact} as before", REPAIR_SECONDS, every=0.005)
    seen = time.monotonic()
    _await_facts(exit_, before)
    if row.sessions is not Sessions.STAY:
        concerned.client.shake_hands()
    if row.sessions is Sessions.ALL:
        unconcerned.client.shake_hands()
    assert (concerned.client.address_seen(WEB), concerned.client.address_seen(WEB6)) == (EXIT_IP, EXIT_IP6)
    for ping in pings.values():
        ping.goes_on(10)
    pinged = {name: ping.stop() for name, ping in pings.items()}

    show(
        f"logged after {told - tampered:.2f} s, seen after {seen - tampered:.2f} s; "
        + ", ".join(f"{name} {_loss(each)}" for name, each in pinged.items())
    )
    assert sorted(exit_.repairs(logged)) == sorted(expected)
    for name, loss in (("IPv4", row.ipv4), ("IPv6", row.ipv6)):
        assert len(pinged[name].outages) <= (loss is Loss.UNTIL_REPAIRED), name


def _await_facts(exit_: WatchedExit, wanted: dict[str, list[str]]) -> None:
    with suppress(TimeoutError):
        until(lambda: exit_.facts() == wanted, "all is as it was", REPAIR_SECONDS)
    assert exit_.facts() == wanted


def _with(words: dict[str, str], text: str) -> str:
    for word, value in words.items():
        text = text.replace(word, value)
    return text


def _loss(pinged: Pinged) -> str:
    return f"lost {'+'.join(map(str, pinged.outages)) or 0} of {pinged.sent}"
