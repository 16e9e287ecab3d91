"""Reads the sessions to list page by page, so that no more than a page of them is held."""

from __future__ import annotations

from typing import TYPE_CHECKING

from appliance.store.queries import session_list

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Iterator

    from appliance.cli.admin import Admin
    from appliance.store.queries.session_list import ListedSession, Selection

PAGE = 1000


class SessionPages:
    """Reads the selected sessions, newest first; `most`: how many, 0 for all.

    Each page is as of when it was read; nothing is locked in between, while the output waits for its reader.
    """

    def __init__(self, admin: Admin, runner: asyncio.Runner, selected: Selection, most: int) -> None:
        self._store = admin.store
        self._runner = runner
        self._selected = selected
        self._most = min(most, session_list.ABOVE_ALL)  # of which SQLite knows no more
        self._top = session_list.ABOVE_ALL

    def are_cut(self) -> bool:
        """Tells whether there are more sessions than are read."""
        return bool(self._most) and self._runner.run(self._more())

    def read(self) -> Iterator[list[ListedSession]]:
        """Yields all pages; when called again, again, without sessions that have come meanwhile."""
        before, left = self._top, self._most or session_list.ABOVE_ALL
        while left and (page := self._runner.run(self._page(before, min(PAGE, left)))):
            if before == session_list.ABOVE_ALL:
                self._top = page[0].number + 1
            yield page
            before, left = page[-1].number, left - len(page)

    async def _more(self) -> bool:
        async with self._store.read() as db:
            return await session_list.are_more_than(db, self._selected, self._most)

    async def _page(self, before: int, limit: int) -> list[ListedSession]:
        async with self._store.read() as db:
            return await session_list.page(db, self._selected, before, limit)
