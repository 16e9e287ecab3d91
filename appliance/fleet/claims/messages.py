"""Defines what an exit asks of the ledger about keys of clients and names of devices, and what it is answered.

`op` tells a request that is made again, as its answer was lost, from another one. Keys and accounts become part of
subjects, and an exit may be in the wrong hands: they can be nothing else than what they are.
"""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec

KeyName = Annotated[str, msgspec.Meta(pattern="^[0-9a-f]{64}$")]  # as `key_name` makes them
AccountId = Annotated[str, msgspec.Meta(pattern="^acc_[0-9a-z_]{1,32}$")]
Name = Annotated[str, msgspec.Meta(min_length=1, max_length=128)]
Op = Annotated[str, msgspec.Meta(max_length=64)]
Id = Annotated[str, msgspec.Meta(max_length=64)]
MOST = 200  # of what is renewed by one request


class ClaimKey(msgspec.Struct, frozen=True, tag="key"):
    """Asks for a client's key, which is not named itself: see `key_name`. `device`: for a device, not a session."""

    key: KeyName
    account: AccountId
    op: Op
    device: bool = False


class SettleKey(msgspec.Struct, frozen=True, tag="settle"):
    """Tells for which session or device a key was claimed: it has it too where the claim itself has not arrived."""

    key: KeyName
    account: AccountId
    op: Op
    id: Id
    device: bool = False


class ClaimName(msgspec.Struct, frozen=True, tag="name"):
    """Asks for a device's name in its account."""

    account: AccountId
    name: Name
    op: Op


class HeldKey(msgspec.Struct, frozen=True):
    """Names a key that a session or a device of the exit has."""

    key: KeyName
    account: AccountId
    id: Id
    device: bool


class HeldName(msgspec.Struct, frozen=True):
    """Names the name of a device of the exit."""

    account: AccountId
    name: Name


class Renew(msgspec.Struct, frozen=True, tag="renew", omit_defaults=True):
    """Tells what the exit has, claimed or not: the ledger may have lost it, or have been away."""

    keys: Annotated[list[HeldKey], msgspec.Meta(max_length=MOST)] = []
    names: Annotated[list[HeldName], msgspec.Meta(max_length=MOST)] = []


class ReleaseKey(msgspec.Struct, frozen=True, tag="release_key", omit_defaults=True):
    """Gives up a key. `op`: only if it was claimed by it, and what it replaced holds again; "": in any case."""

    key: KeyName
    op: Op = ""


class ReleaseName(msgspec.Struct, frozen=True, tag="release_name", omit_defaults=True):
    """Gives up a name. `op`: only if it was claimed by it; "": in any case."""

    account: AccountId
    name: Name
    op: Op = ""


class Locate(msgspec.Struct, frozen=True, tag="locate"):
    """Asks which exit has a session or a device."""

    id: Id


class Granted(msgspec.Struct, frozen=True, tag="granted", omit_defaults=True):
    """Says that the exit has what it asked for. `node`, `id`: who of the same account had the key; "": nobody."""

    node: str = ""
    id: str = ""


class Taken(msgspec.Struct, frozen=True, tag="taken"):
    """Says whose it is: another account's, a device's or a session's of the same account; a name: a device's."""

    by: Literal["account", "device", "session"]


class Done(msgspec.Struct, frozen=True, tag="done", omit_defaults=True):
    """Says that it is done. `lost`: how many of what was to be settled or renewed others have.

    `lost_at`: which of them, counted from 0, keys before names; an older ledger does not tell.
    """

    lost: int = 0
    lost_at: Annotated[list[int], msgspec.Meta(max_length=2 * MOST)] = []


class Located(msgspec.Struct, frozen=True, tag="located", omit_defaults=True):
    """Names the exit; "": none is known."""

    node: str = ""


Claim = ClaimKey | SettleKey | ClaimName | Renew
Release = ReleaseKey | ReleaseName
