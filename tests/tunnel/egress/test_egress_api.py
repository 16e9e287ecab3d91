"""The appliance's own listeners, from inside the tunnel."""

from __future__ import annotations

from contextlib import ExitStack
from typing import TYPE_CHECKING

import pytest
from client import CURL
from vantage import INSIDE, INSIDE6
from waiting import until
from watched_exit import watched_exit
from world import EXIT_IP, EXIT_IP6

if TYPE_CHECKING:
    from pathlib import Path

    from watched_exit import WatchedExit

PORT, METRICS_PORT, OTHER_PORT = 8080, 9586, 8081
REFUSED = 7  # curl's status where a connection is refused, and not where it is left to wait


def asked(exit_: WatchedExit, address: str, port: int, path: str) -> int:
    """curl's exit status, on a client."""
    host = f"[{address}]" if ":" in address else address
    command = (*CURL, "--max-time", "60", f"http://{host}:{port}{path}")
    return exit_.members[0].client.space.run(*command, check=False, timeout=90).returncode


@pytest.mark.parametrize(
    ("everywhere", "inside", "public"),
    [("0.0.0.0", INSIDE, EXIT_IP), ("[::]", INSIDE6, EXIT_IP6)],  # noqa: S104 (what an operator may write)
    ids=["IPv4", "IPv6"],
)
def test_on_all_addresses(backend: str, tmp_path: Path, everywhere: str, inside: str, public: str) -> None:
    """An API and metrics that listen on all addresses are refused to clients, at the exit's address in the tunnel as
    at its public one, also where clients may reach that; another server of the host is reached at both."""
    changes = {
        "api": {"listen": f"{everywhere}:{PORT}", "insecure_http": True},
        "metrics": {"listen": f"{everywhere}:{METRICS_PORT}"},
        "egress": {"block_private": False},
    }
    with watched_exit(backend, tmp_path, **changes) as exit_, ExitStack() as stack:
        server = ("python3", "-m", "http.server", "--bind", everywhere.strip("[]"), str(OTHER_PORT))
        other = exit_.world.exit.start(*server)
        stack.callback(other.wait, timeout=60)
        stack.callback(other.kill)
        for address in (inside, public):
            until(lambda address=address: asked(exit_, address, OTHER_PORT, "/") == 0, "another server is reached")  # type: ignore[misc]  # mypy infers no lambda with a default
            assert asked(exit_, address, PORT, "/healthz") == REFUSED
            assert asked(exit_, address, METRICS_PORT, "/metrics") == REFUSED


def test_inside_the_tunnel(backend: str, tmp_path: Path) -> None:
    """An operator who names the exit's address in the tunnel has an API that clients inside it reach, and nobody
    outside."""
    changes = {"api": {"listen": f"{INSIDE}:{PORT}", "insecure_http": True}}
    with watched_exit(backend, tmp_path, **changes) as exit_:
        assert asked(exit_, INSIDE, PORT, "/healthz") == 0
        done = exit_.world.internet.run(*CURL, "--max-time", "60", f"http://{EXIT_IP}:{PORT}/healthz", check=False)
        assert done.returncode == REFUSED
