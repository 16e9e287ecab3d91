"""Rows that need the kernel's WireGuard: reading and restoring many peers, and the tick."""

from __future__ import annotations

import asyncio
import subprocess
import tempfile
from contextlib import ExitStack, contextmanager
from functools import partial
from ipaddress import ip_address
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING

from appliance.network.wireguard import keys
from tests.bench import books
from tests.bench.contest import Row, Target, take_turns
from tests.bench.device import PORT, PRIVATE_KEY, Device
from tests.bench.ticking import Ticking
from tests.support.netns import new_namespace

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from random import Random

    from appliance.network.wireguard.tunnel import Dump, Peer

PEERS = 20_000
STEPS = (100, 500, 1_000, 5_000, 10_000, 20_000, 50_000)  # of the plot
CHANGED = 100  # one in so many peers, between two readings
ROUNDS_OF_RESTORE = 3


@contextmanager
def a_device() -> Iterator[Device]:
    with new_namespace() as space, space.entered():
        device = Device("wgbench", asyncio.new_event_loop())
        try:
            device.make()
            yield device
        finally:
            device.close()


def reading_row(device: Device, rounds: int) -> Row:
    moved: list[int] = []
    last = device.ours()

    def read() -> Dump:
        nonlocal last
        last = device.ours()
        return last

    def ours() -> None:
        earlier, dump = last, read()
        moved.append(len([dump.peers[key] for key in dump.changed_since(earlier)]))

    seconds = take_turns(
        rounds,
        {
            "bare loop": device.bare,
            "ours": ours,
            "wg show dump": device.wg_show,
            "pyroute2, not decoded": device.pyroute2,
        },
        before={"ours": partial(device.move, len(device.peers) // CHANGED, read)},
    )
    targets = [
        Target("ours", "bare loop", 1.3),
        Target("ours", "wg show dump", 1 / 8),
    ]
    remark = f"{median(moved):.0f} peers changed between two readings"
    return Row(f"dump of {len(device.peers):,} peers to changed peers in Python", "s", seconds, targets, remark)


def tick_row(device: Device, rounds: int) -> Row:
    """A whole tick, and one that only looks, beside the bare loop and `wg`."""
    with tempfile.TemporaryDirectory() as folder:
        ticking = Ticking(device, Path(folder))
        ticking.tick()
        counted: list[int] = []
        many = max(1, len(device.peers) // CHANGED)

        def ready() -> None:
            ticking.tick()  # what was only looked at before
            device.move(many, ticking.tick)
            counted.append(-ticking.bytes_counted)

        def tick() -> None:
            ticking.tick()
            counted[-1] += ticking.bytes_counted

        seconds = take_turns(
            rounds,
            {"bare loop": device.bare, "look": ticking.look, "tick": tick, "wg show dump": device.wg_show},
            before={"look": partial(device.move, many, ticking.tick), "tick": ready},
        )
        ticking.close()
    remark = f"{many} peers changed, {median(counted):,.0f} bytes counted and committed"
    at_most = {"tick": 2.5, "look": 1.8} if len(device.peers) == PEERS else {}
    targets = [Target(what, "bare loop", ratio) for what, ratio in at_most.items()]
    return Row(
        f"a whole tick, {len(device.peers):,} peers", "s", seconds, targets, remark, {"peers": len(device.peers)}
    )


def idle_row(device: Device, rounds: int) -> Row:
    """Ticks in which nothing moves: each peer is a session on one exit, and an idle device on the other."""
    with ExitStack() as stack:
        exits = {}
        for name, fill in (("sessions", books.fill), ("devices", books.fill_idle)):
            folder = stack.enter_context(tempfile.TemporaryDirectory())
            exits[name] = Ticking(device, Path(folder), fill)
            stack.callback(exits[name].close)
        kinds = (("look", Ticking.look), ("tick", Ticking.tick))
        contenders = {f"{kind}, {name}": partial(run, exits[name]) for kind, run in kinds for name in exits}
        # What comes before is a look of the same exit: each reads a dump after another of its own.
        before = {f"{kind}, {name}": exits[name].look for kind, _ in kinds for name in exits}
        seconds = take_turns(rounds, contenders, before=before)
    targets = [Target(f"{kind}, devices", f"{kind}, sessions", 1.1) for kind, _ in kinds]
    return Row(f"a tick of {len(device.peers):,} quiet peers, sessions' or idle devices'", "s", seconds, targets)


def restoring_row(device: Device, rounds: int) -> Row:
    """All peers, fresh, into an interface that has none."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "wg.conf"
        file.write_text(_configuration(device.peers), encoding="utf-8")
        command = ["wg", "setconf", device.name, str(file)]
        seconds = take_turns(
            rounds,
            {
                "ours": partial(device.put, device.peers),
                "wg setconf": partial(subprocess.run, command, check=True, timeout=600),
            },
            before={"ours": device.make, "wg setconf": device.make},
        )
    work = f"restore {len(device.peers):,} peers into an empty interface"
    return Row(work, "s", seconds, [Target("ours", "wg setconf", 1.0)])


def _configuration(peers: Sequence[Peer]) -> str:
    lines = ["[Interface]", f"PrivateKey = {keys.encode(PRIVATE_KEY)}", f"ListenPort = {PORT}"]
    for peer in peers:
        allowed_ips = ", ".join(f"{ip_address(p.address)}/{p.length}" for p in sorted(peer.allowed_ips))
        lines += ["[Peer]", f"PublicKey = {keys.encode(peer.public_key)}", f"AllowedIPs = {allowed_ips}"]
    return "\n".join([*lines, ""])


def rows(rounds: int, random: Random) -> Iterator[Row]:
    with a_device() as device:
        for many in STEPS:
            device.grow(many, random)
            if many == PEERS:
                yield reading_row(device, rounds)
            yield tick_row(device, rounds)
            if many == PEERS:
                yield idle_row(device, rounds)
            if many == PEERS:
                yield restoring_row(device, ROUNDS_OF_RESTORE)
