"""Names what is asked of the ledger before a session is opened or a device is made: whose key and name it is."""

from __future__ import annotations

from typing import NamedTuple, Protocol


class Whereabouts(NamedTuple):
    """Tells where a session is: the exit's id, and the session's."""

    node_id: str
    session_id: str


class Claims(Protocol):
    """Claims keys and names for this exit. Each method raises FleetError: if the ledger did not answer in time.

    `op`: tells a claim that is made again, as its answer was lost, from another one.
    """

    async def claim_key(self, public_key: bytes, account_id: str, op: str, *, device: bool) -> Whereabouts | None:
        """Claims a client's key; returns the session of the same account that has it on another exit, if one has.

        `device`: for a device, not for a session. Raises KeyInUse: a device of the account has it elsewhere, or,
        where a device is to get it, a session. Raises InvalidRequest: it is another account's.
        """
        ...

    async def settle_key(self, public_key: bytes, account_id: str, op: str, made_id: str, *, device: bool) -> bool:
        """Notes for which session or device a key was claimed.

        Returns False if the key went to another exit meanwhile, which does not know of what was made here.
        """
        ...

    async def release_key(self, public_key: bytes, op: str) -> None:
        """Gives up what was claimed under `op`, of which nothing came: what held before, holds again."""
        ...

    async def claim_name(self, account_id: str, name: str, op: str) -> None:
        """Claims a device's name for the account. Raises DeviceNameTaken."""
        ...

    async def release_name(self, account_id: str, name: str, op: str = "") -> None:
        """Gives up a name; under `op`: only if it was claimed by it."""
        ...
