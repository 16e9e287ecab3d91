"""Network namespaces that belong together, of which a test's ground is made: with links, and a web server."""

from __future__ import annotations

import secrets
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from tests.support.tunnel.namespace import Namespace

if TYPE_CHECKING:
    from contextlib import ExitStack

SOCKETS = Path("/var/run/wireguard")  # wireguard-go's, one directory for all network namespaces


class Spaces:
    """Makes namespaces, and removes them with the stack. Names carry a random part, so runs beside each other do not
    meet."""

    def __init__(self, stack: ExitStack) -> None:
        self._stack = stack
        self.tag = secrets.token_hex(3)
        self.clients: list[Namespace] = []
        stack.callback(self._remove_sockets)

    def interface(self, role: str) -> str:
        """A WireGuard interface name of this world's own: userspace sockets are seen from every namespace."""
        return f"wg{self.tag}{role}"

    def _namespace(self, role: str) -> Namespace:
        space = Namespace(f"wgt-{self.tag}-{role}")
        self._stack.callback(space.remove)
        # Addresses count at once: duplicate address detection would keep them tentative for seconds.
        space.run("sysctl", "-qw", "net.ipv6.conf.default.accept_dad=0", "net.ipv6.conf.all.disable_ipv6=0")
        return space

    def _join_client(self, number: int, client: Namespace, nearest: Namespace) -> None:
        """Links the client to `nearest`, by which it reaches everything."""
        near, net, net6 = f"lan{number}", 16 * number, f"2001:db8:1:{number}"
        veth(nearest, near, client, "eth0")
        bring_up(nearest, near, f"198.51.100.{net + 1}/28", f"{net6}::1/64")
        bring_up(client, "eth0", f"198.51.100.{net + 2}/28", f"{net6}::2/64")
        batch(client, f"route add default via 198.51.100.{net + 1}", f"route add ::/0 via {net6}::1")

    def _start_web(self, space: Namespace, port: int) -> None:
        script = str(Path(__file__).with_name("webserver.py"))
        web = space.start(sys.executable, script, str(port), stdout=subprocess.PIPE)
        self._stack.callback(_reap, web)
        assert web.stdout is not None
        self._stack.callback(web.stdout.close)
        assert web.stdout.readline() == b"ready\n", "the web server did not start"

    def _remove_sockets(self) -> None:
        """A killed wireguard-go leaves its socket file behind."""
        for socket in SOCKETS.glob(f"wg{self.tag}*.sock"):
            socket.unlink(missing_ok=True)


def batch(space: Namespace, *lines: str) -> None:
    """Run `ip` commands in one process: process starts are what an emulated kernel is slowest at."""
    space.run("ip", "-batch", "-", text_input="\n".join(lines) + "\n")


def bring_up(space: Namespace, link: str, address: str, address6: str) -> None:
    batch(space, f"address add {address} dev {link}", f"address add {address6} dev {link} nodad", f"link set {link} up")


def veth(left: Namespace, left_end: str, right: Namespace, right_end: str) -> None:
    batch(left, f"link add name {left_end} type veth peer name {right_end} netns {right.name}")


def link_local_addresses(space: Namespace) -> int:
    """How many links have theirs: a link gets it last, when the kernel has noticed its carrier."""
    return len(space.run("ip", "-6", "-oneline", "address", "show", "scope", "link").stdout.splitlines())


def _reap(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    process.wait(timeout=60)
