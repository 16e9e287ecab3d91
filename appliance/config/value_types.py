"""Defines the kinds of values: each `Kind` turns a TOML value into the type in `Settings`, or refuses it."""

from __future__ import annotations

import ipaddress
import json
import re
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from appliance.domain.client_file import MOST_RESOLVERS, is_host_name, is_special

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")

LARGEST = 2**63 - 1  # SQLite's INTEGER: the store cannot hold a larger limit
SIZES = {unit: 1000**power for power, unit in enumerate(("B", "KB", "MB", "GB", "TB"))} | {
    unit: 1024**power for power, unit in enumerate(("KiB", "MiB", "GiB", "TiB"), start=1)
}
DURATIONS = {"s": 1, "m": 60, "h": 3600, "d": 86400}

# Networks no host address can be taken from. https://www.iana.org/assignments/iana-ipv4-special-registry,
# iana-ipv6-special-registry: this-network, loopback, link-local, multicast, reserved; IPv4 in IPv6.
UNUSABLE = tuple(
    ipaddress.ip_network(text)
    for text in ("0.0.0.0/8", "127.0.0.0/8", "169.254.0.0/16", "224.0.0.0/3", "::/8", "fe80::/10", "ff00::/8")
)


@dataclass(frozen=True, slots=True)
class Kind:
    """Describes a kind of value.

    `allowed` completes "must be ...". `parse` raises ValueError on anything else. `from_env` converts the text of an
    environment variable to the TOML value; text that cannot be converted is returned as it is, and `parse` refuses it.
    """

    allowed: str
    parse: Callable[[object], Any]
    from_env: Callable[[str], object] = str


MAPPED_PREFIX = 96  # of ::ffff:0:0/96, RFC 4291, section 2.5.5.2
ALL, ALL_IPV4 = "::", "0.0.0.0"  # noqa: S104 (what an operator may write)


@dataclass(frozen=True, slots=True)
class HostPort:
    """Holds where to listen: `host` is an address without brackets or a name; a name is not resolved here.

    `::` stands for all addresses of both IP versions.
    """

    host: str
    port: int

    @property
    def loopback(self) -> bool:
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return self.host.lower() == "localhost"

    @property
    def dialled(self) -> HostPort:
        """Returns an address at which this host reaches it: nothing can be dialled at 0.0.0.0 or [::]."""
        return HostPort("127.0.0.1", self.port) if self.host in (ALL, ALL_IPV4) else self

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


@dataclass(frozen=True, slots=True)
class AddressPort:
    """Names one port of an address, for TCP and UDP alike."""

    address: IPv4Address | IPv6Address
    port: int

    def __str__(self) -> str:
        return f"[{self.address}]:{self.port}" if self.address.version == 6 else f"{self.address}:{self.port}"


@dataclass(frozen=True, slots=True)
class UnixPath:
    """Names a Unix socket to listen on; reachable from this host only."""

    path: Path
    loopback = True

    def __str__(self) -> str:
        return f"unix:{self.path}"


def show(value: object) -> str:
    """Formats a value for a one-line message: nearly as TOML, control characters escaped, long values shortened."""
    try:
        text = json.dumps(value, default=str)
    except ValueError:  # CPython refuses to print an integer of more than 4300 digits
        return "(a very large number)"
    return text if len(text) <= 120 else text[:117] + "..."


def matching(pattern: str, allowed: str) -> Kind:
    def parse(value: object) -> str:
        return _require(_text(value), lambda text: re.fullmatch(pattern, text) is not None)

    return Kind(allowed, parse)


def choice(*names: str) -> Kind:
    return Kind("one of " + ", ".join(names), lambda value: _require(_text(value), lambda text: text in names))


def integer(low: int = 0, high: int = LARGEST) -> Kind:
    def parse(value: object) -> int:
        return _require(_integer(value), lambda number: low <= number <= high)

    return Kind(f"an integer from {low} to {high}", parse, _integer_from_env)


def size(low: str = "0 B", high: str = f"{LARGEST} B") -> Kind:
    """Accepts bytes, with decimal (KB = 1000 B) and binary (KiB = 1024 B) units. Bounds are written like values."""
    allowed = f'a size from {low} to {high}: an integer (bytes) or text such as "64 KiB" ({", ".join(SIZES)})'
    return _quantity(SIZES, low, high, allowed)


def duration(low: str = "0s", high: str = "36500d") -> Kind:
    """Accepts seconds: a hundred years at most, so that sums in milliseconds and nanoseconds fit into 64 bits."""
    allowed = f'a duration from {low} to {high}: an integer (seconds) or text such as "5s" ({", ".join(DURATIONS)})'
    return _quantity(DURATIONS, low, high, allowed)


def list_of(item: Kind, plural: str, most: int | None = None, least: int = 0) -> Kind:
    """Accepts a TOML array, and parses it to a tuple; in the environment, items are separated by commas."""

    def parse(value: object) -> tuple[Any, ...]:
        if not isinstance(value, list) or len(value) < least or (most is not None and len(value) > most):
            raise ValueError
        return tuple(item.parse(each) for each in value)

    return Kind(f"a list of {plural}", parse, lambda text: [part.strip() for part in text.split(",") if part.strip()])


def unless(word: str, kind: Kind, meaning: str) -> Kind:
    """Accepts `kind`, or one word that stands for None."""

    def parse(value: object) -> Any:
        return None if value == word else kind.parse(value)

    return Kind(f'{kind.allowed}, or "{word}": {meaning}', parse, kind.from_env)


def _require(value: T, holds: Callable[[T], bool]) -> T:
    if not holds(value):
        raise ValueError
    return value


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise ValueError
    return value


def _integer(value: object) -> int:
    if not isinstance(value, int) or isinstance(value, bool):
        raise ValueError
    return value


def _integer_from_env(text: str) -> object:
    return int(text) if re.fullmatch(r"-?[0-9]{1,19}", text) else text


def _quantity(units: dict[str, int], low: str, high: str, allowed: str) -> Kind:
    def amount(value: object) -> int:
        if not isinstance(value, str):
            return _integer(value)
        match = re.fullmatch(r"([0-9]{1,19}) *([A-Za-z]+)", value)
        if match is None or match[2] not in units:
            raise ValueError
        return int(match[1]) * units[match[2]]

    lowest, highest = amount(low), amount(high)

    def parse(value: object) -> int:
        return _require(amount(value), lambda number: lowest <= number <= highest)

    return Kind(allowed, parse, _integer_from_env)


def _mark(value: object) -> int:
    """Accepts a number, or its text as ip(8) and nft(8) write it."""
    if isinstance(value, str):
        value = int(value, 0)
    return _require(_integer(value), lambda number: number.bit_count() == 1 and number < 1 << 32)


def _address(value: object) -> IPv4Address | IPv6Address:
    # A zone (fe80::1%eth0) means something on one host only.
    return ipaddress.ip_address(_require(_text(value), lambda text: "%" not in text))


def _unicast(value: object) -> IPv4Address | IPv6Address:
    return _require(_address(value), lambda address: not (address.is_unspecified or address.is_multicast))


def _network(value: object) -> IPv4Network | IPv6Network:
    return ipaddress.ip_network(_require(_text(value), lambda text: "%" not in text))


def _plain_network(value: object) -> IPv4Network | IPv6Network:
    """Accepts a network, and takes one of IPv4 addresses in IPv6 form (::ffff:192.0.2.0/120) for what it is: in that
    form it has no packet's address in it, nor a caller's."""
    network = _network(value)
    mapped = network.network_address.ipv4_mapped if isinstance(network, IPv6Network) else None
    if mapped is None or network.prefixlen < MAPPED_PREFIX:
        return network
    return IPv4Network((mapped, network.prefixlen - MAPPED_PREFIX))


def _destination(value: object) -> IPv4Network | IPv6Network | AddressPort:
    text = _text(value)
    match = re.fullmatch(r"(?:\[([0-9A-Fa-f:.]+)\]|([0-9.]+)):([1-9][0-9]{0,4})", text)
    if match is not None:
        address = _unicast(match[1] or match[2])
        return AddressPort(_carried(_require(address, lambda a: (a.version == 6) == bool(match[1]))), _port(match[3]))
    # fd00::1:53 is an address, and may be meant as a port of fd00::1: with a length, or in brackets, it is neither.
    before, _, last = text.rpartition(":")
    if last.isdecimal() and _is_address(before):
        raise ValueError
    network = _network(text)
    _carried(network.network_address)
    return network


def _carried(address: IPv4Address | IPv6Address) -> IPv4Address | IPv6Address:
    """Refuses IPv4 in IPv6 (::ffff:192.0.2.1): no packet has such a destination."""
    return _require(address, lambda a: not isinstance(a, IPv6Address) or a.ipv4_mapped is None)


def _port(text: str) -> int:
    return _require(int(text), lambda port: 1 <= port <= 65535)


def _is_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True


def _subnet(version: int, shortest: int, longest: int) -> Callable[[object], IPv4Network | IPv6Network]:
    def parse(value: object) -> IPv4Network | IPv6Network:
        network = _network(value)
        if network.version != version or not shortest <= network.prefixlen <= longest:
            raise ValueError
        if any(network.version == taken.version and network.overlaps(taken) for taken in UNUSABLE):
            raise ValueError
        return network

    return parse


def _path(value: object) -> Path:
    return Path(_require(_text(value), lambda text: text != "" and "\0" not in text))


def _flag_from_env(text: str) -> object:
    return {"true": True, "false": False}.get(text.lower(), text)


def _flag(value: object) -> bool:
    if not isinstance(value, bool):
        raise ValueError
    return value


def _endpoint(value: object) -> IPv4Address | IPv6Address | str:
    text = _text(value)
    if not _is_address(text):
        return _require(text, is_host_name)
    return _require(_carried(_address(text)), lambda address: address.is_loopback or not is_special(address))


def _resolver(value: object) -> IPv4Address | IPv6Address:
    """Accepts an address that means the same to each client: on loopback a client would find itself."""
    return _require(_address(value), lambda address: not is_special(address))


# Surrogates are Python's form of bytes that are not UTF-8: neither SQLite nor JSON accepts them.
NAME = matching(r"[^\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]{0,64}", "text of at most 64 characters on one line")
REGION = matching("[a-z0-9][a-z0-9-]{0,31}", "1 to 32 of a-z, 0-9 and -, not starting with -")
CURRENCY = matching("[a-z]{3}", "three lowercase letters (ISO 4217)")
# all, default and lo mean something else in /proc/sys/net/*/conf; a leading - reads as an option.
INTERFACE = matching(
    r"(?!(?:all|default|lo)$)[a-zA-Z0-9_][a-zA-Z0-9_-]{0,14}",
    "1 to 15 of a-z, A-Z, 0-9, _ and -, not starting with -, and not all, default or lo",
)
FLAG = Kind("true or false", _flag, _flag_from_env)
PORT = integer(1, 65535)
MARK = Kind("one bit of a packet's mark, 0x1 to 0x80000000", _mark)
RULE_PRIORITY = integer(1, 32763)  # with the two after it before the main table's, 32766
PATH = Kind("a path", _path)
UNICAST = Kind("an IP address (not 0.0.0.0, :: or multicast)", _unicast)
_RESOLVERS = (
    "IP addresses that mean the same to each client (not 0.0.0.0, ::, loopback, link-local, multicast, reserved, or "
    "IPv4 in IPv6)"
)
RESOLVERS = list_of(Kind("", _resolver), f"at most {MOST_RESOLVERS} {_RESOLVERS}", MOST_RESOLVERS)
SOME_RESOLVERS = list_of(Kind("", _resolver), f"1 to {MOST_RESOLVERS} {_RESOLVERS}", MOST_RESOLVERS, 1)
NETWORKS = list_of(Kind("", _plain_network), "networks with no host bits set, such as 192.0.2.0/24")
DESTINATIONS = list_of(
    Kind("", _destination),
    "networks with no host bits set, such as 172.19.0.0/16, or ports of an address, such as 172.19.0.10:53 or "
    "[fd00::10]:53 (an IPv6 address that ends like a port needs its length: fd00::1:53/128)",
)
SUBNET = Kind(
    "an IPv4 network of host addresses, /16 to /30, no host bits set, such as 10.101.0.0/24", _subnet(4, 16, 30)
)
SUBNET6 = Kind("an IPv6 network of host addresses, /64 to /126, no host bits set", _subnet(6, 64, 126))
ENDPOINT = Kind(
    "a host name without a port, or an IP address without brackets (not 0.0.0.0, ::, multicast, link-local, reserved)",
    _endpoint,
)
