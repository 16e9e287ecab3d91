"""An exit whose commands found fleets and join them, with a server played beside it."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from typing import TYPE_CHECKING, Any

from tests.support.cli.command_line import CommandLine
from tests.support.fleet.real_hub import free_port
from tests.support.fleet.server_beside import ServerBeside

if TYPE_CHECKING:
    from pathlib import Path


class FleetHost(CommandLine):
    """An exit with a name, and an account `owner` that nobody has used, as `install` makes it."""

    def __init__(self, folder: Path, name: str, region: str) -> None:
        folder.mkdir()
        super().__init__(folder)
        self.port = free_port()
        self.listen = f"127.0.0.1:{self.port}"
        with self.config.open("a", encoding="utf-8") as config:
            config.write(
                f'name = "{name}"\nregion = "{region}"\npublic_ip = "192.0.2.1"\n'
                f'[fleet]\nlisten = "{self.listen}"\nadvertise = "{self.listen}"\n'
            )
        self.do("init")
        self.do("token", "create", "--account", "owner")

    def refused(self, *arguments: str, status: int = 1) -> str:
        """What its one line says; stdout is empty."""
        done = self(*arguments)
        assert (done.status, done.out) == (status, ""), done
        return done.err.splitlines()[-1].partition("rror: ")[2]

    def served(self) -> ServerBeside:
        return ServerBeside(self.state, self.listen)

    def rows(self, sql: str) -> list[Any]:
        with closing(sqlite3.connect(self.state.store)) as db:
            return db.execute(sql).fetchall()

    @property
    def triggers(self) -> int:
        return int(self.rows("SELECT count(*) FROM sqlite_schema WHERE type = 'trigger' AND name LIKE 'fleet%'")[0][0])

    @property
    def accounts(self) -> list[str]:
        return [row[0] for row in self.rows("SELECT name FROM accounts WHERE deleted_at IS NULL ORDER BY name")]
