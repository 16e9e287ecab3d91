"""Sends bytes from the client to the target and back, over one TCP connection."""

from __future__ import annotations

import os
import socket
from contextlib import closing
from typing import TYPE_CHECKING

from appliance.domain.errors import HostError

if TYPE_CHECKING:
    from appliance.client.tunnel.namespace import Namespace
    from appliance.ops.selftest.plan import IPAddress

CONNECT_S = 8.0  # the fourth and last try goes out after 7 s (tcp(7), tcp_syn_retries)
SILENCE_S = 15.0
# Must fit into the kernel's buffers unread: one thread serves both ends. tcp(7), tcp_wmem and tcp_rmem.
CHUNK = 8 * 1024


class NotReached(HostError):
    """Raised if the client cannot connect to the target."""


def carry(client: Namespace, target: Namespace, address: IPAddress, chunks: int) -> str:
    """Sends `chunks` of CHUNK random bytes to `address` and back. Returns the source address that the target saw.

    Raises NotReached if the target cannot be reached. Raises HostError if data is lost or altered.
    """
    with closing(target.run(_listen, address)) as listener, closing(client.run(_socket, address)) as near:
        try:
            near.settimeout(CONNECT_S)
            near.connect(listener.getsockname())
            far, (source, *_) = listener.accept()
        except OSError as error:
            raise NotReached(f"the target {address} is not reached through the exit: {error}") from error
        with far:
            for number in range(chunks):
                _there_and_back(near, far, number)
        return str(source)


def _listen(address: IPAddress) -> socket.socket:
    listener = _socket(address)
    listener.settimeout(SILENCE_S)
    listener.bind((str(address), 0))
    listener.listen(1)
    return listener


def _socket(address: IPAddress) -> socket.socket:
    return socket.socket(socket.AF_INET if address.version == 4 else socket.AF_INET6, socket.SOCK_STREAM)


def _there_and_back(near: socket.socket, far: socket.socket, number: int) -> None:
    near.settimeout(SILENCE_S)
    far.settimeout(SILENCE_S)
    sent = os.urandom(CHUNK)
    try:
        near.sendall(sent)
        arrived = _receive(far)
        far.sendall(arrived)
        returned = _receive(near)
    except OSError as error:
        raise HostError(f"the connection broke off after {number * CHUNK} bytes each way: {error}") from error
    if arrived != sent or returned != sent:
        raise HostError(f"what arrived is not what was sent, after {number * CHUNK} bytes each way")


def _receive(end: socket.socket) -> bytes:
    data = bytearray()
    while len(data) < CHUNK:
        piece = end.recv(CHUNK - len(data))
        if not piece:
            raise ConnectionError("closed by the other side")
        data += piece
    return bytes(data)
