"""The command line under test, as an operator and a script use it: in this process, or as a real one."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from click.testing import CliRunner

from appliance.cli import PROGRAM, cli
from appliance.domain.clock import Moment
from appliance.domain.entities import Session, State
from appliance.store.database import Store
from appliance.store.queries import accounts
from appliance.store.queries import sessions as rows
from appliance.store.state_dir import StateDir

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    import aiosqlite

PROJECT = Path(__file__).resolve().parents[3]
NOW = Moment(wall_ms=1_790_000_000_000, boot_ms=1000, boot_id="00000000-0000-0000-0000-000000000000")
LASTING_MS = 10**12  # of CLOCK_BOOTTIME: no test goes on for that long


@dataclass(frozen=True, slots=True)
class Done:
    status: int
    out: str
    err: str


class CommandLine:
    """wg-appliance with a configuration whose state is in `folder`."""

    def __init__(self, folder: Path) -> None:
        self.config = folder / "config.toml"
        self.state = StateDir(folder / "state")
        # JSON's text is TOML's too.
        self.config.write_text(f"[node]\nstate_dir = {json.dumps(str(self.state.path))}\n", encoding="utf-8")

    def __call__(self, *arguments: str, input_: str | None = None) -> Done:
        """In this process; a traceback fails the test. `input_`: what is on stdin."""
        words = ["--config", str(self.config), *arguments]
        done = CliRunner().invoke(cli, words, prog_name=PROGRAM, input=input_)
        if done.exception is not None and not isinstance(done.exception, SystemExit):
            raise done.exception
        return Done(done.exit_code, done.stdout, done.stderr)

    def do(self, *arguments: str, input_: str | None = None) -> Done:
        """As above, and it must succeed."""
        done = self(*arguments, input_=input_)
        assert done.status == 0, done
        return done

    def json(self, *arguments: str) -> Any:
        return json.loads(self.do(*arguments, "--json").out)

    def process(self, *arguments: str) -> Done:
        """As a process of its own."""
        return python("-m", "appliance", "--config", str(self.config), *arguments)

    def open_session(
        self, account: str, offset: int, state: State = State.LIVE, carries_until_ms: int = LASTING_MS
    ) -> str:
        """A session as the server would have opened it, whose tunnel can carry; its id. `offset` is its place in the
        subnet."""
        session_id = f"ses_{offset:024x}"

        async def insert(db: aiosqlite.Connection) -> None:
            owner = await accounts.by_name(db, account)
            assert owner is not None
            new = Session(
                id=session_id,
                account_id=owner.id,
                account=account,
                tier=owner.tier,
                account_tier=owner.tier,
                region="local",
                public_ip="192.0.2.1",
                public_key=bytes([offset]) * 32,
                address_offset=offset,
                ipv6=True,
                state=state,
                created_at=NOW.wall_ms,
                expires_at=NOW.wall_ms + 3_600_000,
                bytes_in=0,
                bytes_out=0,
                last_handshake_at=None,
                handshake_seen_ns=0,
                quiet_since_ms=NOW.boot_ms,
                quiet_boot_id=NOW.boot_id,
                counted_ms=0,
                counted_until_ms=NOW.boot_ms,
                counted_boot_id=NOW.boot_id,
                carries_until_ms=carries_until_ms,
                rates=None,
                reason=None,
                note="",
                terminated_at=None,
            )
            await rows.insert(db, [(new, None)])

        self.write(insert)
        return session_id

    def write(self, work: Callable[[aiosqlite.Connection], Awaitable[None]]) -> None:
        """One transaction on the store, as the server would make it."""

        async def transaction() -> None:
            store = await Store.open(self.state.store)
            try:
                async with store.write() as db:
                    await work(db)
            finally:
                await store.close()

        asyncio.run(transaction())


def python(*arguments: str, **options: Any) -> Done:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("WG_APPLIANCE_")}
    done = subprocess.run(
        [sys.executable, *arguments],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        cwd=PROJECT,
        env=environment | options.pop("environ", {}),
        **options,
    )
    return Done(done.returncode, done.stdout, done.stderr)
