"""Names what claims are kept in: records that change only from what was read of them (compare and set)."""

from __future__ import annotations

from typing import NamedTuple, Protocol


class Versioned(NamedTuple):
    """Holds a record as it was read; `value` None: there is none. A change names its `revision`."""

    value: bytes | None
    revision: int


class ClaimRecords(Protocol):
    """Holds records by key. Each method raises FleetError: it is not known whether a change was made."""

    async def get(self, key: str) -> Versioned: ...

    async def put(self, key: str, value: bytes, revision: int) -> bool:
        """Makes or changes a record. Returns False, and does nothing, if it is not of that revision any more."""
        ...

    async def delete(self, key: str, revision: int) -> bool:
        """Deletes a record. Returns False, and does nothing, if it is not of that revision any more."""
        ...

    async def name(self) -> str:
        """Returns what names these records: something else once they were lost."""
        ...
