"""Encodes requests of the cross-platform configuration protocol (https://www.wireguard.com/xplatform/).

A request is `set=1` or `get=1` and `key=value` lines up to an empty line; an answer ends with `errno=N` and an
empty line. Keys are lowercase hex. A peer's lines follow its `public_key`. This is all the state there is, the
private key included: answers are parsed (uapi_answer.py) and dropped, never logged.
"""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING

from appliance.network.wireguard.tunnel import DeviceChange, PutPeer

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from appliance.network.wireguard.tunnel import PeerChange, RemotePeer, SocketAddress

GET = b"get=1\n\n"
END = b"\n\n"


def device_request(change: DeviceChange) -> bytes:
    return _request(["set=1", *_device(change)])


def dial_request(remote: RemotePeer, private_key: bytes | None) -> bytes:
    """Encodes the replacement of all peers by one, which all traffic goes to."""
    lines = (
        "set=1",
        *_device(DeviceChange(private_key=private_key)),
        "replace_peers=true",
        f"public_key={remote.public_key.hex()}",
        f"endpoint={remote.endpoint}",
        f"persistent_keepalive_interval={remote.keepalive_s}",
        "allowed_ip=0.0.0.0/0",
        "allowed_ip=::/0",
    )
    return _request(lines)


def peers_request(changes: Sequence[PeerChange], *, again: bool = False) -> bytes:
    """Encodes the changes in order; the device applies them line by line.

    `again`: repeats changes that were applied already, and therefore omits removals.
    """
    lines = ["set=1"]
    for change in changes:
        if not again and (not isinstance(change, PutPeer) or change.fresh):
            lines += (f"public_key={change.public_key.hex()}", "remove=true")
        if isinstance(change, PutPeer):
            lines += _put(change)
    return _request(lines)


def _device(change: DeviceChange) -> Iterator[str]:
    if change.private_key is not None:
        yield f"private_key={change.private_key.hex()}"
    if change.listen_port is not None:
        yield f"listen_port={change.listen_port}"


def _put(change: PutPeer) -> Iterator[str]:
    yield f"public_key={change.public_key.hex()}"
    if change.endpoint is not None:
        yield f"endpoint={_endpoint(change.endpoint)}"
    if change.keepalive_s is not None:
        yield f"persistent_keepalive_interval={change.keepalive_s}"
    yield "replace_allowed_ips=true"
    for prefix in sorted(change.peer.allowed_ips):
        yield f"allowed_ip={_address(prefix.address)}/{prefix.length}"


def _endpoint(endpoint: SocketAddress) -> str:
    address = _address(endpoint.address)
    if ":" not in address:
        return f"{address}:{endpoint.port}"
    zone = f"%{endpoint.scope_id}" if endpoint.scope_id else ""
    return f"[{address}{zone}]:{endpoint.port}"


def _address(packed: bytes) -> str:
    return socket.inet_ntop(socket.AF_INET if len(packed) == 4 else socket.AF_INET6, packed)


def _request(lines: Iterable[str]) -> bytes:
    return "\n".join(lines).encode("ascii") + END
