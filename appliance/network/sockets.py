"""Binds listening sockets before anything else starts, so that a taken port is reported at once."""

from __future__ import annotations

import errno
import socket
import stat
from ipaddress import ip_address
from pathlib import Path
from typing import TYPE_CHECKING

from appliance.config.load import HostPort, UnixPath
from appliance.config.value_types import ALL
from appliance.domain.errors import HostError

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator
    from ipaddress import IPv4Address, IPv6Address

IP_FREEBIND = 15  # linux/in.h


def bind(key: str, where: HostPort | UnixPath, later: Collection[str] = ()) -> socket.socket:
    """Returns a bound socket. Raises HostError naming the setting `key` and the fault.

    `later`: addresses that the host may not have yet.
    """
    try:
        if isinstance(where, UnixPath):
            return _bind_unix(Path(where.path))
        return _bind_tcp(where, ahead=where.host in later)
    except OSError as error:
        message = f"{key}: cannot listen on {where}: {error.strerror or error}"
        raise HostError(message + _advice(error, "ss -ltnp")) from error


def address_of(where: HostPort) -> IPv4Address | IPv6Address:
    """Returns the address at which `bind` listens. Raises HostError if a name cannot be resolved."""
    try:
        *_, address = _resolve(where)
    except OSError as error:
        raise HostError(f"{where} cannot be resolved: {error.strerror or error}") from error
    return ip_address(str(address[0]))


def require_udp_port(key: str, port: int) -> None:
    """Raises HostError naming the setting `key` if the port is taken."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.bind(("0.0.0.0", port))  # noqa: S104 (WireGuard listens on every address; this only asks)
        except OSError as error:
            message = f"{key}: cannot listen on UDP port {port}: {error.strerror}"
            raise HostError(message + _advice(error, "ss -lunp")) from error


def _advice(error: OSError, who_listens: str) -> str:
    if error.errno == errno.EADDRINUSE:
        return f"; stop what listens there ({who_listens}), or change the setting"
    if error.errno == errno.EACCES:
        return (
            "; a port below 1024 takes CAP_NET_BIND_SERVICE (systemctl edit wg-appliance: "
            "add it to AmbientCapabilities= and CapabilityBoundingSet=)"
        )
    return ""


def _bind_tcp(where: HostPort, *, ahead: bool) -> socket.socket:
    family, kind, protocol, _, address = _resolve(where)
    listener = socket.socket(family, kind, protocol)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, int(where.host != ALL))
        if ahead:
            listener.setsockopt(socket.IPPROTO_IP, IP_FREEBIND, 1)
        listener.bind(address)
        # Here, not only in the server: without it a second process could bind the same port unnoticed.
        listener.listen(1024)
    except BaseException:
        listener.close()
        raise
    return listener


def _resolve(where: HostPort) -> tuple[int, int, int, str, tuple[object, ...]]:
    try:
        return socket.getaddrinfo(where.host, where.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
    except socket.gaierror as error:
        raise OSError(error.errno, error.strerror) from error


def _bind_unix(path: Path) -> socket.socket:
    """Binds a Unix socket. Replaces a stopped server's stale socket, but never one that answers, nor any other file."""
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        if path.exists() and stat.S_ISSOCK(path.stat().st_mode) and not _answers(path):
            path.unlink()
        listener.bind(str(path))
        path.chmod(0o660)
        listener.listen(1024)
    except BaseException:
        listener.close()
        raise
    return listener


def _answers(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        return probe.connect_ex(str(path)) == 0


def unlink_unix(*sockets: UnixPath | HostPort | None) -> None:
    for where in _unix_paths(*sockets):
        where.unlink(missing_ok=True)


def _unix_paths(*sockets: UnixPath | HostPort | None) -> Iterator[Path]:
    return (Path(where.path) for where in sockets if isinstance(where, UnixPath))
