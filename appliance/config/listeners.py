"""Defines the kinds of values that say where to listen: one address and port or Unix socket, or a list of them."""

from __future__ import annotations

import re
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path

from appliance.config.value_types import ALL, ALL_IPV4, ENDPOINT, HostPort, Kind, UnixPath, list_of


def _listen(value: object) -> HostPort | UnixPath:
    if not isinstance(value, str):
        raise ValueError
    text = value
    if text.startswith("unix:"):
        return _unix(text.removeprefix("unix:"))
    match = re.fullmatch(r"(?:\[([0-9A-Fa-f:.]+)\]|([A-Za-z0-9-]+(?:\.[A-Za-z0-9-]+)*)):([0-9]{1,5})", text)
    if match is None or not 1 <= int(match[3]) <= 65535:
        raise ValueError
    if match[1]:
        return HostPort(str(IPv6Address(match[1])), int(match[3]))
    if re.fullmatch(r"[0-9.]+", match[2]):
        return HostPort(str(IPv4Address(match[2])), int(match[3]))
    return HostPort(match[2], int(match[3]))


def _listeners(value: object) -> tuple[HostPort | UnixPath, ...]:
    """Accepts one or a list, and drops those that another one includes: no second socket could be bound there."""
    given = dict.fromkeys(map(_listen, value if isinstance(value, list) else [value]))
    kept = tuple(each for each in given if not any(_includes(other, each) for other in given if other != each))
    if not kept:
        raise ValueError
    return kept


def _includes(wide: HostPort | UnixPath, narrow: HostPort | UnixPath) -> bool:
    """Tells whether a listener takes connections to the other one too: at all addresses, or at all of IPv4."""
    if isinstance(wide, UnixPath) or isinstance(narrow, UnixPath) or wide.port != narrow.port:
        return False
    return wide.host == ALL or (wide.host == ALL_IPV4 and re.fullmatch(r"[0-9.]+", narrow.host) is not None)


def _tcp(value: object) -> HostPort:
    where = _listen(value)
    if isinstance(where, UnixPath):
        raise ValueError
    return where


def _dialled(value: object) -> str:
    """Accepts what other hosts dial: a name or an address, with or without a port."""
    if not isinstance(value, str):
        raise ValueError
    try:
        where = _tcp(value)
    except ValueError:
        return str(ENDPOINT.parse(value))
    ENDPOINT.parse(where.host)
    return str(where)


def _listeners_from_env(text: str) -> object:
    parts = [part.strip() for part in text.split(",")]
    return parts if len(parts) > 1 else text


def _unix(path: str) -> UnixPath:
    # unix(7): sun_path holds 108 bytes, the last one a NUL.
    if not path.startswith("/") or "\0" in path or len(path.encode(errors="surrogateescape")) > 107:
        raise ValueError
    return UnixPath(Path(path))


LISTENERS = Kind(
    "host:port, [IPv6 address]:port or unix:/path, the port from 1 to 65535, or a list of them",
    _listeners,
    _listeners_from_env,
)
LISTEN = Kind("host:port, [IPv6 address]:port or unix:/path, the port from 1 to 65535", _listen)
TCP_LISTEN = Kind("host:port or [IPv6 address]:port, the port from 1 to 65535", _tcp)
DIALLED = Kind(f"{ENDPOINT.allowed}, or one of these with a port: host:port, [IPv6 address]:port", _dialled)
SERVERS = list_of(Kind("host:port or [IPv6 address]:port", _tcp), "servers, each host:port or [IPv6 address]:port", 8)
