"""Parses, checks and encodes Curve25519 keys as WireGuard writes them: base64 of 32 bytes, 44 characters."""

from __future__ import annotations

import base64
import binascii
from typing import TYPE_CHECKING

from appliance.domain.errors import InvalidRequest

if TYPE_CHECKING:
    from collections.abc import Container

KEY_LENGTH = 32
TEXT_LENGTH = 44
_P = 2**255 - 19

# Points whose order divides 8: a handshake with one gives every peer the same shared secret. The u-coordinates
# are those of https://cr.yp.to/ecdh.html#validate, with the non-canonical spellings that fit 255 bits.
LOW_ORDER = frozenset(
    u.to_bytes(32, "little")
    for u in (
        0,
        1,
        325606250916557431795983626356110631294008115727848805560023387167927233504,
        39382357235489614581723060781553021112529911719440698176882885853963445705823,
        _P - 1,
        _P,
        _P + 1,
    )
)


def encode(key: bytes) -> str:
    return base64.b64encode(key).decode("ascii")


def abbreviated(key: bytes) -> str:
    """Abbreviates a key for logs, as wireguard-go does: enough to distinguish peers, without revealing the key."""
    text = encode(key)
    return f"{text[:4]}...{text[39:43]}"


def parse_public_key(text: object, field: str) -> bytes:
    """Decodes 32 bytes from canonical base64. Raises InvalidRequest that names `field` and the fault."""
    expected = f"{field} must be a WireGuard public key: base64 of 32 bytes, 44 characters"
    if not isinstance(text, str) or len(text) != TEXT_LENGTH:
        raise InvalidRequest(expected)
    try:
        key = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise InvalidRequest(expected) from error
    # The last character before the padding has two unused bits: only one spelling of a key is accepted.
    if len(key) != 32 or encode(key) != text:
        raise InvalidRequest(expected)
    return key


def refuse_weak(key: bytes, field: str, reserved: Container[bytes] = ()) -> None:
    """Raises InvalidRequest for keys not valid for clients: all zero, of low order, or in `reserved` (the exit's)."""
    if not any(key):
        raise InvalidRequest(f"{field} is all zero")
    # X25519 ignores bit 255 (RFC 7748, section 5).
    if key[:31] + bytes([key[31] & 0x7F]) in LOW_ORDER:
        raise InvalidRequest(f"{field} is a low-order point")
    if key in reserved:
        raise InvalidRequest(f"{field} is the server's own key")


def generate_private_key() -> bytes:
    from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

    return X25519PrivateKey.generate().private_bytes_raw()


def generate_key_pair() -> tuple[bytes, bytes]:
    """Returns a new private key and its public key, in half the time of making one after the other."""
    from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

    private_key = X25519PrivateKey.generate()
    return private_key.private_bytes_raw(), private_key.public_key().public_bytes_raw()


def client_pair(public_key: bytes | None) -> tuple[bytes | None, bytes]:
    """Returns a client's (private, public) key: a new pair if it sent no key; the private one is None if it has it."""
    return generate_key_pair() if public_key is None else (None, public_key)


def public_key(private_key: bytes) -> bytes:
    from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

    return X25519PrivateKey.from_private_bytes(private_key).public_key().public_bytes_raw()
