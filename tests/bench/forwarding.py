"""What the exit's table, marks and limits cost a client's traffic: beside an exit with a plain masquerade."""

from __future__ import annotations

import tempfile
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from tests.bench.contest import Row, Target, take_turns
from tests.support.tunnel.appliance_process import Appliance
from tests.support.tunnel.client import clients_of, new_key_pair
from tests.support.tunnel.handmade_exit import handmade_config, handmade_exit
from tests.support.tunnel.world import new_world

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.support.tunnel.client import Client

SIZE = {"userspace": 100_000_000, "kernel": 20_000_000}  # of a download; the kernel is an emulated one, or a quick one
LEAST = 0.97  # of a plain masquerade's throughput


@contextmanager
def _client_of_ours(backend: str, directory: Path) -> Iterator[Client]:
    with (
        new_world(1, one_uplink=True) as world,
        clients_of(world, directory) as clients,
        Appliance(world, backend, directory / "appliance", {}).serving() as appliance,
    ):
        clients[0].wg_quick(appliance.open(appliance.token())["wg_config"])
        yield clients[0]


@contextmanager
def _client_of_masquerade(backend: str, directory: Path) -> Iterator[Client]:
    keys = new_key_pair()
    with (
        new_world(1, one_uplink=True) as world,
        handmade_exit(world, backend, keys.public, directory) as exit_keys,
        clients_of(world, directory) as clients,
    ):
        clients[0].wg_quick(handmade_config(keys, exit_keys.public))
        yield clients[0]


def _download(client: Client, size: int) -> None:
    received = client.download(size, "forwarding")
    assert received.length == size


def forwarding_row(backend: str, rounds: int) -> Row:
    contenders = {"ours": _client_of_ours, "plain masquerade": _client_of_masquerade}
    with ExitStack() as stack:
        works = {}
        for name, client_of in contenders.items():
            directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="bench-")))
            client = stack.enter_context(client_of(backend, directory))
            client.address_seen()
            works[name] = partial(_download, client, SIZE[backend])
        seconds = take_turns(rounds, works)
    targets = [Target("ours", "plain masquerade", round(1 / LEAST, 3))]
    remark = f"{backend} backend; client, exit and internet on this machine"
    return Row(f"a download of {SIZE[backend] // 1_000_000} MB through the tunnel", "s", seconds, targets, remark)
