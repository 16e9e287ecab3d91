"""Where the API listens, and what clients dial: of the real process, as its configuration says."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING

from tests.support import netns
from tests.support.tunnel.waiting import until

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.support.tunnel.appliance_process import Appliance

HEAD = b"HEAD http://exit.test/healthz HTTP/1.1\r\nHost: exit.test\r\nConnection: close\r\n\r\n"


def answer(connection: socket.socket) -> bytes:
    """All that is answered to HEAD with a target in absolute form."""
    with connection:
        connection.settimeout(30)
        connection.sendall(HEAD)
        return b"".join(iter(lambda: connection.recv(4096), b""))


def test_every_listener_of_a_list_answers(
    once: str,  # noqa: ARG001 (asked for its check of root)
    start_appliance: Callable[..., Appliance],
    tmp_path: Path,
) -> None:
    """Addresses of both IP versions and a Unix socket, which is gone at the end; all are named in the log.

    Where clients dial a name, it is followed, and the file has it as it is.
    """
    path = tmp_path / "api.sock"
    listen = ["127.0.0.1:8080", "[::]:8081", f"unix:{path}", "0.0.0.0:8081"]
    appliance = start_appliance(
        api={"listen": listen, "insecure_http": True},
        wireguard={"endpoint": "localhost", "keepalive": 0},
        environment={"WG_APPLIANCE_PORT": "tcp://10.0.0.7:8080"},
    )
    with netns.Namespace(appliance.space.name).entered():
        for host, port in (("127.0.0.1", 8080), ("127.0.0.1", 8081), ("::1", 8081)):
            head, _, body = answer(socket.create_connection((host, port), 30)).partition(b"\r\n\r\n")
            assert (head.split()[1], body) == (b"200", b"")
    local = socket.socket(socket.AF_UNIX)
    local.connect(str(path))
    assert answer(local).startswith(b"HTTP/1.1 200")
    log = appliance.log()
    assert f"listening on http://127.0.0.1:8080, http://[::]:8081, unix:{path}" in log
    assert "clients dial localhost port 51820" in log
    (warned,) = [line for line in log.splitlines() if "WG_APPLIANCE_PORT" in line]
    assert "left alone" in warned
    assert "wireguard.keepalive = 0 beside tiers.anonymous.idle_timeout = 300s" in log
    assert "Endpoint = localhost:51820" in appliance.open(appliance.token())["wg_config"]
    until(lambda: "daddr 127.0.0.1" in appliance.space.run("nft", "list", "ruleset").stdout, "the name is followed")
    appliance.stop()
    assert not path.exists()
