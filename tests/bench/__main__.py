"""`python -m tests.bench --json FILE`: all rows that this machine can run, and those of the kernel under a runner."""

from __future__ import annotations

import base64
import json
import os
import platform
import shlex
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Any

import click

from appliance import __version__
from tests.bench import batching, command_rows, forwarding, history, kernel_rows, page, parsing, serving_rows
from tests.support.real_backend import NO_ROOT, backend_here

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.bench.contest import Row

MARK = "bench-row:"
ROUNDS_OF_OPENING = 3  # each is hundreds of requests


def rows_anywhere(backend: str, rounds: int, random: Random) -> Iterator[Row]:
    yield parsing.parsing_row(rounds, random)
    yield parsing.answer_row(rounds, random)
    yield parsing.pool_row(rounds, random)
    yield command_rows.listing_row(rounds, random)
    yield from serving_rows.starting_rows(backend, rounds)
    yield from serving_rows.answering_rows(backend, rounds)
    yield serving_rows.memory_row(backend, serving_rows.SESSIONS, random)
    yield from history.account_rows(backend, min(rounds, ROUNDS_OF_OPENING))
    yield history.starting_row(backend, min(rounds, ROUNDS_OF_OPENING), random)
    yield from batching.rows(backend, min(rounds, ROUNDS_OF_OPENING))
    yield forwarding.forwarding_row(backend, rounds)


def rows_of_kernel(rounds: int, random: Random) -> Iterator[Row]:
    yield from kernel_rows.rows(rounds, random)
    yield serving_rows.memory_row("kernel", serving_rows.SESSIONS, random)
    yield serving_rows.opening_row("kernel", min(rounds, ROUNDS_OF_OPENING))
    yield batching.cycles_row("kernel", min(rounds, ROUNDS_OF_OPENING))
    yield forwarding.forwarding_row("kernel", rounds)


def rows_under_runner(runner: str, rounds: int, seed: int) -> Iterator[dict[str, Any]]:
    """A runner gives back what is said under it, and nothing that is written: a row is a line."""
    command = [*shlex.split(runner), sys.executable, "-m", "tests.bench", "--under-runner"]
    command += ["--rounds", str(rounds), "--seed", str(seed)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stdin=subprocess.DEVNULL) as process:
        assert process.stdout is not None
        for line in process.stdout:
            text = line.decode(errors="replace").strip()
            if text.startswith(MARK):
                yield json.loads(base64.b64decode(text.removeprefix(MARK)))
            else:
                click.echo(text, err=True)
    if process.returncode != 0:
        raise click.ClickException(f"the runner ended with {process.returncode}")


def machine() -> dict[str, Any]:
    return {
        "version": __version__,
        "python": platform.python_version(),
        "processors": os.cpu_count(),
        "at": datetime.now(UTC).strftime("%Y-%m-%d"),
    }


@click.command()
@click.option("--json", "file", type=click.Path(path_type=Path), help="Where the figures go; the page is made of it.")
@click.option("--rounds", default=11, show_default=True)
@click.option("--seed", default=1, show_default=True)
@click.option("--under-runner", is_flag=True, hidden=True)
@click.option("--only", type=click.Choice(["anywhere", "kernel"]))
def main(file: Path | None, rounds: int, seed: int, under_runner: bool, only: str | None) -> None:
    """Measure, print a line a row, and write the figures."""
    backend, random = backend_here(), Random(seed)  # noqa: S311 (keys of peers that nobody has)
    if backend is None:
        raise click.ClickException(NO_ROOT)
    if under_runner:
        for row in rows_of_kernel(rounds, random):
            click.echo(f"\n{MARK}{base64.b64encode(json.dumps(row.as_json()).encode()).decode()}")
        return
    found = []
    for row in _all_rows(backend, rounds, seed, random, only):
        click.echo(page.line(row))
        found.append(row)
    if file is not None:
        file.write_text(json.dumps({"machine": machine(), "rows": found}, indent=1) + "\n", encoding="utf-8")


def _all_rows(backend: str, rounds: int, seed: int, random: Random, only: str | None) -> Iterator[dict[str, Any]]:
    if only != "kernel":
        for row in rows_anywhere(backend, rounds, random):
            yield row.as_json()
    runner = os.environ.get("KERNEL_RUNNER")
    if only == "anywhere":
        return
    if backend == "kernel":
        for row in rows_of_kernel(rounds, random):
            yield row.as_json()
    elif runner:
        yield from rows_under_runner(runner, rounds, seed)
    else:
        click.echo("not measured: the rows of the kernel (it makes no WireGuard here, and KERNEL_RUNNER is not set)")


if __name__ == "__main__":
    main()
