"""`python -m tests.faults.documented --examples 1000`: requests made from the served document, at a real server.

schemathesis makes good and bad ones, and chains of them, and holds every answer to the document. Then, at a server with
small limits, so do an account that has used up a window, one that has all the sessions it may have, and one that asks
too often.
"""

from __future__ import annotations

import json
import re
import secrets
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

import click

from tests.support.faults.real_exit import REGION
from tests.support.faults.tcp_exit import ADDRESS, serving_tcp
from tests.support.faults.violations import require
from tests.support.real_backend import NO_ROOT, backend_here

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tests.support.faults.tcp_exit import TcpExit

CONFIG, CONFIG_LIMITED = (Path(__file__).with_name(f"schemathesis{which}.toml") for which in ("", "_limited"))
DOCUMENT = f"http://{ADDRESS[0]}:{ADDRESS[1]}/schema/openapi.json"
SUBNET = "10.101.0.0/16"  # sessions are opened by the thousand
LIMITS = {
    "API_MAX_BODY": "100 B",
    "TIERS_FREE_SECONDS_LIMIT": "1s",
    "TIERS_PAID_MAX_LIVE_SESSIONS": "1",
    "TIERS_ANONYMOUS_REQUESTS_PER_MINUTE": "30",
}
ANSWERS = re.compile(
    r'^wg_appliance_http_request_duration_seconds_count\{method="(\w+)",route="([^"]+)",status="(\w+)"\} (\d+)', re.M
)
FAULT = re.compile(r"ERROR|CRITICAL|Traceback")


def run(examples: int, seed: int, backend: str, seconds: int) -> Mapping[str, int]:
    """How many answers were given, by status. Raises Violated where one is not as documented."""
    with serving_tcp(backend, WIREGUARD_SUBNET=SUBNET, TIERS_FREE_MAX_DEVICES="0") as exit_:
        _hold_to_document(exit_, exit_.token("anna", "free"), CONFIG, examples, seed, seconds)
        return _answers(exit_)


def run_limited(examples: int, seed: int, backend: str, seconds: int) -> Mapping[str, int]:
    """As `run`, for accounts that are refused."""
    with serving_tcp(backend, **LIMITS) as exit_:
        used_up, all_live, hurried = (exit_.token(tier, tier) for tier in ("free", "paid", "anonymous"))
        wish = {"region": REGION}
        with exit_.connection() as connection:
            require(connection.ask("POST", "/v1/sessions", all_live, wish)[0] == 201, "a session is opened")
            _use_up(exit_, "free")
            require(connection.ask("POST", "/v1/sessions", used_up, wish)[0] == 402, "its window is used up")
        for token in (used_up, all_live, hurried):
            _hold_to_document(exit_, token, CONFIG_LIMITED, examples, seed, seconds)
        return _answers(exit_)


def _use_up(exit_: TcpExit, account: str) -> None:
    """As a client's tunnel would, in a second."""
    with sqlite3.connect(exit_.store) as db:
        now_ms = time.time_ns() // 1_000_000
        db.execute("UPDATE accounts SET time_opened_at = ?, time_used_ms = 1000 WHERE name = ?", (now_ms, account))
    db.close()


def _answers(exit_: TcpExit) -> Counter[str]:
    """By status."""
    require(FAULT.search(exit_.log.read_text(encoding="utf-8")) is None, "nothing is logged as a fault")
    answers = Counter[str]()
    for _, _, status, many in ANSWERS.findall(exit_.exposition()):
        answers[status] += int(many)
    return answers


def _hold_to_document(exit_: TcpExit, token: str, config: Path, examples: int, seed: int, seconds: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        done = _schemathesis(exit_, token, config, Path(folder), examples, seed, seconds)
    require(done.returncode == 0, "every answer is as documented", done.stdout[-8000:], done.stderr[-2000:])


def _schemathesis(
    exit_: TcpExit, token: str, config: Path, folder: Path, examples: int, seed: int, seconds: int
) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "schemathesis.cli", "--no-color", "--config-file", str(config), "run", DOCUMENT]
    options = {
        "header": f"Authorization: Bearer {token}",
        "max-examples": str(examples),
        "seed": str(seed),
        "checks": "all",
        "exclude-checks": "use_after_free",  # a session that was ended keeps answering, with its final figures
        "request-timeout": "60",
    }
    words = [word for name, value in options.items() for word in (f"--{name}", value)]
    with exit_.space.entered():
        return subprocess.run(
            [*command, *words, "--continue-on-failure"],
            cwd=folder,
            capture_output=True,
            text=True,
            timeout=seconds,
            check=False,
        )


@click.command()
@click.option("--examples", default=1000, show_default=True, help="Of each operation and phase.")
@click.option("--seed", type=int, help="Left out: a random one.")
def main(examples: int, seed: int | None) -> None:
    """Ask what the document says can be asked; exit status 1 when an answer is not as documented."""
    backend = backend_here()
    if backend is None:
        raise click.ClickException(NO_ROOT)
    seed = secrets.randbelow(2**31) if seed is None else seed
    began = time.monotonic()
    for name, held in (("without limits", run), ("with small limits", run_limited)):
        answers = held(examples, seed, backend, seconds=7200)
        found = json.dumps(answers, sort_keys=True)
        click.echo(f"{name}: {sum(answers.values())} answers as documented: {found}")
    click.echo(f"seed {seed}, {backend} backend, {time.monotonic() - began:.0f} s")


if __name__ == "__main__":
    main()
