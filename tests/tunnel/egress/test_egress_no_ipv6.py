"""A host without IPv6 of its own: clients' IPv6 goes into the tunnel, and is refused there at once."""

from __future__ import annotations

import errno
import socket
from typing import TYPE_CHECKING

import pytest

from tests.support import netns
from tests.support.egress.capture import Capture
from tests.support.tunnel.waiting import until
from tests.support.tunnel.world import EXIT_IP, EXIT_IP6, WEB, WEB_IP6, WEB_PORT

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.support.egress.vantage import Vantage
    from tests.support.tunnel.appliance_process import Appliance
    from tests.support.tunnel.client import Client
    from tests.support.tunnel.world import World

TUNNEL_IP6 = "fd65:7869:7400::1"  # the exit's own in the tunnel


@pytest.fixture
def without_ipv6(exit_: Vantage) -> Iterator[Vantage]:
    exit_.exit.sh(f"ip -6 route del default; ip address del {EXIT_IP6}/64 dev wan")
    yield exit_
    exit_.exit.sh(f"ip address add {EXIT_IP6}/64 dev wan nodad; ip route add ::/0 via {WEB_IP6}")


@pytest.fixture
def disabled(world: World) -> World:
    """As many a provider's image has it."""
    world.exit.run("sysctl", "-qw", "net.ipv6.conf.all.disable_ipv6=1", "net.ipv6.conf.default.disable_ipv6=1")
    return world


def test_ipv6_is_refused_at_once(without_ipv6: Vantage) -> None:
    """A connection over IPv6 fails with an error from the exit, not by waiting; over IPv4 it works. Nothing of IPv6
    leaves, neither the exit nor the client around its tunnel."""
    client = without_ipv6.clients[0].member.client
    with Capture(without_ipv6.world.internet, "net0") as far, Capture(client.space, "eth0") as outside:
        _require_refused(client)
        assert client.address_seen(WEB) == EXIT_IP
        for capture in (far, outside):
            assert not [seen for seen in capture.packets() if str(seen.destination) == WEB_IP6]


def test_disabled_on_all_interfaces(disabled: World, start_appliance: Callable[..., Appliance], client: Client) -> None:
    """The server starts all the same. IPv6 works inside the tunnel, and is refused at once beyond it; the host's own
    interfaces stay without, and the doctor finds nothing to mend. Disabled again on the tunnel's, it comes back."""
    appliance = start_appliance()
    client.wg_quick(appliance.open(appliance.token())["wg_config"])
    assert client.address_seen(WEB) == EXIT_IP
    assert client.ping(TUNNEL_IP6)
    _require_refused(client)
    addresses = disabled.exit.run("ip", "-6", "-oneline", "address").stdout.splitlines()
    assert {line.split()[1] for line in addresses} == {appliance.interface}
    (found,) = (line for line in appliance.attempt("doctor").stdout.splitlines() if line.split()[1] == "ipv6")
    assert found.split()[0] == "ok"
    assert "refused at once" in found
    disabled.exit.run("sysctl", "-qw", f"net.ipv6.conf.{appliance.interface}.disable_ipv6=1")
    until(lambda: client.ping(TUNNEL_IP6), "IPv6 works again inside the tunnel")


def _require_refused(client: Client) -> None:
    with netns.Namespace(client.space.name).entered():
        connection = socket.socket(socket.AF_INET6, socket.SOCK_STREAM)
    with connection:
        connection.setblocking(False)
        connection.connect_ex((WEB_IP6, WEB_PORT))
        # Without an answer it would be ETIMEDOUT, after two minutes.
        status = until(lambda: connection.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR), "it fails", seconds=60)
    assert status in (errno.ENETUNREACH, errno.EHOSTUNREACH, errno.EACCES)
