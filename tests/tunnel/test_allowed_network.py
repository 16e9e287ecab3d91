"""A network of the host's that clients may reach although it is private: answers come back out of it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.support.egress.servers import tcp_servers
from tests.support.tunnel.waiting import until
from tests.support.tunnel.world import WEB_IP

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.support.tunnel.appliance_process import Appliance
    from tests.support.tunnel.client import Client
    from tests.support.tunnel.world import World

HOSTS, INSIDE = ("172.19.0.1", "fd19::1"), ("172.19.0.10", "fd19::10")
PORT = 5300


def test_an_allowed_network_answers_on_a_host_that_is_no_router(
    world: World, start_appliance: Callable[..., Appliance], clients: list[Client]
) -> None:
    """What is allowed there answers clients, in both IP versions, also once it is allowed by a reload, with the host's
    own switch off; what comes out of that network goes nowhere else."""
    behind = world.clients[1]
    for space, link, addresses in ((world.exit, "lan2", HOSTS), (behind, "eth0", INSIDE)):
        space.run("ip", "address", "add", f"{addresses[0]}/16", "dev", link)
        space.run("ip", "address", "add", f"{addresses[1]}/64", "dev", link, "nodad")
    behind.run("ip", "route", "replace", "default", "via", HOSTS[0])
    behind.run("ip", "-6", "route", "replace", "default", "via", HOSTS[1])
    world.exit.run("ip", "address", "del", "198.51.100.33/28", "dev", "lan2")  # with its route, which is not private
    world.internet.run("ip", "route", "add", "172.19.0.0/16", "via", "203.0.113.1")
    appliance = start_appliance(egress={"extra_allow": [f"[{INSIDE[1]}]:{PORT}"]})
    client = clients[0]
    client.wg_quick(appliance.open(appliance.token())["wg_config"])

    def answers(address: str) -> bool:
        command = ("timeout", "2", "bash", "-c", f"exec 3<>/dev/tcp/{address}/{PORT}")
        return client.space.run(*command, check=False).returncode == 0

    with tcp_servers(behind, INSIDE[0], PORT), tcp_servers(behind, INSIDE[1], PORT):
        until(lambda: answers(INSIDE[1]), "the IPv6 host answers")
        assert not answers(INSIDE[0])
        appliance.configure(egress={"extra_allow": [f"{INSIDE[0]}:{PORT}", f"[{INSIDE[1]}]:{PORT}"]})
        appliance.reload()
        until(lambda: answers(INSIDE[0]), "the IPv4 host answers")
        assert answers(INSIDE[1])
    assert world.exit.run("sysctl", "-n", "net.ipv4.ip_forward").stdout.strip() == "0"
    assert behind.run("ping", "-c", "1", "-W", "1", WEB_IP, check=False).returncode != 0
