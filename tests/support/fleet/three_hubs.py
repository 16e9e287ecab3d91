"""Three hubs on loopback, each with an address of its own: nats-servers as the appliance configures a cluster of them.

with ThreeHubs(folder, AMS, FRA) as hubs:
    link = NatsLink(lambda: hubs.at(0, 1), hubs.user(AMS), HostClock())
"""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
from typing import TYPE_CHECKING

from appliance.config.own_ports import route_port
from appliance.domain.clock import HostClock
from appliance.fleet.hub.certificates import make_authority, make_leaf
from appliance.fleet.hub.cluster import cluster_of
from appliance.fleet.hub.config import HubSettings, ServerFiles, member_inbox, render
from appliance.fleet.hub.nats_server import ENVIRONMENT
from appliance.fleet.link.link import NatsLink, hub_tls
from appliance.fleet.link.nats_client import LinkUser
from appliance.fleet.link.nkey import NKey
from appliance.fleet.membership.identity import HubAddress
from appliance.fleet.membership.members import FleetMember
from tests.support.fleet.nats_program import NATS_SERVER

if TYPE_CHECKING:
    from pathlib import Path

ADDRESSES = ("127.0.0.11", "127.0.0.12", "127.0.0.13")


def free_pair() -> int:
    """A port that is free on each of the addresses, and the one beside it too."""
    while True:
        with socket.socket() as bound:
            bound.bind((ADDRESSES[0], 0))
            port: int = bound.getsockname()[1]
        if port % 2 and all(_is_free(host, each) for host in ADDRESSES for each in (port, route_port(port))):
            return port


def _is_free(host: str, port: int) -> bool:
    with socket.socket() as bound:
        try:
            bound.bind((host, port))
        except OSError:
            return False
    return True


class ThreeHubs:
    """Entered, all three run; `nodes` may sign on."""

    def __init__(self, folder: Path, *nodes: str) -> None:
        self.folder = folder
        port, now = free_pair(), HostClock().now().wall_ms
        self.addresses = [HubAddress(f"{host}:{port}", f"h{host[-1]}.hub.internal") for host in ADDRESSES]
        self.authority = make_authority("flt_test", now)
        self.own_keys = [(NKey.new(), NKey.new()) for _ in ADDRESSES]
        self.keys = {node: NKey.new() for node in nodes}
        self.processes: list[subprocess.Popen[bytes] | None] = [None] * len(ADDRESSES)
        for number in range(len(ADDRESSES)):
            self._write(number, now)

    def __enter__(self) -> ThreeHubs:
        for number in range(len(ADDRESSES)):
            self.start(number)
        return self

    def __exit__(self, *_: object) -> None:
        for number in range(len(ADDRESSES)):
            self.kill(number)

    def _of(self, number: int) -> Path:
        return self.folder / f"hub{number}"

    def _write(self, number: int, now: int) -> None:
        folder, own = self._of(number), self.addresses[number]
        folder.mkdir(parents=True)
        leaf = make_leaf(self.authority, own.server_name, now, (ADDRESSES[number],))
        for name, text in (("leaf.pem", leaf.certificate), ("leaf.key", leaf.key), ("ca", self.authority.certificate)):
            (folder / name).write_text(text)
        members = tuple(
            FleetMember(node, node, "ams", "spoke", key.public, bytes(32), 1) for node, key in self.keys.items()
        )
        files = ServerFiles(
            *(str(folder / name) for name in ("leaf.pem", "leaf.key", "jetstream")), authority=str(folder / "ca")
        )
        cluster = cluster_of("flt_test", own.server_name, own.address, self.addresses)
        keys = (each.public for each in self.own_keys[number])
        settings = HubSettings(own.server_name, own.address, files, *keys, members, cluster=cluster)
        (folder / "hub.conf").write_text(render(settings))

    def start(self, number: int) -> None:
        folder = self._of(number)
        with (folder / "log").open("ab") as log:
            self.processes[number] = subprocess.Popen(
                [NATS_SERVER, "-c", folder / "hub.conf"], stdout=log, stderr=log, env={**os.environ, **ENVIRONMENT}
            )

    def kill(self, number: int) -> None:
        process, self.processes[number] = self.processes[number], None
        if process is not None:
            process.kill()
            process.wait()

    def end(self, number: int) -> None:
        """As a unit ends it, in order."""
        process, self.processes[number] = self.processes[number], None
        assert process is not None
        process.terminate()
        process.wait(60)

    def wipe(self, number: int) -> None:
        """Of one that does not run: its disk is empty."""
        shutil.rmtree(self._of(number) / "jetstream")

    def log(self, number: int) -> str:
        return (self._of(number) / "log").read_text()

    def at(self, *numbers: int) -> tuple[HubAddress, ...]:
        return tuple(self.addresses[number] for number in numbers)

    def link(self, number: int) -> NatsLink:
        """The hub's own, to its own server alone; it begins to connect."""
        user = LinkUser("hub", "_INBOX_hub", self.own_keys[number][0], hub_tls(self.authority.certificate))
        return _started(NatsLink(lambda: self.at(number), user, HostClock()))

    def member(self, node: str, *numbers: int) -> NatsLink:
        """A member's, to one of these hubs."""
        user = LinkUser(node, member_inbox(node), self.keys[node], hub_tls(self.authority.certificate))
        return _started(NatsLink(lambda: self.at(*numbers), user, HostClock()))


def _started(link: NatsLink) -> NatsLink:
    link.start()
    return link
