"""Defines what an exit asks of the ledger about keys of clients and names of devices, and what it is answered.

`op` tells a request that is made again, as its answer was lost, from another one.
"""

from __future__ import annotations

from typing import Literal

import msgspec


class ClaimKey(msgspec.Struct, frozen=True, tag="key"):
    """Asks for a client's key, which is not named itself: see `key_name`. `device`: for a device, not a session."""

    key: str
    account: str
    op: str
    device: bool = False


class SettleKey(msgspec.Struct, frozen=True, tag="settle"):
    """Tells for which session or device a key was claimed."""

    key: str
    op: str
    id: str


class ClaimName(msgspec.Struct, frozen=True, tag="name"):
    """Asks for a device's name in its account."""

    account: str
    name: str
    op: str


class HeldKey(msgspec.Struct, frozen=True):
    """Names a key that a session or a device of the exit has."""

    key: str
    account: str
    id: str
    device: bool


class HeldName(msgspec.Struct, frozen=True):
    """Names the name of a device of the exit."""

    account: str
    name: str


class Renew(msgspec.Struct, frozen=True, tag="renew", omit_defaults=True):
    """Tells what the exit has, claimed or not: the ledger may have lost it, or have been away."""

    keys: list[HeldKey] = []
    names: list[HeldName] = []


class ReleaseKey(msgspec.Struct, frozen=True, tag="release_key", omit_defaults=True):
    """Gives up a key. `op`: only if it was claimed by it, and what it replaced holds again; "": in any case."""

    key: str
    op: str = ""


class ReleaseName(msgspec.Struct, frozen=True, tag="release_name", omit_defaults=True):
    """Gives up a name. `op`: only if it was claimed by it; "": in any case."""

    account: str
    name: str
    op: str = ""


class Locate(msgspec.Struct, frozen=True, tag="locate"):
    """Asks which exit has a session or a device."""

    id: str


class Granted(msgspec.Struct, frozen=True, tag="granted", omit_defaults=True):
    """Says that the exit has what it asked for. `node`, `id`: who of the same account had the key; "": nobody."""

    node: str = ""
    id: str = ""


class Taken(msgspec.Struct, frozen=True, tag="taken"):
    """Says whose it is: another account's, a device's or a session's of the same account; a name: a device's."""

    by: Literal["account", "device", "session"]


class Done(msgspec.Struct, frozen=True, tag="done", omit_defaults=True):
    """Says that it is done. `lost`: how many of what was to be renewed others have."""

    lost: int = 0


class Located(msgspec.Struct, frozen=True, tag="located", omit_defaults=True):
    """Names the exit; "": none is known."""

    node: str = ""


Claim = ClaimKey | SettleKey | ClaimName | Renew
Release = ReleaseKey | ReleaseName
