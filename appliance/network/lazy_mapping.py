"""Provides a mapping that builds values on access."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator

K = TypeVar("K")
V = TypeVar("V", covariant=True)


class OnDemand(Mapping[K, V]):
    """Builds values on access and does not cache them: all peers would take more memory than the exit's sessions.

    `keys`: a collection with fast membership tests.
    """

    def __init__(self, keys: Collection[K], make: Callable[[K], V]) -> None:
        self._keys = keys
        self._make = make

    def __getitem__(self, key: K) -> V:
        if key not in self._keys:
            raise KeyError(key)
        return self._make(key)

    def __contains__(self, key: object) -> bool:
        return key in self._keys

    def __iter__(self) -> Iterator[K]:
        return iter(self._keys)

    def __len__(self) -> int:
        return len(self._keys)
