"""The ports that the host uses, from its sockets and sysctls; and the ranges that follow."""

from __future__ import annotations

import socket
from contextlib import ExitStack
from typing import TYPE_CHECKING

import pytest

from appliance.network.firewall.host_ports import EPHEMERAL, RESERVED, HostPorts
from appliance.network.firewall.rules import PortRange, PortRanges
from appliance.network.netlink import constants, sock_diag
from appliance.network.netlink.sock_diag import TCP, UDP, ListeningSocket, parse, parse_procfs

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator
    from pathlib import Path

OWN = {(TCP, 8080), (UDP, 51820)}


@pytest.fixture
def proc_sys(tmp_path: Path) -> Path:
    (tmp_path / "net/ipv4").mkdir(parents=True)
    (tmp_path / RESERVED).write_text("\n", encoding="ascii")
    (tmp_path / EPHEMERAL).write_text("32768\t60999\n", encoding="ascii")
    return tmp_path


def no_listener() -> Collection[ListeningSocket]:
    return ()


def test_the_appliances_own_ports_are_out_before_any_look(proc_sys: Path) -> None:
    """Also those that nobody listens on yet."""
    ports = HostPorts(OWN, proc_sys, no_listener)
    assert ports.ranges == PortRanges(PortRange(8081, 65535), PortRange(1024, 51819))
    ports.look()
    assert ports.taken == OWN


def test_reserved_ports_are_out_for_both_protocols_as_they_are_now(proc_sys: Path) -> None:
    """They are read at each look."""
    ports = HostPorts(OWN, proc_sys, no_listener)
    (proc_sys / RESERVED).write_text("10000-29999\n", encoding="ascii")
    ports.look()
    assert ports.ranges == PortRanges(PortRange(30000, 65535), PortRange(30000, 51819))


def test_listeners_are_out_of_the_range_of_their_protocol(proc_sys: Path) -> None:
    """A TCP service does not narrow UDP's."""
    ports = HostPorts(OWN, proc_sys, lambda: [ListeningSocket(TCP, 20000, 1), ListeningSocket(UDP, 30000, 1)])
    ports.look()
    assert ports.ranges == PortRanges(PortRange(20001, 65535), PortRange(1024, 29999))


def test_forwarded_ports_are_out_unless_none_would_be_left(proc_sys: Path) -> None:
    """Ports that the host forwards to a container are a service's too; a host that forwards all keeps what it had."""
    ports = HostPorts(OWN, proc_sys, no_listener)
    ports.look({(UDP, 9000)})
    assert (ports.ranges.udp, (UDP, 9000) in ports.taken) == (PortRange(9001, 51819), True)
    ports.look({(UDP, port) for port in range(65536)})
    assert ports.ranges.udp == PortRange(1024, 51819)


def test_what_cannot_be_read_changes_nothing_and_is_said_once(proc_sys: Path, caplog: pytest.LogCaptureFixture) -> None:
    """What was seen last stays, and the log says once what is wrong."""
    answers: Iterator[list[ListeningSocket] | None] = iter([[ListeningSocket(TCP, 20000, 1)], None, None, [], None])

    def read() -> list[ListeningSocket]:
        answer = next(answers)
        if answer is None:
            raise OSError("no such module")
        return answer

    ports = HostPorts(OWN, proc_sys, read)
    for _ in range(3):
        ports.look()
        assert (TCP, 20000) in ports.taken
    assert caplog.text.count("cannot be read, clients may meet a service's: no such module") == 1
    ports.look()
    ports.look()
    assert caplog.text.count("no such module") == 2


def opened(stack: ExitStack, family: int, kind: int, *, listening: bool = False) -> socket.socket:
    made = stack.enter_context(socket.socket(family, kind))
    made.bind(("::1" if family == socket.AF_INET6 else "127.0.0.1", 0))
    if listening:
        made.listen()
    return made


def without_sock_diag(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a kernel that lacks its modules."""
    monkeypatch.setattr(constants, "SOCK_DIAG_BY_FAMILY", constants.SOCK_DIAG_BY_FAMILY + 100)


@pytest.mark.parametrize("prepare", [lambda _: None, without_sock_diag], ids=["sock_diag", "procfs"])
@pytest.mark.parametrize("family", [socket.AF_INET, socket.AF_INET6])
def test_sockets_of_this_host(
    family: int, prepare: Callable[[pytest.MonkeyPatch], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """TCP that listens and UDP that is not connected; nothing that is only bound, or has a peer. A socket is known
    again."""
    prepare(monkeypatch)
    with ExitStack() as stack:
        try:
            listening = opened(stack, family, socket.SOCK_STREAM, listening=True)
        except OSError:
            pytest.skip("NOT TESTED: this host has no IPv6")
        udp = opened(stack, family, socket.SOCK_DGRAM)
        bound = opened(stack, family, socket.SOCK_STREAM)
        connected = opened(stack, family, socket.SOCK_DGRAM)
        connected.connect(udp.getsockname())
        calling = stack.enter_context(socket.create_connection(listening.getsockname()[:2]))
        seen = sock_diag.listeners()
        ports = {(listener.protocol, listener.port) for listener in seen}
        assert {(TCP, listening.getsockname()[1]), (UDP, udp.getsockname()[1])} <= ports
        for other, protocol in ((bound, TCP), (connected, UDP), (calling, TCP)):
            assert (protocol, other.getsockname()[1]) not in ports
        again = {each for each in sock_diag.listeners() if each.port == udp.getsockname()[1]}
        assert again == {each for each in seen if each.port == udp.getsockname()[1]}


def test_a_message_of_sock_diag_is_read() -> None:
    """Port in network order, cookie."""
    addresses = bytes(36)
    message = bytes([2, 10, 0, 0]) + b"\x1f\x90" + bytes(2) + addresses + b"\0\0\0\0\0\0\0\5" + bytes(20)
    assert parse(message, TCP) == ListeningSocket(TCP, 8080, 5)


PROC_TCP = """\
   0: 0100007F:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 916 1 0000000000000000 100
   1: 0100007F:1F90 0100007F:D431 01 00000000:00000000 00:00000000 00000000     0        0 917 1 0000000000000000 20
   2: what follows connections is not even looked at
"""
PROC_UDP = """\
   1: 00000000:0035 00000000:0000 07 00000000:00000000 00:00000000 00000000     0        0 11 2 0000000000000000 0
   2: 0100007F:A000 0100007F:0035 01 00000000:00000000 00:00000000 00000000     0        0 12 2 0000000000000000 0
   3: 00000000000000000000000000000000:CA6C 00000000000000000000000000000000:0000 07 0:0 00:0 0 0 0 0 2 0 0
"""


def test_procfs_is_read() -> None:
    """Of TCP up to the first that does not listen: a host may have many connections, and they come last."""
    assert list(parse_procfs(iter(PROC_TCP.splitlines()), TCP)) == [ListeningSocket(TCP, 8080, 916)]
    assert list(parse_procfs(iter(PROC_UDP.splitlines()), UDP)) == [
        ListeningSocket(UDP, 53, 11),
        ListeningSocket(UDP, 51820, 0),
    ]
