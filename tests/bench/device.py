"""A kernel WireGuard device with many peers, and the ways to read it: the bare loop, ours, `wg`'s, pyroute2's."""

from __future__ import annotations

import socket
import subprocess
import time
from ipaddress import IPv4Address, IPv6Address
from typing import TYPE_CHECKING, TypeVar

from appliance.network.netlink import constants
from appliance.network.netlink.codec import NLMSG_HEADER, message
from appliance.network.netlink.generic import BUFFER_SIZE, GenericNetlink
from appliance.network.wireguard import keys
from appliance.network.wireguard.device_tunnel import DeviceTunnel
from appliance.network.wireguard.encode import interface
from appliance.network.wireguard.kernel import KernelDevice
from appliance.network.wireguard.tunnel import DeviceChange, LinkChange, Peer, Prefix, PutPeer

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable, Coroutine, Sequence
    from random import Random

    from appliance.network.wireguard.tunnel import Dump

T = TypeVar("T")

PRIVATE_KEY = bytes([7]) * 32
PORT = 51820
FIRST_ADDRESS, FIRST_ADDRESS6 = IPv4Address("10.101.0.2"), IPv6Address("fd65:7869:7400::2")
NOBODY_THERE = "127.0.0.1:9"
PEERS_A_COMMAND = 500  # what its line has room for
SECONDS_TO_MOVE = 10.0


class Device:
    """Used from one thread, inside the network namespace that it is to be in."""

    def __init__(self, name: str, loop: asyncio.AbstractEventLoop) -> None:
        self.name = name
        self.tunnel = DeviceTunnel(KernelDevice(name))
        self.peers: list[Peer] = []
        self.loop = loop
        self._watch = DeviceTunnel(KernelDevice(name))
        self._bare = BareDump(name)
        self._moved = 0  # where in `peers` those stand whose counters move next

    def make(self) -> None:
        """Anew, and empty."""
        self._run(self.tunnel.delete())
        self._run(self.tunnel.change_link(LinkChange(create=True, mtu=1420, up=True)))
        self._run(self.tunnel.configure(DeviceChange(PRIVATE_KEY, PORT)))

    def grow(self, many: int, random: Random) -> None:
        """To so many peers, of two addresses each."""
        added = some_peers(len(self.peers), many, random)
        self.put(added)
        self.peers += added

    def put(self, peers: Sequence[Peer]) -> None:
        self._run(self.tunnel.apply([PutPeer(peer, fresh=True) for peer in peers]))

    def move(self, many: int, settle: Callable[[], object]) -> None:
        """The counters of so many peers move: the kernel sends each of them a handshake that nobody answers.

        It would send the next after five seconds. So those that moved before are made anew, and `settle` takes that in.
        """
        self.put(self.peers[max(0, self._moved - many) : self._moved])
        settle()
        if self._moved + many > len(self.peers):
            self._moved = 0
        moving = self.peers[self._moved : self._moved + many]
        self._moved += many
        for first in range(0, many, PEERS_A_COMMAND):
            command = ["wg", "set", self.name]
            for peer in moving[first : first + PEERS_A_COMMAND]:
                command += [
                    "peer",
                    keys.encode(peer.public_key),
                    "endpoint",
                    NOBODY_THERE,
                    "persistent-keepalive",
                    "25",
                ]
            subprocess.run(command, check=True, timeout=60)
        deadline = time.monotonic() + SECONDS_TO_MOVE
        while not self._have_moved(moving):
            if time.monotonic() > deadline:
                raise TimeoutError("the counters do not move")

    def _have_moved(self, peers: Sequence[Peer]) -> bool:
        seen = self._run(self._watch.dump()).peers
        return all(seen[peer.public_key].tx_bytes for peer in peers)

    def close(self) -> None:
        self._run(self.tunnel.delete())
        self._run(self.tunnel.close())
        self._run(self._watch.close())
        self._bare.close()

    # The ways to read it -----------------------------------------------------------------------------

    def ours(self) -> Dump:
        return self._run(self.tunnel.dump())

    def bare(self) -> None:
        self._bare.read()

    def wg_show(self) -> None:
        subprocess.run(["wg", "show", self.name, "dump"], stdout=subprocess.DEVNULL, check=True, timeout=120)

    def pyroute2(self) -> None:
        """Received; it decodes a peer's attributes when they are asked for, which nobody does here."""
        from pyroute2 import WireGuard

        with WireGuard() as wireguard:
            for _ in wireguard.info(self.name):
                pass

    def _run(self, work: Coroutine[object, object, T]) -> T:
        return self.loop.run_until_complete(work)


class BareDump:
    """A dump asked for and received, and nothing made of it: what no reader can be quicker than."""

    def __init__(self, name: str) -> None:
        family = GenericNetlink(constants.WG_GENL_NAME, constants.WG_GENL_VERSION)
        self._family_id = family.family_id()
        family.close()
        self._body = interface(name)
        self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, constants.NETLINK_GENERIC)
        self._socket.bind((0, 0))
        self._buffer = memoryview(bytearray(BUFFER_SIZE))

    def read(self) -> None:
        request = message(
            self._family_id, constants.NLM_F_DUMP, 1, constants.WG_CMD_GET_DEVICE, constants.WG_GENL_VERSION, self._body
        )
        self._socket.sendto(request, (0, 0))
        receive, buffer = self._socket.recv_into, self._buffer
        while True:
            nbytes = receive(buffer)
            # What ends a dump is 20 bytes long, and the last message of its datagram.
            length, kind, *_ = NLMSG_HEADER.unpack_from(buffer, nbytes - 20)
            if (length, kind) == (20, constants.NLMSG_DONE):
                return

    def close(self) -> None:
        self._socket.close()


def some_peers(first: int, end: int, random: Random) -> list[Peer]:
    return [_peer(number, random) for number in range(first, end)]


def _peer(number: int, random: Random) -> Peer:
    four, six = (FIRST_ADDRESS + number).packed, (FIRST_ADDRESS6 + number).packed
    return Peer(random.randbytes(32), frozenset({Prefix(four, 32), Prefix(six, 128)}))
