"""Seals what one member tells another, so that the hub in between can neither read nor change it, nor say who sent it.

NaCl's Box (https://doc.libsodium.org/public-key_cryptography/authenticated_encryption) of the two members' xkeys. Its
key is the same in both directions: who speaks to whom must stand inside.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING

from nacl.exceptions import CryptoError
from nacl.public import Box, PrivateKey, PublicKey

if TYPE_CHECKING:
    from collections.abc import Callable

OVERHEAD = Box.NONCE_SIZE + 16  # bytes


class NoSuchMember(Exception):
    """Raised if no key is known of a member, or if it has left."""


class NotSealed(Exception):
    """Raised if a text was not sealed by this member for this host."""


class Seals:
    """Seals to members, and opens what they have sealed. `xkey_of`: returns a member's public key, None: not one."""

    def __init__(self, xkey: bytes, xkey_of: Callable[[str], bytes | None]) -> None:
        own = PrivateKey(xkey)
        self._xkey_of = xkey_of
        self._box_of = lru_cache(maxsize=256)(lambda public: Box(own, PublicKey(public)))

    def seal(self, member: str, text: bytes) -> bytes:
        """Raises NoSuchMember."""
        return bytes(self._box(member).encrypt(text))

    def open(self, member: str, sealed: bytes) -> bytes:
        """Raises NoSuchMember, NotSealed."""
        try:
            return bytes(self._box(member).decrypt(sealed))
        except (CryptoError, ValueError) as error:  # ValueError: shorter than a nonce
            raise NotSealed(f"not sealed by {member}") from error

    def _box(self, member: str) -> Box:
        public = self._xkey_of(member)
        if public is None:
            raise NoSuchMember(f"{member} is no member of this fleet")
        try:
            return self._box_of(public)
        except (CryptoError, ValueError, TypeError) as error:
            raise NoSuchMember(f"the key of {member} is none") from error
