"""Defines what a spoke asks of the ledger to follow the hub's accounts, and what it is answered."""

from __future__ import annotations

from typing import Annotated

import msgspec

from appliance.fleet.link.wire import PREFIX

# A change or a row: kind, id, and the row as JSON; null: it is gone.
Row = tuple[str, str, msgspec.Raw]


def subject(node_id: str) -> str:
    """Returns the subject on which this exit asks."""
    return f"{PREFIX}.led.{node_id}.sync"


class SyncRequest(msgspec.Struct, frozen=True, omit_defaults=True):
    """Asks for what has changed after a change of this number and mark; 0 and "": nothing is had yet.

    `all_after` (kind, id): asks for a page of everything, behind that row; ("", ""): for the first one.
    `ca`, `of_hub`: the marks of the authorities and of the secrets that this exit has; see hub.authorities.
    `dialled`: where it would be dialled as a hub, HOST:PORT; "": it cannot be one. `gen`: of the change after which it
    asks, as it is in its store.
    """

    after: Annotated[int, msgspec.Meta(ge=0, le=2**62)] = 0
    mark: str = ""
    all_after: tuple[str, str] | None = None
    ca: Annotated[str, msgspec.Meta(max_length=64)] = ""
    of_hub: Annotated[str, msgspec.Meta(max_length=64)] = ""
    dialled: Annotated[str, msgspec.Meta(max_length=128)] | None = None
    gen: Annotated[int, msgspec.Meta(ge=0, le=2**62)] = 0


class SyncAnswer(msgspec.Struct, frozen=True, omit_defaults=True, tag="synced"):
    """Holds one page. `more`: others follow, behind its last row, or after the change (`rev`, `mark`).

    Of everything, `rev` and `mark` name a change from which on all changes have to be asked for afterwards: rows may
    have changed between two pages. `anew`: the hub does not know the change that was asked for; everything is to be
    read. `claims`: names the ledger's memory of claims; another name means that it has lost them. `base` and `hubs`,
    with `anew`: the last change of the generation before that this one has, as number and mark, and the ids of the hub
    and its standbys; a hub that tells no `hubs` is of an older version. `authorities`: which to trust from now on
    (PEM), and a hub's secrets, sealed to the standby that asks; empty: it has them.
    """

    gen: int
    rev: int
    mark: str
    rows: list[Row] = []
    more: bool = False
    anew: bool = False
    claims: str = ""
    base: tuple[int, str] = (0, "")
    hubs: tuple[str, ...] = ()
    authorities: tuple[str, bytes] = ("", b"")


class LedgerRefusal(msgspec.Struct, frozen=True, tag="refused"):
    """Says why the ledger could not answer."""

    error: str
