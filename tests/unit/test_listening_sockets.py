"""Listening sockets: bound at once, or refused by name."""

from __future__ import annotations

import errno
import socket
import stat
from contextlib import closing
from typing import TYPE_CHECKING

import pytest

from appliance.config.listeners import LISTENERS
from appliance.config.load import HostPort, UnixPath
from appliance.domain.errors import HostError
from appliance.network import sockets

if TYPE_CHECKING:
    from pathlib import Path


def test_a_bound_socket_accepts_connections_before_the_server_runs() -> None:
    """A bound socket accepts connections before any server runs."""
    with closing(sockets.bind("api.listen", HostPort("127.0.0.1", 0))) as listener:
        socket.create_connection(listener.getsockname(), timeout=5).close()


def test_a_taken_port_is_named_with_its_setting() -> None:
    """A taken port is found at once: setting, address, and what to try are named."""
    with closing(sockets.bind("api.listen", HostPort("127.0.0.1", 0))) as listener:
        port = listener.getsockname()[1]
        with pytest.raises(HostError, match=rf"metrics\.listen: cannot listen on 127\.0\.0\.1:{port}: .*ss -ltnp"):
            sockets.bind("metrics.listen", HostPort("127.0.0.1", port))


def test_a_privileged_port_names_the_missing_capability(monkeypatch: pytest.MonkeyPatch) -> None:
    """A port that takes a capability the service has not: the message says which, and where to add it."""

    def bind(*_: object, **__: object) -> socket.socket:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(sockets, "_bind_tcp", bind)
    with pytest.raises(
        HostError, match=r"127\.0\.0\.1:443: Permission denied; .*CAP_NET_BIND_SERVICE .*systemctl edit"
    ):
        sockets.bind("api.listen", HostPort("127.0.0.1", 443))


@pytest.mark.parametrize("address", ["192.0.2.99", "2001:db8::99"])
def test_address_that_comes_later(address: str) -> None:
    """The tunnel's own address is bound before there is a tunnel."""
    with closing(sockets.bind("api.listen", HostPort(address, 0), later={address})) as listener:
        assert listener.getsockname()[0] == address


def test_all_addresses_are_those_of_both_ip_versions() -> None:
    """[::] takes connections over IPv4 too; an IPv6 address of its own does not."""
    with closing(sockets.bind("api.listen", HostPort("::", 0))) as listener:
        port = listener.getsockname()[1]
        for host in ("127.0.0.1", "::1"):
            socket.create_connection((host, port), timeout=5).close()
    with closing(sockets.bind("api.listen", HostPort("::1", 0))) as listener, pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", listener.getsockname()[1]), timeout=5)


def test_no_such_address() -> None:
    """An address that is not this host's is refused, naming the setting."""
    with pytest.raises(HostError, match=r"api\.listen: cannot listen on 192\.0\.2\.99:80"):
        sockets.bind("api.listen", HostPort("192.0.2.99", 80))


def test_a_unix_socket_is_for_owner_and_group_and_goes_with_the_server(tmp_path: Path) -> None:
    """A Unix socket is for its owner and group, and goes with the server."""
    path = tmp_path / "api.sock"
    where = UnixPath(str(path))
    with closing(sockets.bind("api.listen", where)):
        assert stat.S_IMODE(path.stat().st_mode) == 0o660
        with pytest.raises(HostError, match=r"api\.listen: cannot listen on unix:"):
            sockets.bind("api.listen", where)
        assert path.exists()
    sockets.unlink_unix(where, None, HostPort("127.0.0.1", 1))
    assert not path.exists()
    sockets.unlink_unix(where)


def test_a_stale_unix_socket_is_replaced(tmp_path: Path) -> None:
    """The socket of a server that is gone is replaced."""
    where = UnixPath(str(tmp_path / "api.sock"))
    sockets.bind("api.listen", where).close()
    with closing(sockets.bind("api.listen", where)), socket.socket(socket.AF_UNIX) as client:
        client.connect(str(tmp_path / "api.sock"))


def test_a_file_that_is_no_socket_is_kept(tmp_path: Path) -> None:
    """A file that is no socket is nobody's to remove."""
    path = tmp_path / "notes"
    path.write_text("mine", encoding="ascii")
    with pytest.raises(HostError, match="cannot listen on unix:"):
        sockets.bind("api.listen", UnixPath(str(path)))
    assert path.read_text(encoding="ascii") == "mine"


def test_a_taken_udp_port_is_named() -> None:
    """A UDP port that somebody has is named; a free one stays free."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as other:
        other.bind(("127.0.0.1", 0))
        port = other.getsockname()[1]
        with pytest.raises(HostError, match=rf"wireguard\.listen_port: cannot listen on UDP port {port}: .*ss -lunp"):
            sockets.require_udp_port("wireguard.listen_port", port)
    sockets.require_udp_port("wireguard.listen_port", port)
    sockets.require_udp_port("wireguard.listen_port", port)


@pytest.mark.parametrize(
    ("listed", "kept"),
    [
        (["0.0.0.0:80", "[::]:80"], ["[::]:80"]),
        (["[::]:80", "127.0.0.1:80", "[::1]:80", "exit.example:80"], ["[::]:80"]),
        (["127.0.0.1:80", "0.0.0.0:80", "[::1]:80"], ["0.0.0.0:80", "[::1]:80"]),
        (["[::]:80", "127.0.0.1:81", "unix:/run/x"], ["[::]:80", "127.0.0.1:81", "unix:/run/x"]),
    ],
)
def test_what_another_listener_includes_is_left_out(listed: list[str], kept: list[str]) -> None:
    """The kernel refuses a second socket there; and it is listened to already."""
    assert [str(each) for each in LISTENERS.parse(listed)] == kept
