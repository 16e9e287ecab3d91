"""Takes the wg-quick file that the API sends apart into checked fields, and renders a file of its own. Pure.

The exit's operator, or an impostor, writes that text, and wg-quick(8) works on this machine as root: other keys run
commands (PostUp), narrower AllowedIPs leave traffic outside the tunnel, wider addresses take a network of this machine.
So the text itself goes nowhere: what it says is one of a few known things, or is refused.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import TYPE_CHECKING, NoReturn

from appliance.domain.client_file import MOST_RESOLVERS, is_host_name, is_special
from appliance.domain.errors import HostError, InvalidRequest
from appliance.network.wireguard import keys, tunnel_mtu

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    IPAddress = IPv4Address | IPv6Address

LONGEST = 4096  # bytes
EVERYTHING = {True: "0.0.0.0/0, ::/0", False: "0.0.0.0/0"}  # AllowedIPs, with and without IPv6
PUBLIC_RESOLVER = "9.9.9.9"  # Quad9; used if no other resolver is named
MTU = range(576, 9001)  # what an exit's `wireguard.mtu` may be
MTU_REMEDY = f"its operator can leave wireguard.mtu at auto, or set {tunnel_mtu.LEAST} or more"

INTERFACE, PEER = "[Interface]", "[Peer]"
_KEYS = {INTERFACE: {"Address", "MTU", "DNS"}, PEER: {"PublicKey", "Endpoint", "AllowedIPs", "PersistentKeepalive"}}
_OPTIONAL = {"MTU", "DNS"}
_LINE = re.compile(r"([A-Za-z]{1,32}) = ([\x21-\x7e]+(?: [\x21-\x7e]+)*)")
_NUMBER = re.compile(r"0|[1-9][0-9]{0,4}")
_RENDERED = re.compile(r"\[Interface]\n[\x20-\x7e\n]+\nPersistentKeepalive = [0-9]+\n")


@dataclass(frozen=True, slots=True)
class SessionConfig:
    """Holds what a session's file says. `addresses`: one of IPv4, and at most one of IPv6.

    `mtu` None: fitted to this machine's line. `host`: of the endpoint, a name if the exit has one. `ipv6`: all IPv6
    traffic goes into the tunnel too. `asked`: the resolvers are the user's and not the exit's.
    """

    addresses: tuple[IPAddress, ...]
    mtu: int | None
    resolvers: tuple[str, ...]
    server_key: bytes
    host: IPAddress | str
    port: int
    keepalive: int
    ipv6: bool
    asked: bool = False

    @property
    def is_too_small_for_ipv6(self) -> bool:
        """Tells whether no interface with this MTU can have IPv6 (RFC 8200, section 5)."""
        return self.mtu is not None and self.mtu < tunnel_mtu.LEAST

    @property
    def has_ipv6_address(self) -> bool:
        return any(address.version == 6 for address in self.addresses)


def parse(text: str, *, ipv6: bool) -> SessionConfig:
    """Parses a session's file for the client's own key. `ipv6`: what was asked for.

    Raises HostError that says what is not as it must be: nothing beside what this API sends is allowed.
    """
    if len(text) > LONGEST:
        _refuse(f"it has {len(text)} characters, more than {LONGEST}")
    values = _values(text)
    allowed = values["AllowedIPs"]
    if allowed != EVERYTHING[ipv6]:
        _refuse(f"AllowedIPs is {allowed[:100]} and not {EVERYTHING[ipv6]}: traffic would leave outside the tunnel")
    host, _, port = values["Endpoint"].rpartition(":")
    addresses = _addresses(values["Address"], ipv6=ipv6)
    return SessionConfig(
        addresses=addresses,
        mtu=_number("MTU", values["MTU"], MTU) if "MTU" in values else None,
        resolvers=_resolvers(values["DNS"], addresses) if "DNS" in values else (),
        server_key=_key(values["PublicKey"]),
        host=_host(host),
        port=_number("the endpoint's port", port, range(1, 65536)),
        keepalive=_number("PersistentKeepalive", values["PersistentKeepalive"], range(65536)),
        ipv6=ipv6,
    )


def render(config: SessionConfig, private_key: bytes) -> str:
    """Renders the file for wg-quick(8) and the apps."""
    interface = [
        INTERFACE,
        f"PrivateKey = {keys.encode(private_key)}",
        f"Address = {', '.join(f'{each}/{each.max_prefixlen}' for each in config.addresses)}",
    ]
    if config.mtu is not None:
        interface.append(f"MTU = {config.mtu}")
    if config.resolvers:
        interface.append(f"DNS = {', '.join(config.resolvers)}")
    host = f"[{config.host}]" if isinstance(config.host, IPv6Address) else str(config.host)
    peer = [
        PEER,
        f"PublicKey = {keys.encode(config.server_key)}",
        f"Endpoint = {host}:{config.port}",
        f"AllowedIPs = {EVERYTHING[config.ipv6]}",
        f"PersistentKeepalive = {config.keepalive}",
    ]
    return "\n".join([*interface, "", *peer, ""])


def may_have_resolvers(text: str) -> bool:
    """Tells whether a file that `render` has made has a DNS line, or had one before it was damaged."""
    return _RENDERED.fullmatch(text) is None or "\nDNS = " in text


def check_host(address: IPAddress) -> IPAddress:
    """Returns the endpoint's address. Raises HostError if it is none of one host, or a form that hides one."""
    if is_special(address) and not address.is_loopback:  # a tunnel to this machine has its own refusal
        _refuse(f"{address} is no address of an exit")
    return address


def own_network(config: SessionConfig, networks: Sequence[tuple[str, object]]) -> str:
    """Returns which of the config's addresses is in one of this machine's networks, in words; "" if none is.

    `networks`: each with the name of its interface. A default route is none.
    """
    named = [("address", each) for each in config.addresses]
    if not config.asked:  # resolvers that the user names may be in networks of this machine
        named += [("resolver", ip_address(each)) for each in config.resolvers]
    for what, address in named:
        where = network_of(address, networks)
        if where:
            return f"its {what} {address} is in {where}"
    return ""


def network_of(address: IPAddress, networks: Sequence[tuple[str, object]]) -> str:
    """Returns the network that an address is in, in words; "" if it is in none. `networks`: as for `own_network`."""
    for interface, network in networks:
        if address in network:  # type: ignore[operator]  # networks of both versions
            return f"{network}, a network of this machine ({interface})"
    return ""


def _values(text: str) -> Mapping[str, str]:
    """Returns the values by key: each section once, each key once and in its section."""
    section, seen, values = "", set[str](), dict[str, str]()
    for line in text.removesuffix("\n").split("\n"):
        if line in _KEYS and line not in seen:
            section = line
            seen.add(line)
        elif line:
            match = _LINE.fullmatch(line)
            if match is None or not section or match[1] not in _KEYS[section] or match[1] in values:
                _refuse(f"the line {line[:100]!r} is not what this API sends for the client's own key")
            values[match[1]] = match[2]
    missing = sorted({each for keys_ in _KEYS.values() for each in keys_} - _OPTIONAL - values.keys())
    if missing:
        _refuse(f"it has no {missing[0]}")
    return values


def _addresses(text: str, *, ipv6: bool) -> tuple[IPAddress, ...]:
    found: list[IPAddress] = []
    for part in text.split(", "):
        host, _, length = part.partition("/")
        address = _address("Address", host)
        if length != str(address.max_prefixlen):
            _refuse(f"Address {part[:100]} is not a single address (/{address.max_prefixlen})")
        if is_special(address):
            _refuse(f"Address {address} is no address for a client")
        found.append(address)
    versions = [address.version for address in found]
    if versions not in ([4], [4, 6] if ipv6 else [4]):
        _refuse(f"Address {text[:100]} is not one of IPv4{' and at most one of IPv6' if ipv6 else ' alone'}")
    return tuple(found)


def _resolvers(text: str, own: Sequence[IPAddress]) -> tuple[str, ...]:
    parts = text.split(", ")
    if len(parts) > MOST_RESOLVERS:
        _refuse(f"DNS has {len(parts)} addresses, more than {MOST_RESOLVERS}")
    found = [_address("DNS", part) for part in parts]
    for address in found:
        if is_special(address) or address in own:
            _refuse(f"DNS {address} is no address of a resolver")
    return tuple(map(str, found))


def _host(text: str) -> IPAddress | str:
    if text.startswith("[") and text.endswith("]"):
        address = _address("Endpoint", text[1:-1])
        if address.version == 6:
            return check_host(address)
    elif is_host_name(text):
        return text
    elif ":" not in text:
        return check_host(_address("Endpoint", text))
    return _refuse(f"Endpoint {text[:100]} is neither an address nor a host's name")


def _address(key: str, text: str) -> IPAddress:
    try:
        address = ip_address(text)
    except ValueError:
        _refuse(f"{key} {text[:100]} is no address")
    if isinstance(address, IPv6Address) and address.scope_id is not None:
        _refuse(f"{key} {text[:100]} names an interface")
    return address


def _key(text: str) -> bytes:
    try:
        key = keys.parse_public_key(text, "PublicKey")
        keys.refuse_weak(key, "PublicKey")
    except InvalidRequest as error:
        _refuse(str(error))
    return key


def _number(what: str, text: str, allowed: range) -> int:
    if not _NUMBER.fullmatch(text) or int(text) not in allowed:
        _refuse(f"{what} {text[:20]} is not a number from {allowed[0]} to {allowed[-1]}")
    return int(text)


def _refuse(why: str) -> NoReturn:
    raise HostError(f"the exit's wg_config is refused: {why}")
