"""The appliance's own listeners, from inside the tunnel."""

from __future__ import annotations

from contextlib import ExitStack
from typing import TYPE_CHECKING

from tests.support.egress.vantage import INSIDE
from tests.support.tunnel.client import CURL
from tests.support.tunnel.waiting import until
from tests.support.tunnel.watched_exit import watched_exit
from tests.support.tunnel.world import EXIT_IP

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.tunnel.watched_exit import WatchedExit

PORT, METRICS_PORT, OTHER_PORT = 8080, 9586, 8081
REFUSED = 7  # curl's status where a connection is refused, and not where it is left to wait


def asked(exit_: WatchedExit, address: str, port: int, path: str) -> int:
    """curl's exit status, on a client."""
    host = f"[{address}]" if ":" in address else address
    command = (*CURL, "--max-time", "60", f"http://{host}:{port}{path}")
    return exit_.members[0].client.space.run(*command, check=False, timeout=90).returncode


def test_own_listeners_are_refused_to_clients(backend: str, tmp_path: Path) -> None:
    """One that listens on all addresses is refused to clients, at the exit's address in the tunnel as at its public
    one, also where clients may reach that; another server of the host is reached at both. One that listens at the
    exit's address in the tunnel is reached by clients inside, and by nobody outside."""
    changes = {
        "api": {"listen": f"0.0.0.0:{PORT}", "insecure_http": True},
        "metrics": {"listen": f"{INSIDE}:{METRICS_PORT}"},
        "egress": {"block_private": False},
    }
    with watched_exit(backend, tmp_path, **changes) as exit_, ExitStack() as stack:
        other = exit_.world.exit.start("python3", "-m", "http.server", "--bind", "0.0.0.0", str(OTHER_PORT))  # noqa: S104 (in a namespace)
        stack.callback(other.wait, timeout=60)
        stack.callback(other.kill)
        for address in (INSIDE, EXIT_IP):
            until(lambda address=address: asked(exit_, address, OTHER_PORT, "/") == 0, "another server is reached")  # type: ignore[misc]  # mypy infers no lambda with a default
            assert asked(exit_, address, PORT, "/healthz") == REFUSED
        assert asked(exit_, INSIDE, METRICS_PORT, "/metrics") == 0
        outside = exit_.world.internet.run(*CURL, f"http://{EXIT_IP}:{METRICS_PORT}/metrics", check=False)
        assert outside.returncode == REFUSED
