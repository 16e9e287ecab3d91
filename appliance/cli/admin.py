"""Opens the store for an admin command, as its owner, and waits for a running server to act on a change."""

from __future__ import annotations

import os
import sqlite3
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from appliance.cli.os_errors import host_faults
from appliance.cli.output import remark
from appliance.config.load import read_settings
from appliance.domain.clock import HostClock
from appliance.domain.errors import HostError, StoreError
from appliance.store.file_owner import acting_as_owner, become_owner
from appliance.store.known_time import clock_beside_server
from appliance.store.queries import fleet_state
from appliance.store.queries import node as node_row
from appliance.store.state_dir import StateDir

if TYPE_CHECKING:
    import asyncio
    from collections.abc import AsyncIterator, Callable, Coroutine, Iterator

    import aiosqlite

    from appliance.config.load import Settings
    from appliance.domain.believed_clock import BelievedClock
    from appliance.store.database import Store
    from appliance.store.queries.fleet_changes import Head

T = TypeVar("T")

SETTLE_S = 5.0
KEPT_S = 5.0
QUEUED = (
    "queued: no second hub has it yet; it holds here, and is lost if this host is lost, or another hub leads, before "
    "one has it: wg-appliance fleet status"
)
POLL_S = 0.05
IN_MEMORY = Path(":memory:")  # a store without a file. https://www.sqlite.org/inmemorydb.html


@dataclass(frozen=True, slots=True)
class Admin:
    """Holds what an admin command works with. `now`: wall clock time in ms, as the server goes by."""

    settings: Settings
    state: StateDir
    store: Store
    now: int
    clock: BelievedClock
    settle_s: float = SETTLE_S

    @asynccontextmanager
    async def change(self) -> AsyncIterator[aiosqlite.Connection]:
        """Opens a transaction on data that the running server caches; returns when the server has acted on it.

        Raises HostError if the change is stored, but the server has not acted on it in time.
        """
        async with self.write() as db:
            yield db
            number = await node_row.request(db)
        await self._settle(number)

    @asynccontextmanager
    async def write(self) -> AsyncIterator[aiosqlite.Connection]:
        """Opens a transaction on what the server does not cache.

        Where this host is one of several hubs, and what they have alike has changed, returns when a second one has it,
        or says that none has yet.
        """
        async with self.store.write() as db:
            before = await fleet_state.to_be_kept(db)
            yield db
            changed = await fleet_state.to_be_kept(db)
        if changed is not None and changed != before and not await self._is_kept(*changed):
            remark(QUEUED)

    async def _is_kept(self, gen: int, change: Head) -> bool:
        from appliance.store.kept_changes import await_kept

        return await await_kept(self.store, (gen, change), KEPT_S, self.state.is_served)

    async def _settle(self, number: int) -> None:
        import asyncio

        if self.state.is_served():
            try:
                async with asyncio.timeout(self.settle_s):
                    while not await self._has_applied(number):  # noqa: ASYNC110 (another process changes it)
                        await asyncio.sleep(POLL_S)
            except TimeoutError:
                if self.state.is_served():
                    raise HostError(
                        "the change is stored, but the running server has not acted on it within "
                        f"{self.settle_s:g} s; see its log"
                    ) from None
            else:
                return
        remark("the server is not running: this takes effect when it starts")

    async def _has_applied(self, number: int) -> bool:
        async with self.store.read() as db:
            return (await node_row.read(db)).applied >= number


def run(config_file: Path | None, work: Callable[[Admin], Coroutine[Any, Any, T]], *, come_back: bool = False) -> T:
    """Runs `work` on the configured store and returns its result, which is to be printed afterwards.

    `come_back`: the command is root again then, if it was, to write a file of the caller's.

    Raises StoreError if there is no store. Only `init` and `serve` create one, so that a wrong --config is noticed.
    """
    with opened(config_file, come_back=come_back) as (admin, runner):
        return runner.run(work(admin))


@contextmanager
def opened(config_file: Path | None, *, come_back: bool = False) -> Iterator[tuple[Admin, asyncio.Runner]]:
    """Opens the configured store for work that is done piece by piece, each of them run by the runner.

    Between them, Ctrl-C ends the command at once, even while it waits for the reader of its output. Raises StoreError
    as `run` does.
    """
    import asyncio

    from appliance.store import database

    settings = read_settings(config_file, os.environ)
    state = StateDir(settings.node.state_dir)

    async def rehearse() -> None:
        await (await database.Store.open(IN_MEMORY)).close()

    with host_faults("cannot work on the store"):
        if not _exists(state.store):
            raise StoreError(
                f"no store at {state.store}: run wg-appliance init or serve first, "
                "or name the right configuration with --config"
            )
        state.require_whole()
        with _as_owner(state.path, lambda: asyncio.run(rehearse()), come_back=come_back), asyncio.Runner() as runner:
            store = runner.run(database.Store.open(state.store, served=state.is_served))
            try:
                clock = runner.run(clock_beside_server(store, HostClock(), state))
                yield Admin(settings, state, store, clock.now().wall_ms, clock), runner
            except sqlite3.DatabaseError as error:
                if type(error) is sqlite3.DatabaseError:  # the file is damaged; subclasses are errors of the query
                    raise database.explain(error, state.store) from error
                raise
            finally:
                runner.run(store.close())


@contextmanager
def _as_owner(directory: Path, rehearse: Callable[[], object], *, come_back: bool) -> Iterator[None]:
    if come_back:
        with acting_as_owner(directory, rehearse):
            yield
        return
    become_owner(directory, rehearse)
    yield


def _exists(path: Path) -> bool:
    """Acts as Path.exists() with the file's name in the PermissionError; False if a parent is missing."""
    try:
        path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return False
    return True
