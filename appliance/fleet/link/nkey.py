"""Makes, writes and reads the ed25519 keys with which users sign on to NATS.

Their text: https://docs.nats.io/running-a-nats-service/configuration/securing_nats/auth_intro/nkey_auth and
https://github.com/nats-io/nkeys: base32 of a prefix byte, the 32 bytes, and a CRC-16/XMODEM, its low byte first.
"""

from __future__ import annotations

import base64
import binascii
import os

from nacl.signing import SigningKey

PUBLIC = 20 << 3  # a user's public key begins with U
SEED = 18 << 3  # a seed begins with S and its kind's letter
SEED_BYTES = 32


def _text(prefix: bytes, raw: bytes) -> str:
    whole = prefix + raw
    return base64.b32encode(whole + binascii.crc_hqx(whole, 0).to_bytes(2, "little")).decode().rstrip("=")


def _bytes(text: str, prefix: bytes) -> bytes:
    try:
        whole = base64.b32decode(text + "=" * (-len(text) % 8))
    except binascii.Error:
        raise ValueError("not base32") from None
    content, check = whole[:-2], whole[-2:]
    if binascii.crc_hqx(content, 0).to_bytes(2, "little") != check:
        raise ValueError("the checksum is wrong")
    if not content.startswith(prefix) or len(content) != len(prefix) + SEED_BYTES:
        raise ValueError("not a user's key")
    return content[len(prefix) :]


# The five bits of the seed's letter, then the eight of the kind's, in two bytes.
_SEED_PREFIX = bytes([SEED | PUBLIC >> 5, (PUBLIC & 0b11111) << 3])
_PUBLIC_PREFIX = bytes([PUBLIC])


class NKey:
    """Is the key pair of one user. Its `repr` shows no secret."""

    def __init__(self, raw_seed: bytes) -> None:
        self._key = SigningKey(raw_seed)

    @classmethod
    def new(cls) -> NKey:
        return cls(os.urandom(SEED_BYTES))

    @classmethod
    def from_seed(cls, text: str) -> NKey:
        """Reads what `seed` returns. Raises ValueError."""
        return cls(_bytes(text, _SEED_PREFIX))

    @property
    def seed(self) -> str:
        """Returns the secret, as NATS writes it."""
        return _text(_SEED_PREFIX, bytes(self._key))

    @property
    def public(self) -> str:
        """Returns what the hub's configuration names the user by."""
        return _text(_PUBLIC_PREFIX, bytes(self._key.verify_key))

    def sign(self, nonce: bytes) -> bytes:
        return bytes(self._key.sign(nonce).signature)

    def __repr__(self) -> str:
        return f"NKey({self.public})"


def check_public(text: str) -> None:
    """Raises ValueError if `text` is not a user's public key."""
    _bytes(text, _PUBLIC_PREFIX)
