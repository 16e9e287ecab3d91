"""An exit made by hand with ip, wg and nft, as an operator would without the appliance."""

from __future__ import annotations

from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING

from tests.support.tunnel.client import KeyPair, new_key_pair
from tests.support.tunnel.waiting import until
from tests.support.tunnel.world import EXIT_IP

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.support.tunnel.world import World

PORT = 51820
CLIENT_ADDRESSES = "10.101.0.2/32, fd65:7869:7400::2/128"


@contextmanager
def handmade_exit(world: World, backend: str, client_key: str, directory: Path) -> Iterator[KeyPair]:
    """A tunnel on the exit with one peer, forwarding and address translation; gives the exit's key pair."""
    exit_space, name, keys = world.exit, world.interface("x"), new_key_pair()
    key_file = directory / "exit.key"
    key_file.touch(mode=0o600)
    key_file.write_text(keys.private, encoding="ascii")
    with ExitStack() as stack:
        if backend == "kernel":
            exit_space.run("ip", "link", "add", "dev", name, "type", "wireguard")
        else:
            # In a session of its own, as the appliance's: the scheduler shares the processors out among sessions.
            wireguard_go = exit_space.start("setsid", "wireguard-go", "-f", name)
            stack.callback(wireguard_go.wait, timeout=60)
            stack.callback(wireguard_go.terminate)
            until(lambda: exit_space.run("wg", "show", name, check=False).returncode == 0, "wireguard-go answers")
        exit_space.run("wg", "set", name, "listen-port", str(PORT), "private-key", str(key_file))
        exit_space.run("wg", "set", name, "peer", client_key, "allowed-ips", "10.101.0.2/32,fd65:7869:7400::2/128")
        exit_space.run("ip", "address", "add", "10.101.0.1/24", "dev", name)
        exit_space.run("ip", "address", "add", "fd65:7869:7400::1/112", "dev", name, "nodad")
        exit_space.run("ip", "link", "set", name, "mtu", "1420", "up")
        exit_space.run("sysctl", "-qw", "net.ipv4.ip_forward=1", "net.ipv6.conf.all.forwarding=1")
        exit_space.run("nft", "-f", "-", text_input=_MASQUERADE)
        yield keys


def handmade_config(client: KeyPair, exit_key: str) -> str:
    """A client's config of the shape the appliance promises."""
    return f"""[Interface]
PrivateKey = {client.private}
Address = {CLIENT_ADDRESSES}
MTU = 1420

[Peer]
PublicKey = {exit_key}
Endpoint = {EXIT_IP}:{PORT}
AllowedIPs = 0.0.0.0/0, ::/0
PersistentKeepalive = 25
"""


_MASQUERADE = """
table inet handmade {
  chain postrouting {
    type nat hook postrouting priority srcnat;
    ip saddr 10.101.0.0/24 oifname "wan" masquerade
    ip6 saddr fd65:7869:7400::/112 oifname "wan" masquerade
  }
}
"""
