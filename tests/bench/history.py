"""Rows about what has been: requests of accounts that have many sessions, and a start on a store that has many."""

from __future__ import annotations

import sqlite3
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from functools import partial
from typing import TYPE_CHECKING

from appliance.domain.clock import HostClock
from tests.bench import books, device
from tests.bench.contest import Row, Target, take_turns
from tests.bench.serving_rows import POLL_S, an_exit, answers, running
from tests.support.faults.real_exit import REGION
from tests.support.tunnel.waiting import until

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from random import Random

    from tests.support.faults.real_exit import RealExit, UnixConnection

FRESH = "a fresh account"
ENDED_OF_ONE = {f"{many:,} ended": many for many in (500, 5_000, 50_000)}
LIVE_OF_ONE = {f"{many:,} live": many for many in (50, 500, 5_000)}
ACCOUNTS = {FRESH: 0, **ENDED_OF_ONE, **LIVE_OF_ONE}
ASKED = 100  # of each, a round
CLIENTS = 16  # that open what is live
LIVE, ENDED = 20_000, 1_000_000


# Requests ------------------------------------------------------------------------------------------------


def account_rows(backend: str, rounds: int) -> Iterator[Row]:
    with an_exit(backend) as exit_:
        names = {what: f"a{number}" for number, what in enumerate(ACCOUNTS)}
        tokens = {what: exit_.token(name, "paid") for what, name in names.items()}
        with closing(sqlite3.connect(exit_.store)) as db, db:
            for what, many in ENDED_OF_ONE.items():
                [(account_id,)] = db.execute("SELECT id FROM accounts WHERE name = ?", (names[what],)).fetchall()
                books.add_ended(db, many, [account_id], HostClock().now().wall_ms)
        with running(exit_):
            yield from _account_rows(exit_, tokens, rounds)


def _account_rows(exit_: RealExit, tokens: Mapping[str, str], rounds: int) -> Iterator[Row]:
    with ThreadPoolExecutor(CLIENTS) as threads:
        for what, many in LIVE_OF_ONE.items():
            [*threads.map(partial(_open_many, exit_, tokens[what]), [many // CLIENTS] * CLIENTS)]
    with exit_.connection() as connection:
        path = {what: f"/v1/sessions/{_open(connection, token)}" for what, token in tokens.items()}

        def get(what: str) -> None:
            for _ in range(ASKED):
                assert connection.ask("GET", path[what], tokens[what])[0] == 200

        def come_and_go(what: str) -> None:
            for _ in range(ASKED):
                opened = _open(connection, tokens[what])
                assert connection.ask("DELETE", f"/v1/sessions/{opened}", tokens[what])[0] == 200

        for work, ask in (("GET /v1/sessions/{id}", get), ("POST and DELETE /v1/sessions", come_and_go)):
            seconds = take_turns(rounds, {what: partial(ask, what) for what in tokens})
            figures = {what: [s / ASKED for s in found] for what, found in seconds.items()}
            targets = [Target([*many][-1], FRESH, 1.2) for many in (ENDED_OF_ONE, LIVE_OF_ONE)]
            settings = {"accounts": {"ended": {FRESH: 0, **ENDED_OF_ONE}, "live": {FRESH: 0, **LIVE_OF_ONE}}}
            yield Row(f"{work} by its account", "s", figures, targets, f"{exit_.backend} backend", settings)


def _open(connection: UnixConnection, token: str) -> str:
    status, opened = connection.ask("POST", "/v1/sessions", token, {"region": REGION})
    assert status == 201, opened
    session_id: str = opened["id"]
    return session_id


def _open_many(exit_: RealExit, token: str, many: int) -> None:
    with exit_.connection() as connection:
        for _ in range(many):
            _open(connection, token)


# Starts --------------------------------------------------------------------------------------------------


def starting_row(backend: str, rounds: int, random: Random) -> Row:
    """From the process to /readyz: with all peers in the tunnel, as a restart finds them, and with none, as a boot."""
    with an_exit(backend) as exit_, an_exit(backend) as empty:
        books.fill(exit_.store, device.some_peers(0, LIVE, random), HostClock().now(), ifindex=0, random=random)
        with closing(sqlite3.connect(exit_.store)) as db, db:
            accounts = [account_id for (account_id,) in db.execute("SELECT id FROM accounts")]
            books.add_ended(db, ENDED, accounts, HostClock().now().wall_ms)

        def start(one: RealExit) -> None:
            one.launch()
            until(lambda: answers(one.api, "/readyz"), "the exit is ready", every=POLL_S)

        def stop() -> None:
            for one in (exit_, empty):
                if one.running():
                    one.stop()

        def boot() -> None:
            stop()
            exit_.lose_tunnel()

        start(exit_)
        seconds = take_turns(
            rounds,
            {"restart": partial(start, exit_), "boot": partial(start, exit_), "of none": partial(start, empty)},
            before={"restart": stop, "boot": boot, "of none": stop},
        )
        stop()
    work = f"start to ready, {LIVE:,} live and {ENDED:,} ended"
    return Row(work, "s", seconds, [Target("restart", "", 2.0), Target("boot", "", 2.0)], f"{backend} backend")
