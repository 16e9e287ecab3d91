"""`python -m tests.faults.documented --examples 1000`: requests made from the served document, at a real server.

schemathesis makes good and bad ones, and chains of them, and holds every answer to the document.
"""

from __future__ import annotations

import json
import re
import secrets
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

import click

from tests.faults.invariants import require
from tests.faults.tcp_exit import ADDRESS, serving_tcp
from tests.real_backend import NO_ROOT, backend_here

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tests.faults.tcp_exit import TcpExit

CONFIG = Path(__file__).with_name("schemathesis.toml")
DOCUMENT = f"http://{ADDRESS[0]}:{ADDRESS[1]}/schema/openapi.json"
SUBNET = "10.101.0.0/16"  # sessions are opened by the thousand
ANSWERS = re.compile(
    r'^wg_appliance_http_request_duration_seconds_count\{method="(\w+)",route="([^"]+)",status="(\w+)"\} (\d+)', re.M
)
FAULT = re.compile(r"ERROR|CRITICAL|Traceback")


def run(examples: int, seed: int, backend: str, seconds: int) -> Mapping[str, int]:
    """How many answers were given, by status. Raises Violated where one is not as documented."""
    with serving_tcp(backend, WIREGUARD_SUBNET=SUBNET) as exit_:
        token = exit_.token("anna", "free")
        with tempfile.TemporaryDirectory() as folder:
            done = _schemathesis(exit_, token, Path(folder), examples, seed, seconds)
        require(done.returncode == 0, "every answer is as documented", done.stdout[-8000:], done.stderr[-2000:])
        answers = Counter[str]()
        for _, _, status, many in ANSWERS.findall(exit_.exposition()):
            answers[status] += int(many)
        require(FAULT.search(exit_.log.read_text(encoding="utf-8")) is None, "nothing is logged as a fault")
    return answers


def _schemathesis(
    exit_: TcpExit, token: str, folder: Path, examples: int, seed: int, seconds: int
) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "schemathesis.cli", "--no-color", "--config-file", str(CONFIG), "run", DOCUMENT]
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
    answers = run(examples, seed, backend, seconds=7200)
    click.echo(f"{sum(answers.values())} answers as documented: {json.dumps(answers, sort_keys=True)}")
    click.echo(f"seed {seed}, {backend} backend, {time.monotonic() - began:.0f} s")


if __name__ == "__main__":
    main()
