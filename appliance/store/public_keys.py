"""Shows the public keys of sessions as a set, without a copy of them."""

from __future__ import annotations

from collections.abc import Set
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from appliance.store.rows.session_rows import SessionRows

T = TypeVar("T")


class PublicKeys(Set[bytes]):
    """Shows the public keys of sessions, as they are when it is asked."""

    def __init__(self, rows: SessionRows) -> None:
        self._rows = rows

    def __contains__(self, key: object) -> bool:
        return isinstance(key, bytes) and self._rows.find(key) >= 0

    def __iter__(self) -> Iterator[bytes]:
        return (self._rows.key(row) for row in self._rows.all())

    def __len__(self) -> int:
        return len(self._rows)

    @classmethod
    def _from_iterable(cls, it: Iterable[T]) -> Set[T]:
        """Returns what an operation on sets results in."""
        return set(it)
