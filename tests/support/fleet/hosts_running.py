"""Whole hosts of a fleet on loopback, each a process with its store, its commands, and junctions before its hub."""

from __future__ import annotations

import asyncio
import json
import os
import random
import shutil
import signal
import socket
import sys
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from appliance.config.own_ports import route_port
from appliance.fleet.status import status_file
from tests.support.cli.command_line import PROJECT, CommandLine, Done
from tests.support.fleet.asked_process import AskedProcess, MemberDied
from tests.support.fleet.host_process import HostConfig
from tests.support.fleet.junction import Junction, owner_of
from tests.support.fleet.poured import Poured, PouredSessions, StoreRows

if TYPE_CHECKING:
    from collections.abc import Iterable

ACCOUNT = "fleet"
PROGRAM = "tests.support.fleet.host_process"
COMMAND_S = 90.0
LIMITS = "[tiers.paid]\nbytes_limit = 0\nseconds_limit = 0\nmax_live_sessions = 0\nidle_timeout = 0\n"


@dataclass(frozen=True)
class Standing:
    """What a host's store says that it is in the fleet."""

    role: str
    node_id: str
    gen: int


def free_net() -> tuple[str, int]:
    """The first two numbers of addresses on loopback, and a port that is free there, as is the one beside it."""
    while True:
        net = f"127.{random.randrange(16, 250)}"  # noqa: S311
        with socket.socket() as bound:
            bound.bind((f"{net}.0.1", 0))
            port: int = bound.getsockname()[1]
        if route_port(port) == port + 1:
            return net, port


class RunningHost(CommandLine, PouredSessions, StoreRows):
    """A host of the fleet."""

    def __init__(self, folder: Path, number: int, net: tuple[str, int]) -> None:
        folder.mkdir()
        CommandLine.__init__(self, folder)
        PouredSessions.__init__(self, folder)
        StoreRows.__init__(self, self.state.store)
        self.name = "abcde"[number] + "1"
        self.folder = folder
        self.stands = False
        self.commands: set[int] = set()  # processes of commands that run
        self._process = AskedProcess(PROGRAM, folder)
        place, port = net
        own, told = f"{place}.0.{number + 1}", f"{place}.1.{number + 1}"
        self.dialled = [(told, each) for each in (port, route_port(port))]
        self.listens = [(own, each) for each in (port, route_port(port))]
        with self.config.open("a", encoding="utf-8") as config:
            config.write(
                f'name = "{self.name}"\nregion = "{self.name[0]}aa"\npublic_ip = "192.0.2.{number + 1}"\n'
                f'[fleet]\nlisten = "{own}:{port}"\nadvertise = "{told}:{port}"\nreport = "1s"\n'
                f'[wireguard]\nsubnet = "10.101.{number}.0/24"\nsubnet6 = ""\n{LIMITS}'
            )
        self.do("init")

    # The process -----------------------------------------------------------------------------------------

    async def start(self) -> None:
        config = HostConfig(str(self.config), str(self.folder / "tunnel"), ACCOUNT)
        await self._process.start(msgspec.json.encode(config))

    async def ask(self, **what: object) -> Any:
        """Returns what is answered; None for a refusal. Raises MemberDied: it may be done or not."""
        return await self._process.ask(**what)

    async def kill(self, *, with_nats: bool = True) -> None:
        """`with_nats`: the whole host dies; else its nats-server is told to end by the kernel."""
        if with_nats:
            self.kill_nats()
        await self._process.kill()
        self.stands = False

    def kill_nats(self) -> bool:
        """Tells whether there was one."""
        found = self.nats()
        for each in found:
            with suppress(ProcessLookupError):
                os.kill(each, signal.SIGKILL)
        return bool(found)

    def wipe_streams(self) -> None:
        """Its nats-server is killed, and begins with nothing."""
        self.kill_nats()
        for each in (self.state.path / "fleet" / "hub").glob("jetstream*"):
            shutil.rmtree(each, ignore_errors=True)

    def nats(self) -> list[int]:
        return [each for each in _children(self._process.pid) if _name(each) == "nats-server"]

    def stop(self, *, with_nats: bool = False) -> None:
        """Has it do nothing, until `go_on` or `kill`. It may hold the tunnel's lock: no traffic moves meanwhile."""
        self.stands = True
        self._process.stop()
        for each in self.nats() if with_nats else ():
            with suppress(ProcessLookupError):
                os.kill(each, signal.SIGSTOP)

    def go_on(self) -> None:
        for each in self.nats():
            with suppress(ProcessLookupError):
                os.kill(each, signal.SIGCONT)
        self._process.go_on()
        self.stands = False

    def last_words(self) -> str:
        return self._process.last_words(6000)

    @property
    def runs(self) -> bool:
        return self._process.pid is not None

    @property
    def processes(self) -> list[int]:
        """All that may dial as this host."""
        return [each for each in (self._process.pid, *self.nats(), *self.commands) if each is not None]

    async def do_beside(self, *arguments: str) -> str:
        """A command in this process, which must succeed; the event loop goes on. Returns what it prints."""
        return (await asyncio.to_thread(self.do, *arguments)).out.strip()

    async def command(self, *arguments: str, killed_after_s: float | None = None) -> Done | None:
        """Runs a command as a process; None: it was killed."""
        words = [sys.executable, "-m", "appliance", "--config", str(self.config), *arguments]
        pipe = asyncio.subprocess.PIPE
        process = await asyncio.create_subprocess_exec(*words, stdout=pipe, stderr=pipe, cwd=PROJECT)
        self.commands.add(process.pid)
        try:
            async with asyncio.timeout(killed_after_s or COMMAND_S):
                out, err = await process.communicate()
        except TimeoutError:
            process.kill()
            await process.wait()
            if killed_after_s is None:
                raise
            return None
        finally:
            self.commands.discard(process.pid)
        return Done(process.returncode or 0, out.decode(), err.decode())

    # The store -------------------------------------------------------------------------------------------

    @property
    def standing(self) -> Standing | None:
        """None: it is in no fleet."""
        return next((Standing(*row) for row in self.rows("SELECT role, node_id, gen FROM fleet")), None)

    def told_dialled(self) -> set[str]:
        """Returns who has told this hub where it would be dialled."""
        noted = status_file.read(self.state.fleet_status)
        return set() if noted is None else {each.name for each in noted.status.nodes if each.dialled}

    def agreed(self) -> dict[str, list[tuple[Any, ...]]]:
        """Returns what all hosts of a fleet have alike."""
        return {
            "generation": self.rows("SELECT gen FROM fleet"),
            "members": self.rows(
                "SELECT id, name, region, role, nkey, xkey, left_at, dialled FROM fleet_members ORDER BY id"
            ),
            "accounts": self.rows("SELECT id, name, tier, disabled FROM accounts WHERE deleted_at IS NULL ORDER BY id"),
            "tokens": self.rows(
                """SELECT t.id, t.account_id, t.hash, t.label, t.revoked_at FROM tokens t
                JOIN accounts a ON a.id = t.account_id WHERE a.deleted_at IS NULL ORDER BY t.id"""
            ),
        }

    def conflicts(self) -> list[dict[str, Any]]:
        """As `fleet conflicts --json` lists them."""
        found: list[dict[str, Any]] = json.loads(self.do("fleet", "conflicts", "--json").out)
        return found

    # Sessions --------------------------------------------------------------------------------------------

    def pour(self, session: str, rx: int, tx: int) -> None:
        if not self.stands:
            super().pour(session, rx, tx)

    async def begin_session(self) -> None:
        key = os.urandom(32)
        with suppress(MemberDied):
            session = await self.ask(do="open", key=key.hex())
            if session is not None:
                self.live[session] = key
                self.poured.setdefault(session, Poured())

    async def end_session(self, session: str) -> None:
        """Until it is ended, or not there. Its traffic has ended."""
        self.live.pop(session, None)
        while True:
            with suppress(MemberDied):
                if await self.ask(do="close", session=session) is not None:
                    return
                if session not in {one for one, _ in await self.ask(do="live")}:
                    return
            await asyncio.sleep(0.2)


class Junctions:
    """Stands between the hosts: before each hub's port for members, and before that for other hubs."""

    def __init__(self, hosts: list[RunningHost], hubs: Iterable[RunningHost]) -> None:
        self._hosts = hosts
        self._of = {
            hub.name: [Junction(at, to, self._who) for at, to in zip(hub.dialled, hub.listens, strict=True)]
            for hub in hubs
        }

    def _who(self, port: int, at: str) -> str:
        owners = {process: each.name for each in self._hosts for process in each.processes}
        found = owner_of(port, at, owners)
        return "" if found is None else owners[found]

    async def listen(self) -> None:
        for each in self._all():
            await each.listen()

    def _all(self) -> list[Junction]:
        return [each for junctions in self._of.values() for each in junctions]

    async def close(self) -> None:
        for each in self._all():
            await each.close()

    def cut_off(self, host: RunningHost) -> None:
        """Neither reaches the host any other, nor the other way."""
        for hub, dialler in self._ways(host):
            for each in self._of[hub]:
                each.cut(dialler)

    def silence(self, host: RunningHost) -> None:
        for hub, dialler in self._ways(host):
            for each in self._of[hub]:
                each.silence(dialler)

    def heal(self, host: RunningHost) -> None:
        for hub, dialler in self._ways(host):
            for each in self._of[hub]:
                each.heal(dialler)

    def _ways(self, host: RunningHost) -> list[tuple[str, str]]:
        """Hub and dialler, of which one is this host. What nobody is known to dial counts as each one's."""
        named = [each.name for each in self._hosts]
        to = [(host.name, each) for each in (*named, "") if each != host.name and host.name in self._of]
        return to + [(hub, host.name) for hub in self._of if hub != host.name]


def _children(process: int | None) -> list[int]:
    found = list[int]()
    with suppress(OSError):
        for each in Path(f"/proc/{process}/task").iterdir():
            with suppress(OSError):
                found += map(int, (each / "children").read_text().split())
    return found


def _name(process: int) -> str:
    with suppress(OSError):
        return Path(f"/proc/{process}/comm").read_text().strip()
    return ""
