"""A WireGuard interface that another program or a person made, of a name that an appliance is configured with."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

from tests.support.tunnel.client import new_key_pair
from tests.support.tunnel.waiting import until

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Iterator

    from tests.support.tunnel.namespace import Namespace

# All that a start might change: the device, its link, addresses and routes, the firewall, the host's switches.
_SNAPSHOT = """
wg show {name} dump | sed 's/\\t[0-9]*$//'
cat /sys/class/net/{name}/ifindex /sys/class/net/{name}/flags /sys/class/net/{name}/mtu
ip -oneline address | sed 's/ tentative//'
ip route; ip -6 route; ip rule; ip -6 rule
nft list ruleset
sysctl -a 2>/dev/null | grep -E 'forwarding|ip_forward|accept_ra |redirects'
"""


def snapshot(space: Namespace, name: str) -> list[str]:
    shown = space.run("sh", "-c", _SNAPSHOT.replace("{name}", name)).stdout.splitlines()
    return [*shown, f"wireguard-go {space.pids_of('wireguard-go')}"]


def _wireguard_go(space: Namespace, name: str) -> subprocess.Popen[bytes]:
    """Starts it, and again where it ends: one of that name that ends just before may have the device still."""
    server = space.start("wireguard-go", "-f", name)

    def answers() -> bool:
        nonlocal server
        if server.poll() is not None:
            server = space.start("wireguard-go", "-f", name)
        return space.run("wg", "show", name, check=False).returncode == 0

    try:
        until(answers, "wireguard-go answers")
    except BaseException:
        _end(server)
        raise
    return server


def _end(server: subprocess.Popen[bytes]) -> None:
    server.terminate()
    server.wait(timeout=60)


@contextmanager
def foreign_interface(space: Namespace, backend: str, name: str, *commands: str) -> Iterator[None]:
    """Made bare, then with these commands of a shell; removed at the end, where it is still there.

    Where a command says `{name}`, the interface's is meant, `{key}` is a public key of no program.
    """
    if backend == "kernel":
        space.run("ip", "link", "add", "dev", name, "type", "wireguard")
        server = None
    else:
        server = _wireguard_go(space, name)
    try:
        for command in commands:
            space.run("sh", "-c", command.replace("{name}", name).replace("{key}", new_key_pair().public))
        yield
    finally:
        space.run("ip", "link", "del", name, check=False)
        if server is not None:
            _end(server)
