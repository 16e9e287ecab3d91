"""Names what claims are kept in: records that change only from what was read of them (compare and set)."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, Protocol

if TYPE_CHECKING:
    from collections.abc import Sequence


class Versioned(NamedTuple):
    """Holds a record as it was read; `value` None: there is none. A change names its `revision`."""

    value: bytes | None
    revision: int


class KeptRecord(NamedTuple):
    """Holds a record with its key."""

    key: str
    value: bytes
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

    async def page(self, after: int, most: int) -> Sequence[KeptRecord]:
        """Returns up to about `most` records of a higher revision than `after`, in that order; none: there are no more.

        What changes meanwhile may be in none of the pages: it is of a higher revision then.
        """
        ...

    async def under(self, prefix: str) -> Sequence[KeptRecord]:
        """Returns the records whose keys are of one part more than `prefix`, to which a dot belongs."""
        ...

    async def name(self) -> str:
        """Returns what names these records: something else once they were lost."""
        ...
