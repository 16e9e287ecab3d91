"""The hosts of a fleet whose reports are put to the test: processes of exits and of the hub's fold, to be killed."""

from __future__ import annotations

import shutil
import sqlite3
from contextlib import closing
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import msgspec

from tests.support.fleet.asked_process import AskedProcess
from tests.support.fleet.hub_process import SERVER_NAME, HubProcess
from tests.support.fleet.member_process import MemberConfig
from tests.support.fleet.poured import Poured, PouredSessions, StoreRows
from tests.support.fleet.relay import Relay

if TYPE_CHECKING:
    from pathlib import Path

    from appliance.fleet.link.nats_client import LinkUser

PROGRAM = "tests.support.fleet.member_process"
STORE_FILES = ("", "-wal", "-shm")


class Member(StoreRows):
    """Is one process with its store, and its own way to the hub."""

    def __init__(self, folder: Path, node: str, hub: HubProcess, user: LinkUser) -> None:
        folder.mkdir()
        super().__init__(folder / "store.sqlite")
        self.node = node
        self.folder = folder
        self.relay = Relay(hub.port)
        self.boots = 1
        self._user = user
        self._ca = hub.authority.certificate
        self._process = AskedProcess(PROGRAM, folder)

    def config(self) -> MemberConfig:
        user = self._user
        return MemberConfig(
            self.node, user.key.seed, user.inbox, self._ca, self.relay.port, SERVER_NAME, str(self.store)
        )

    async def start(self) -> None:
        """Starts the process. It may be killed before it is ready."""
        if not self.relay.port:
            await self.relay.listen()
        await self._process.start(msgspec.json.encode(self.config()))

    async def ask(self, **what: object) -> Any:
        """Returns what is answered; None for a refusal. Raises MemberDied: it may be done or not."""
        return await self._process.ask(**what)

    async def kill(self) -> None:
        await self._process.kill()

    def remove_store(self) -> None:
        """It must not run."""
        for end in STORE_FILES:
            self.store.with_name(self.store.name + end).unlink(missing_ok=True)

    def put_store(self, copy: Path) -> None:
        """Puts an older store in place. It must not run."""
        self.remove_store()
        shutil.copyfile(copy, self.store)

    def copy_store(self, to: Path) -> None:
        """A consistent copy, as a backup makes it beside a running server."""
        with closing(sqlite3.connect(self.store)) as source, closing(sqlite3.connect(to)) as target:
            source.backup(target)

    async def close(self) -> None:
        await self.kill()
        await self.relay.cut()

    def last_words(self) -> str:
        return self._process.last_words()


class ReportingExit(Member, PouredSessions):
    """An exit. `forgotten`: what had gone through its sessions as the counters were last lost."""

    def __init__(self, folder: Path, node: str, hub: HubProcess) -> None:
        Member.__init__(self, folder, node, hub, hub.user(node))
        PouredSessions.__init__(self, folder)
        self.forgotten: dict[str, Poured] = {}
        self.backups: list[Backup] = []

    def config(self) -> MemberConfig:
        config = super().config()
        config.tunnel = str(self.folder / "tunnel")
        config.boot = f"boot-{self.boots}"
        return config

    def put_back(self, sessions: dict[str, bytes]) -> None:
        """Notes which sessions are live in the store that was put in place, with their keys."""
        self.live = dict(sessions)
        for session in sessions:
            self.poured.setdefault(session, Poured())

    def back_up(self) -> None:
        copy = self.folder / f"backup{len(self.backups)}"
        self.copy_store(copy)
        with closing(sqlite3.connect(copy)) as db:
            sessions = {row[0] for row in db.execute("SELECT id FROM sessions WHERE state = 'live'")}
        self.backups.append(Backup(copy, sessions))


@dataclass
class Backup:
    """A copy of an exit's store, and the sessions that are live in it."""

    store: Path
    live: set[str]


class FoldingHub(Member):
    """The hub's part: it folds what the exits report into its own store."""

    def __init__(self, folder: Path, hub: HubProcess, nodes: tuple[str, ...]) -> None:
        super().__init__(folder, "hub", hub, hub.hub_user())
        self._nodes = nodes

    def config(self) -> MemberConfig:
        config = super().config()
        config.nodes = self._nodes
        return config
