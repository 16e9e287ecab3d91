"""Decides which of several hubs leads first, where no record says which one does: who has followed most. Pure.

The hub that the others have followed so far makes the record. Where it is lost before, each of the others notes how far
it has followed; after a while the one with most makes it. Whoever is first at that is alone: it is made once. Before
the nats-servers of three hubs were there at the same moment there is nowhere to keep it, and nobody leads.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import msgspec

from appliance.fleet.hub.lead import Change  # noqa: TC001 (msgspec goes by it)

if TYPE_CHECKING:
    from collections.abc import Iterable

PATIENCE_MS = 20_000  # longer than hubs take to become several, 10 s
NOTE_MS = 2_000
GONE_MS = 20_000  # a hub that has not noted anything for so long is not waited for


class FollowedNote(msgspec.Struct, frozen=True):
    """Says how far a hub has followed."""

    at: Change


@dataclass(frozen=True, slots=True)
class NoteSeen:
    """Is the note of a hub as it was read. `revision`: another one each time that it is written."""

    hub: str
    at: Change
    revision: int


class Vacancy:
    """Is what one hub knows of it. Times are its own."""

    def __init__(self, hub: str) -> None:
        self._hub = hub
        self._since_ms: int | None = None
        self._noted_ms: int | None = None
        self._seen: dict[str, tuple[int, int]] = {}  # of each hub, the last revision, and since when it is that

    def end(self) -> None:
        """Takes notice that there is a record, or that it is not known: it begins anew."""
        self._since_ms = self._noted_ms = None
        self._seen = {}

    def notes(self, at: Change, now_ms: int) -> FollowedNote | None:
        """Returns what this hub should note now, as there is no record. Nothing, if it has followed nothing."""
        if self._since_ms is None:
            self._since_ms = now_ms
        if not at.gen or (self._noted_ms is not None and now_ms - self._noted_ms < NOTE_MS):
            return None
        self._noted_ms = now_ms
        return FollowedNote(at)

    def is_long(self, now_ms: int) -> bool:
        """Tells whether the notes of all hubs are to be read."""
        return self._since_ms is not None and now_ms - self._since_ms >= PATIENCE_MS

    def appoints(self, at: Change, notes: Iterable[NoteSeen], now_ms: int) -> bool:
        """Tells whether this hub is to make the record that says that it leads."""
        others = [each for each in notes if each.hub != self._hub]
        for each in others:
            if self._seen.get(each.hub, (0, 0))[0] != each.revision:
                self._seen[each.hub] = each.revision, now_ms
        there = (each for each in others if now_ms - self._seen[each.hub][1] < GONE_MS)
        own = at.gen, at.rev, self._hub
        return at.gen > 0 and all(own > (each.at.gen, each.at.rev, each.hub) for each in there)
