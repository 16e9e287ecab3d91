"""Completes the wg-quick file that the API sends with the private key and resolvers. Pure text."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from appliance.domain.errors import HostError
from appliance.network.wireguard.keys import encode

if TYPE_CHECKING:
    from collections.abc import Sequence

INTERFACE = "[Interface]\n"
# wg-quick runs commands from other keys (PostUp) as root: the exit's operator must not run code on this machine.
_KEYS = "Address|MTU|DNS|PublicKey|Endpoint|AllowedIPs|PersistentKeepalive"
_KNOWN = re.compile(rf"(\[Interface\]|\[Peer\]|({_KEYS}) = [\w.:/+=, \[\]]+|)\n", re.ASCII)
PUBLIC_RESOLVER = "9.9.9.9"  # Quad9; used if no other resolver is named
_DNS = re.compile(r"^DNS = (.*)\n", re.MULTILINE)


def with_private_key(wg_config: str, private_key: bytes) -> str:
    """Adds the private key. Raises HostError if the text is not what the API sends."""
    known = all(_KNOWN.fullmatch(line) for line in wg_config.splitlines(keepends=True))
    if not known or wg_config.count(INTERFACE) != 1:
        raise HostError("the session's wg_config is not valid for the client's own key")
    return wg_config.replace(INTERFACE, f"{INTERFACE}PrivateKey = {encode(private_key)}\n")


def resolvers(wg_config: str) -> tuple[str, ...]:
    """Returns the operator's resolvers, as the file names them."""
    match = _DNS.search(wg_config)
    return tuple(match[1].split(", ")) if match else ()


def with_resolvers(wg_config: str, addresses: Sequence[str]) -> str:
    """Replaces the file's resolvers; an empty list removes the DNS line."""
    bare = _DNS.sub("", wg_config)
    line = f"DNS = {', '.join(addresses)}\n" if addresses else ""
    return bare.replace("\n[Peer]", f"{line}\n[Peer]", 1)
