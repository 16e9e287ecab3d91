"""Describes the hosts of a fleet, as each of them knows the others."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import msgspec

if TYPE_CHECKING:
    from collections.abc import Collection

LEAST_HUBS = 3  # of a cluster: where one of two is lost, the other has no majority

# A standby is to be the hub when that one is lost.
Role = Literal["hub", "standby", "spoke"]


class FleetMember(msgspec.Struct, frozen=True):
    """Describes one host. `left_at`: when it left or was forgotten, in ms; None: it is in the fleet.

    `nkey`: with which it signs on to the hubs, as NATS writes public keys. `xkey`: X25519, with which rpc is sealed.
    `dialled`: where others dial a hub or a standby, as HOST:PORT; "": of one that is neither, or not told yet.
    `hub_since`: since when the hubs are those that they are, in ms; 0: of a host that has not been one of several.
    """

    id: str  # nod_ and 24 hexadecimal digits, for as long as its state directory lives
    name: str
    region: str
    role: Role
    nkey: str
    xkey: bytes
    joined_at: int
    left_at: int | None = None
    dialled: str = ""
    hub_since: int = 0


def is_cluster(hubs: Collection[FleetMember]) -> bool:
    """Tells whether the nats-servers of these are one cluster: there are enough, and each is known to the others."""
    return len(hubs) >= LEAST_HUBS and all(each.dialled for each in hubs)
