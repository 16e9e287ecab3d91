"""A client on the exit's own host: a device that dials over loopback, and a socket that sends through it."""

from __future__ import annotations

import socket
import subprocess
from typing import TYPE_CHECKING

from appliance.network.wireguard import keys
from appliance.network.wireguard.device_tunnel import DeviceTunnel
from appliance.network.wireguard.kernel import KernelDevice
from appliance.network.wireguard.tunnel import DeviceChange, LinkChange, Peer, PutPeer
from appliance.network.wireguard.userspace import UserspaceDevice
from tests.support.tunnel_contract import prefix

if TYPE_CHECKING:
    from appliance.network.wireguard.tunnel import Tunnel

ANYWHERE = ("192.0.2.9", 9)
BURST = 5  # datagrams
PAYLOAD = bytes(1000)


def tunnel_named(backend: str, name: str) -> Tunnel:
    return DeviceTunnel(KernelDevice(name) if backend == "kernel" else UserspaceDevice(name))


class Talker:
    """Used inside the exit's network namespace. `address` is the one that the exit allows its key."""

    def __init__(self, backend: str, name: str, private_key: bytes, address: str) -> None:
        self.public_key = keys.public_key(private_key)
        self._tunnel = tunnel_named(backend, name)
        self._name = name
        self._private_key = private_key
        self._address = address
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)

    async def dial(self, exit_key: bytes, port: int) -> None:
        up = LinkChange(create=True, mtu=1420, add_addresses=frozenset({prefix(self._address)}), up=True)
        await self._tunnel.change_link(up)
        await self._tunnel.configure(DeviceChange(private_key=self._private_key))
        await self._tunnel.apply([PutPeer(Peer(exit_key, frozenset({prefix("0.0.0.0/0")})))])
        # An exit never dials, so a `Tunnel` cannot be told an endpoint.
        command = ["wg", "set", self._name, "peer", keys.encode(exit_key), "endpoint", f"127.0.0.1:{port}"]
        subprocess.run(command, check=True, timeout=60)  # noqa: ASYNC221 (nothing else waits for the loop)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, self._name.encode())
        self._socket.connect(ANYWHERE)

    def talk(self) -> None:
        for _ in range(BURST):
            self._socket.send(PAYLOAD)

    async def close(self) -> None:
        self._socket.close()
        await self._tunnel.delete()
        await self._tunnel.close()
