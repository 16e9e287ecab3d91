"""`python -m tests.faults.powercut --cuts 1000`: what a power cut leaves of the store, at any instant of a busy server.

One run is recorded: every write, every sync and every answer to a client, in order, from the first start to the last
stop. Each cut takes an instant of it and a disk on which what was synced by then is, and any part of the rest.
"""

from __future__ import annotations

import asyncio
import re
import secrets
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING

import click

from appliance.domain.errors import ApplianceError
from appliance.store.database import Store
from appliance.store.state_dir import StateDir
from tests.support.faults.clients import Client
from tests.support.faults.disk import LEFT_OUT, Disk
from tests.support.faults.real_exit import SHORT_LIVED, real_exit
from tests.support.faults.syscalls import STRACE, Tracer
from tests.support.real_backend import NO_ROOT, backend_here
from tests.support.tunnel.waiting import until

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from tests.support.faults.syscalls import Event

TIERS = ("paid", "free", SHORT_LIVED)  # of the clients
SECONDS_FOR_REQUESTS = 300
KEY = "server.key"


@dataclass(frozen=True)
class Answer:
    """What a client was told of a session, from event number `at` on."""

    at: int
    status: int
    session_id: str
    ended: bool


@dataclass(frozen=True)
class Recording:
    folder: Path  # the state directory's path
    events: Sequence[Event]
    answers: Sequence[Answer]
    lasting: frozenset[str]  # the sessions that nobody ended
    key: bytes  # the server's, as stored

    @property
    def checkpoints(self) -> int:
        """How often the log was brought into the store's file between the first and the last answer."""
        busy = self.events[self.answers[0].at : self.answers[-1].at]
        store = str(StateDir(self.folder).store)
        return sum(event.done and event.call.name == "fdatasync" and event.call.path == store for event in busy)

    def __str__(self) -> str:
        calls = Counter(event.call.name for event in self.events if event.done)
        opened = sum(answer.status == 201 for answer in self.answers)
        ended = sum(answer.ended for answer in self.answers)
        return (
            f"{calls['pwrite64']} writes, {calls['fsync'] + calls['fdatasync']} syncs, {self.checkpoints} checkpoints, "
            f"{opened} sessions answered 201, {ended} told as ended"
        )


def record(requests: int, random: Random, backend: str) -> Recording:
    """Of a server that answers about so many requests. The model of the disk must come out as the disk did."""
    with _folder() as folder, real_exit(folder, backend) as exit_:
        tracer = Tracer(folder)
        exit_.under = tracer.command
        exit_.command("init")
        clients = [Client(exit_, exit_.token(tier, tier), tier, Random(random.random())) for tier in TIERS]  # noqa: S311
        exit_.launch()
        exit_.await_ready()
        _keep_busy(clients, requests)
        exit_.stop()
        events = list(tracer.events())
        disk = Disk(exit_.state)
        for event in events:
            disk.take(event)
        found = {f.name: f.read_bytes() for f in exit_.state.iterdir() if not f.name.endswith(LEFT_OUT)}
        assert disk.content == found, "the recording has every write"
        lasting = frozenset(session_id for client in clients for session_id in client.live())
        recording = Recording(exit_.state, events, _answers(events), lasting, found[KEY])
    opened = sum(answer.status == 201 for answer in recording.answers)
    assert opened == sum(client.answers["POST 201"] for client in clients), "the recording has every answer"
    assert not any(client.odd for client in clients), [client.odd for client in clients]
    return recording


def _keep_busy(clients: Sequence[Client], requests: int) -> None:
    enough = threading.Event()
    with ThreadPoolExecutor(len(clients)) as threads:
        running = [threads.submit(client.run, enough) for client in clients]
        try:
            asked = f"{requests} requests are answered"
            until(lambda: sum(c.answers.total() for c in clients) >= requests, asked, SECONDS_FOR_REQUESTS)
        finally:
            enough.set()
        for one in running:
            one.result()


def _answers(events: Sequence[Event]) -> list[Answer]:
    """A client may know of an answer when its first byte is about to be sent."""
    begun: dict[str, tuple[int, bytearray]] = {}
    whole = []
    for at, event in enumerate(events):
        call = event.call
        if event.done or call.name != "sendto" or not call.strings:
            continue
        if call.strings[0].startswith(b"HTTP/1.1 "):
            begun[call.path] = at, bytearray()
            whole.append(begun[call.path])
        if call.path in begun:
            begun[call.path][1].extend(call.strings[0])
    found = []
    for at, text in whole:
        head, _, body = text.partition(b"\r\n\r\n")
        session_id = re.search(rb'"id":"(ses_\w+)"', body)
        if session_id is not None:
            found.append(Answer(at, int(head.split()[1]), session_id[1].decode(), b'"terminated_at"' in body))
    return found


def broken_by(recording: Recording, cuts: int, random: Random, *, syncs: bool = True) -> list[str]:
    """What is wrong after so many cuts, at random instants. `syncs`: as Disk has it."""
    instants = Counter(random.choices(range(len(recording.events)), k=cuts))
    disk = Disk(recording.folder, syncs=syncs)
    broken = []
    for at, event in enumerate(recording.events):
        disk.take(event)
        for _ in range(instants[at]):
            with _folder() as folder:
                for name, content in disk.after_cut(random).items():
                    (folder / name).write_bytes(content)
                broken += [f"cut after event {at}: {fault}" for fault in _faults(folder, at, recording)]
    return broken


def _faults(folder: Path, at: int, recording: Recording) -> Iterator[str]:
    told = [answer for answer in recording.answers if answer.at <= at]
    state = StateDir(folder)
    if told and not (state.has_key and (folder / KEY).read_bytes() == recording.key):
        yield "the server's key is lost"
    state.create_store()  # as the server does
    try:
        states, faults = asyncio.run(_read(state.store))
    except ApplianceError as error:
        yield f"{error}: {error.__cause__}"
        return
    yield from faults
    for answer in told:
        found = states.get(answer.session_id)
        if found in (None, "pending"):
            yield f"{answer.session_id}, answered with {answer.status}, is {found or 'lost'}"
        elif answer.ended and found not in ("closing", "terminated"):  # that its peer is gone may be stored later
            yield f"{answer.session_id}, told as ended, is {found}"
        elif answer.session_id in recording.lasting and found != "live":
            yield f"{answer.session_id}, ended by nobody, is {found}"


async def _read(path: Path) -> tuple[Mapping[str, str], Sequence[str]]:
    """The sessions' states, and what SQLite finds wrong. Raises ApplianceError."""
    store = await Store.open(path)
    try:
        async with store.read() as db:
            integrity = [row[0] for row in await db.execute_fetchall("PRAGMA integrity_check")]
            dangling = [str(tuple(row)) for row in await db.execute_fetchall("PRAGMA foreign_key_check")]
            states = {row[0]: row[1] for row in await db.execute_fetchall("SELECT id, state FROM sessions")}
    finally:
        await store.close()
    return states, [fault for fault in integrity if fault != "ok"] + dangling


@contextmanager
def _folder() -> Iterator[Path]:
    folder = Path(tempfile.mkdtemp(prefix="cut-"))
    try:
        yield folder
    finally:
        shutil.rmtree(folder)


def cannot_record() -> str | None:
    """Why nothing can be recorded here; None where it can."""
    if backend_here() is None:
        return NO_ROOT
    try:
        traced = subprocess.run([*STRACE, "-o", "/dev/null", "true"], capture_output=True, check=False, timeout=60)
    except FileNotFoundError:
        return "NOT TESTED: strace is not installed"
    return None if traced.returncode == 0 else f"NOT TESTED: strace traces nothing here: {traced.stderr.decode()}"


@click.command()
@click.option("--cuts", default=1000, show_default=True)
@click.option("--requests", default=1500, show_default=True, help="How many the recorded server answers.")
@click.option("--seed", type=int, help="Of the requests and the cuts; left out: a random one.")
def main(cuts: int, requests: int, seed: int | None) -> None:
    """Cut the power of a recorded server, again and again; exit status 1 when something is lost or broken."""
    backend = backend_here()
    reason = cannot_record()
    if backend is None or reason is not None:
        raise click.ClickException(reason or NO_ROOT)
    seed = secrets.randbelow(2**31) if seed is None else seed
    random = Random(seed)  # noqa: S311 (a test's choices)
    began = time.monotonic()
    recording = record(requests, random, backend)
    recorded = time.monotonic()
    broken = broken_by(recording, cuts, random)
    click.echo("\n".join(broken[:20]))
    click.echo(
        f"{cuts} cuts of {recording}; {len(broken)} faults; seed {seed}, "
        f"{recorded - began:.0f} s recording, {time.monotonic() - recorded:.0f} s cutting"
    )
    sys.exit(1 if broken else 0)


if __name__ == "__main__":
    main()
