"""A hub on loopback: nats-server by the configuration that the appliance writes, and what the links of its nodes need.

with HubProcess(folder) as hub:
    link = NatsLink(lambda: (hub.at(),), hub.user(AMS), HostClock())
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from appliance.domain.clock import HostClock
from appliance.fleet.hub.certificates import make_authority, make_leaf
from appliance.fleet.hub.config import HubSettings, ServerFiles, member_inbox, render
from appliance.fleet.link.link import hub_tls
from appliance.fleet.link.nats_client import LinkUser
from appliance.fleet.link.nkey import NKey
from appliance.fleet.membership.members import FleetMember
from tests.support.fleet.nats_program import NATS_SERVER

if TYPE_CHECKING:
    import ssl

    from appliance.fleet.hub.certificates import CertifiedKey

SERVER_NAME = "hub.fleet.internal"
SECONDS = 60
CONFIG, CERTIFICATE, KEY = "hub.conf", "leaf.pem", "leaf.key"


@dataclass(frozen=True)
class At:
    """Where a hub listens."""

    address: str
    server_name: str = SERVER_NAME


def free_port() -> int:
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        port: int = bound.getsockname()[1]
        return port


class HubProcess:
    """Entered, it runs; `nodes` may sign on."""

    def __init__(self, folder: Path, *nodes: str) -> None:
        self.folder = folder
        self.port = free_port()
        self.authority = make_authority("flt_test", HostClock().now().wall_ms)
        self.hub_key, self.system_key = NKey.new(), NKey.new()
        self.keys = {node: NKey.new() for node in nodes}
        self.leaf = make_leaf(self.authority, SERVER_NAME, HostClock().now().wall_ms)
        self.process: subprocess.Popen[bytes] | None = None
        folder.mkdir(exist_ok=True)

    def __enter__(self) -> HubProcess:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()

    @property
    def config(self) -> str:
        members = tuple(
            FleetMember(node, node, "ams", "spoke", key.public, bytes(32), 1) for node, key in self.keys.items()
        )
        keys = self.hub_key.public, self.system_key.public
        files = ServerFiles(*(str(self.folder / name) for name in (CERTIFICATE, KEY, "jetstream")))
        return render(HubSettings("hub", f"127.0.0.1:{self.port}", files, *keys, members))

    def write(self) -> None:
        (self.folder / CERTIFICATE).write_text(self.leaf.certificate)
        (self.folder / KEY).write_text(self.leaf.key)
        (self.folder / CONFIG).write_text(self.config)

    def start(self) -> None:
        """Starts it; returns once it listens."""
        self.write()
        with (self.folder / "log").open("ab") as log:
            command = [NATS_SERVER, "-c", self.folder / CONFIG]
            self.process = subprocess.Popen(command, stdout=log, stderr=log)
        deadline = time.monotonic() + SECONDS
        while time.monotonic() < deadline:
            with socket.socket() as client:
                if client.connect_ex(("127.0.0.1", self.port)) == 0:
                    return
            time.sleep(0.01)
        raise AssertionError((self.folder / "log").read_text())

    def reload(self) -> None:
        """Has it read its configuration again, at some time soon."""
        self.write()
        self.signal(signal.SIGHUP)

    def signal(self, number: int) -> None:
        assert self.process is not None
        os.kill(self.process.pid, number)

    def stop(self) -> None:
        """Stops all its threads; `go_on` lets them go on."""
        self.signal(signal.SIGSTOP)
        assert self.process is not None
        threads = list(Path(f"/proc/{self.process.pid}/task").iterdir())
        deadline = time.monotonic() + SECONDS
        while not all((each / "stat").read_text().rpartition(")")[2].split()[0] == "T" for each in threads):
            assert time.monotonic() < deadline
            time.sleep(0.001)

    def go_on(self) -> None:
        self.signal(signal.SIGCONT)

    def kill(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None

    def at(self, port: int | None = None) -> At:
        return At(f"127.0.0.1:{port or self.port}")

    def tls(self, authority: CertifiedKey | None = None) -> ssl.SSLContext:
        return hub_tls((authority or self.authority).certificate)

    def user(self, node: str, key: NKey | None = None) -> LinkUser:
        return LinkUser(node, member_inbox(node), key or self.keys[node], self.tls())

    def hub_user(self) -> LinkUser:
        return LinkUser("hub", "_INBOX_hub", self.hub_key, self.tls())

    def system_user(self) -> LinkUser:
        return LinkUser("hub-system", "_INBOX_sys", self.system_key, self.tls())
