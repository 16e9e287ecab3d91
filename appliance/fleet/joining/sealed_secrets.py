"""Seals a hub's secrets to a host that joins as the standby, so that they are in no clear text between the two."""

from __future__ import annotations

import msgspec
from nacl.exceptions import CryptoError
from nacl.public import PrivateKey, PublicKey, SealedBox

from appliance.domain.errors import JoinRefused
from appliance.fleet.membership.identity import HubSecrets


def sealed(of_hub: HubSecrets, xkey: bytes) -> bytes:
    """Returns what the holder of the private key alone can open. `xkey`: its public X25519 key."""
    return bytes(SealedBox(PublicKey(xkey)).encrypt(msgspec.json.encode(of_hub)))


def opened(text: bytes, xkey: bytes) -> HubSecrets:
    """Returns what was sealed to the public key of this one. Raises JoinRefused for anything else."""
    try:
        return msgspec.json.decode(SealedBox(PrivateKey(xkey)).decrypt(text), type=HubSecrets)
    except (CryptoError, ValueError, TypeError, msgspec.MsgspecError) as error:
        raise JoinRefused(f"the hub has told no secrets of a hub that this host can open: {error}") from error
