"""A host without IPv6 of its own: clients' IPv6 goes into the tunnel, and is refused there at once."""

from __future__ import annotations

import errno
import socket
from typing import TYPE_CHECKING

import pytest
from capture import Capture
from waiting import until
from watched_exit import watched_exit
from world import EXIT_IP, EXIT_IP6, WEB, WEB_IP6, WEB_PORT

from tests import netns

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from watched_exit import WatchedExit


@pytest.fixture
def exit_(backend: str, tmp_path: Path) -> Iterator[WatchedExit]:
    with watched_exit(backend, tmp_path) as made:
        made.sh(f"ip -6 route del default; ip address del {EXIT_IP6}/64 dev wan")
        yield made
        made.sh(f"ip address add {EXIT_IP6}/64 dev wan nodad; ip route add ::/0 via {WEB_IP6}")


def test_refused_at_once(exit_: WatchedExit) -> None:
    """A connection over IPv6 fails with an error from the exit, not by waiting; over IPv4 it works. Nothing of IPv6
    leaves, neither the exit nor the client around its tunnel."""
    client = exit_.members[0].client
    with Capture(exit_.world.internet, "net0") as far, Capture(client.space, "eth0") as outside:
        with netns.Namespace(client.space.name).entered():
            connection = socket.socket(socket.AF_INET6, socket.SOCK_STREAM)
        with connection:
            connection.setblocking(False)
            connection.connect_ex((WEB_IP6, WEB_PORT))
            # Without an answer it would be ETIMEDOUT, after two minutes.
            status = until(lambda: connection.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR), "it fails", seconds=60)
        assert status in (errno.ENETUNREACH, errno.EHOSTUNREACH, errno.EACCES)
        assert client.address_seen(WEB) == EXIT_IP
        for capture in (far, outside):
            assert not [seen for seen in capture.packets() if str(seen.destination) == WEB_IP6]
