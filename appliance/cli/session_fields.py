"""Names what is printed of a session, as JSON and in tables."""

from __future__ import annotations

import json
from json.encoder import encode_basestring_ascii as text
from socket import AF_INET, AF_INET6, inet_ntop
from typing import TYPE_CHECKING, Any

from appliance.cli import output
from appliance.domain.clock import rfc3339
from appliance.network.wireguard.keys import encode

if TYPE_CHECKING:
    from collections.abc import Callable
    from ipaddress import IPv4Network, IPv6Network

    from appliance.config.settings import WireGuardSettings
    from appliance.domain.entities import Session
    from appliance.store.queries.session_list import ListedSession


class SessionFields:
    """Formats sessions of this node, whose clients have addresses in its subnets."""

    def __init__(self, wireguard: WireGuardSettings) -> None:
        self._address = addresses(wireguard.subnet)
        self._address6 = none if wireguard.subnet6 is None else addresses(wireguard.subnet6)

    def of(self, s: Session, device_name: str | None) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self._json(s, device_name))
        return found

    def json(self, s: ListedSession) -> str:
        return self._json(s, s.device_name)

    def _json(self, s: Session | ListedSession, device_name: str | None) -> str:
        """Formats a member of a list, indented as `output.write_json` indents it, in half of the time.

        Names fields as the HTTP API does where it has them; null where the API leaves a field out.
        """
        return f"""    {{
      "id": {text(s.id)},
      "account": {text(s.account)},
      "device_id": {text_or_null(s.device_id or None)},
      "device_name": {text_or_null(device_name)},
      "tier": {text(s.tier)},
      "state": {text(s.state)},
      "region": {text(s.region)},
      "public_ip": {text(s.public_ip)},
      "public_key": {text(encode(s.public_key))},
      "address": {text_or_null(self._address(s.address_offset))},
      "address6": {text_or_null(self._address6(s.address_offset) if s.ipv6 else None)},
      "created_at": {text(rfc3339(s.created_at))},
      "expires_at": {text(rfc3339(s.expires_at))},
      "last_handshake_at": {text_or_null(output.rfc3339(s.last_handshake_at))},
      "bytes_in": {s.bytes_in},
      "bytes_out": {s.bytes_out},
      "terminated_at": {text_or_null(output.rfc3339(s.terminated_at))},
      "terminated_reason": {text_or_null(s.ending)},
      "note": {text(s.note)}
    }}"""

    def address(self, s: Session | ListedSession) -> str | None:
        return self._address(s.address_offset)


def addresses(subnet: IPv4Network | IPv6Network) -> Callable[[int], str | None]:
    """Returns what formats the address at an offset, in a tenth of the time that str(subnet[offset]) takes.

    It returns None for an old session, whose offset lies outside a subnet that was changed since.
    """
    # inet_ntop() and ipaddress write alike what is not in ::/8, where no subnet can be.
    family = AF_INET if subnet.version == 4 else AF_INET6
    first, many, size = int(subnet.network_address), subnet.num_addresses, subnet.max_prefixlen // 8

    def at(offset: int) -> str | None:
        return inet_ntop(family, (first + offset).to_bytes(size, "big")) if offset < many else None

    return at


def none(_: int) -> None:
    """Formats addresses of no subnet."""


def text_or_null(value: str | None) -> str:
    return "null" if value is None else text(value)
