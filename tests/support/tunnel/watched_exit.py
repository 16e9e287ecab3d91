"""An exit with two clients, and everything of it that the appliance keeps as it should be."""

from __future__ import annotations

import re
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tests.support.tunnel.appliance_process import Appliance
from tests.support.tunnel.client import clients_of
from tests.support.tunnel.sessions import client_key
from tests.support.tunnel.world import new_world

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.support.tunnel.client import Client
    from tests.support.tunnel.world import World

# Link-local addresses and their routes are the kernel's own, and not always there.
FACTS = {
    "peers": "wg show {wg} allowed-ips",
    "key": "wg show {wg} private-key",
    "port": "wg show {wg} listen-port",
    "link": "cat /sys/class/net/{wg}/flags /sys/class/net/{wg}/mtu",
    "addresses": "ip -brief address show dev {wg} scope global",
    "routes": "ip route show dev {wg}; ip -6 route show dev {wg} | grep -v ^fe80:",
    # What clients are counted by comes and goes with what they send.
    "table": r"nft list table inet wg_appliance | sed -z 's/\n\t\telements = {[^}]*\(ct count\|limit rate\)[^}]*}//g' "
    "| grep -v expires",
    "policy rules": "ip rule; ip -6 rule",
    "filter": "tc filter show dev {wg} egress",
    "sysctls": "sysctl net.ipv4.ip_forward net.ipv4.conf.wan.forwarding net.ipv4.conf.{wg}.forwarding "
    "net.ipv4.conf.all.send_redirects net.ipv6.conf.all.forwarding net.ipv6.conf.default.forwarding",
}

# All that these modules log, but for what clients had begun meanwhile.
_LOGGERS = r"(?:sessions\.convergence|network\.(?:firewall|admission)\.\w+)"
_REPAIR = re.compile(rf" appliance\.{_LOGGERS}: (?!connections )(.*)$", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Member:
    """A client with a tunnel, and its peer on the exit."""

    client: Client
    key: str
    addresses: str  # as allowed-ips
    session: str


class WatchedExit:
    """`members`: two clients."""

    def __init__(self, world: World, appliance: Appliance, members: list[Member]) -> None:
        self.appliance = appliance
        self.members = members
        self.world = world
        self._space = world.exit

    def sh(self, command: str, *, check: bool = True) -> str:
        """What a shell on the exit prints; `{wg}` is the interface."""
        return self._space.run("sh", "-c", command.replace("{wg}", self.appliance.interface), check=check).stdout

    def fact(self, name: str) -> list[str]:
        """Empty, or half of it, where there is no such thing now."""
        return sorted(self.sh(FACTS[name], check=False).splitlines())

    def facts(self) -> dict[str, list[str]]:
        shown = self.sh("; echo --; ".join(FACTS.values()), check=False).split("--\n")
        return {name: sorted(lines.splitlines()) for name, lines in zip(FACTS, shown, strict=True)}

    def repairs(self, since: int = 0) -> list[str]:
        """What was put right, in the words of the log, from this place in it on."""
        return _REPAIR.findall(self.appliance.log()[since:])


@contextmanager
def watched_exit(backend: str, directory: Path, **changes: dict[str, object]) -> Iterator[WatchedExit]:
    with (
        new_world() as world,
        clients_of(world, directory) as clients,
        Appliance(world, backend, directory / "appliance", changes).serving() as appliance,
    ):
        token = appliance.token()
        members = []
        for client in clients:
            opened = appliance.open(token)
            config = opened["wg_config"]
            (addresses,) = re.findall(r"^Address = (.+)$", config, re.MULTILINE)
            client.wg_quick(config)
            client.address_seen()
            members.append(Member(client, client_key(config), addresses.replace(" ", ""), opened["id"]))
        yield WatchedExit(world, appliance, members)
