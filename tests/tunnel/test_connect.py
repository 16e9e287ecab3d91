"""`wg-appliance connect` against a real exit: a tunnel for the whole machine, what is shown, how it ends."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest
from appliance_process import Appliance
from client import clients_of
from connecting import CTRL_C, LISTENING, RUN, command, environment, in_terminal
from world import EXIT_IP, EXIT_IP6, WEB, WEB6, new_world

if TYPE_CHECKING:
    from collections.abc import Iterator

    from client import Client
    from namespace import Namespace
    from world import World


@pytest.fixture(scope="module")
def ground(backend: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[World, Appliance, Client]]:
    folder = tmp_path_factory.mktemp("connect")
    with new_world(1) as world, clients_of(world, folder) as clients:
        exit_ = Appliance(world, backend, folder / "appliance", {"api": LISTENING})
        with exit_.serving():
            yield world, exit_, clients[0]


@pytest.fixture
def exit_(ground: tuple[World, Appliance, Client]) -> Appliance:
    return ground[1]


@pytest.fixture
def client(ground: tuple[World, Appliance, Client]) -> Iterator[Client]:
    before = host(ground[2].space)
    yield ground[2]
    assert host(ground[2].space) == before
    assert ground[1].live_sessions() == []


def host(space: Namespace) -> set[str]:
    """What a connection may change on its machine, and the files that it has there."""
    commands = (
        ("ip", "-oneline", "address"),
        ("ip", "route"),
        ("ip", "-6", "route"),
        ("ip", "rule"),
        ("ip", "-6", "rule"),
    )
    lines = {line.strip() for shown in commands for line in space.run(*shown).stdout.splitlines()}
    lines |= {line.strip() for line in space.run("nft", "list", "tables").stdout.splitlines()}
    return lines | {str(path) for path in RUN.glob("*")} | {f"process {pid}" for pid in space.pids()}


def test_a_whole_life(exit_: Appliance, client: Client) -> None:
    """Up, all traffic leaves by the exit, the line renews itself; Ctrl-C: everything as it was, and a receipt."""
    token = exit_.token()
    with in_terminal(client.space, command(), environment(token)) as terminal:
        terminal.await_text(rf"connected: test, traffic leaves from {EXIT_IP} \(session ses_\w+\); Ctrl-C ends it")
        assert client.address_seen(WEB) == EXIT_IP
        assert client.address_seen(WEB6) == EXIT_IP6
        client.download(500_000, "status")
        terminal.await_text(r"test  203\.0\.113\.1  0:00:\d\d  ↓ [45]\d\d\.\d KiB .*handshake \d+s ago  .*left")
        terminal.press(CTRL_C)
        assert terminal.wait() == 0, terminal.text
        shown = "\n".join(terminal.shown())
    assert re.search(r"ended +closed\nconnected +0:00:\d\d\ndownloaded +[45]\d\d\.\d KiB\nuploaded ", shown), shown
    assert "handshake" not in shown, "the status line has gone"
