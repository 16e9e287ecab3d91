"""What the operator allows although private networks are blocked, and nothing beside it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.support.egress.packets import echo, tcp, token, udp
from tests.support.egress.servers import udp_server
from tests.support.egress.tables import PUBLISHED, table_of_another
from tests.support.egress.vantage import EXIT_OF, INSIDE_OF, Vantage, vantage_on
from tests.support.tunnel.waiting import until

if TYPE_CHECKING:
    from collections.abc import Iterator

PORTS = ["172.19.0.10:5300", "[fd19::10]:5300", "10.101.0.1:5301", "[fd65:7869:7400::1]:5301", "172.29.0.9:25"]
NETWORKS = ["172.20.0.0/16", "fd20::/16", "169.254.0.0/16", "198.51.100.17/32", "10.0.0.0/8", "10.99.0.0/16"]
BLOCKED = ["172.20.9.0/24", "fd20:9::/32", "172.19.0.99/32"]
ALLOWED_PORT, OTHER_PORT = 5300, 5399
CONTAINER, NETWORK = {4: "172.19.0.10", 6: "fd19::10"}, {4: "172.20.1.2", 6: "fd20:1::2"}


@pytest.fixture(scope="module")
def exit_(backend: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Vantage]:
    """It is allowed while the exit runs, by a reload."""
    with vantage_on(backend, tmp_path_factory.mktemp("allowed")) as made:
        made.appliance.configure(egress={"extra_allow": PORTS + NETWORKS, "extra_block": BLOCKED})
        made.appliance.reload()
        until(lambda: "172.19.0.10" in made.exit.sh("nft list table inet wg_appliance"), "it is allowed")
        yield made


def client_for(exit_: Vantage, address: str) -> str:
    return exit_.clients[0].address[6 if ":" in address else 4]


@pytest.mark.parametrize("version", [4, 6])
def test_an_allowed_port_is_reached(exit_: Vantage, version: int) -> None:
    """The port that is allowed, by UDP and TCP; no other port of that address, no ping, and no other address."""
    client, container = exit_.clients[0].address[version], CONTAINER[version]
    for packet in (udp(client, container, token(), ALLOWED_PORT), tcp(client, container, token(), ALLOWED_PORT)):
        exit_.reaches(packet)
    beside = {4: "172.19.0.11", 6: "fd19::11"}[version]
    for packet in (
        udp(client, container, token(), OTHER_PORT),
        tcp(client, container, token(), OTHER_PORT),
        echo(client, container, token()),
        udp(client, beside, token(), ALLOWED_PORT),
    ):
        exit_.is_rejected(packet)


@pytest.mark.parametrize("version", [4, 6])
def test_an_allowed_network_is_reached(exit_: Vantage, version: int) -> None:
    """A network that is allowed, with any protocol, and not its neighbour."""
    client, inside = exit_.clients[0].address[version], NETWORK[version]
    for packet in (udp(client, inside, token()), tcp(client, inside, token(), 80), echo(client, inside, token())):
        exit_.reaches(packet)
    exit_.is_rejected(udp(client, {4: "172.21.0.1", 6: "fd21::1"}[version], token()))


@pytest.mark.parametrize("address", ["169.254.169.254", "169.254.170.2", "fd20:ce::254", "fd00:ec2::254"])
def test_metadata_stays_blocked(exit_: Vantage, address: str) -> None:
    """Metadata services stay blocked, also where they are in a network that is allowed."""
    exit_.is_rejected(tcp(client_for(exit_, address), address, token(), 80))
    if address.startswith("169.254."):
        exit_.reaches(udp(client_for(exit_, address), "169.254.169.253", token()))


@pytest.mark.parametrize("address", ["172.20.9.1", "fd20:9::1"])
def test_what_is_blocked_besides_wins(exit_: Vantage, address: str) -> None:
    """`extra_block` comes first, and so do mail ports; the NAT64's form of what is allowed is not allowed."""
    client = client_for(exit_, address)
    exit_.is_rejected(udp(client, address, token()))
    exit_.is_stopped(tcp(exit_.clients[0].address[4], "172.29.0.9", token(), 25))
    exit_.is_rejected(udp(exit_.clients[0].address[6], "64:ff9b::172.20.1.2", token()))
    exit_.is_rejected(udp(exit_.clients[0].address[6], "64:ff9b::172.19.0.10", token(), ALLOWED_PORT))


@pytest.mark.parametrize("version", [4, 6])
def test_clients_stay_apart(exit_: Vantage, version: int) -> None:
    """A network that holds the tunnel's own lets clients reach neither each other nor more of the exit."""
    one, other = exit_.clients
    exit_.is_rejected(udp(one.address[version], other.address[version], token()))
    exit_.is_rejected(udp(one.address[version], INSIDE_OF[version], token(), OTHER_PORT))


@pytest.mark.parametrize("version", [4, 6])
def test_an_allowed_port_of_the_host(exit_: Vantage, version: int) -> None:
    """A port at the exit's own address in the tunnel; the same port at its public address is not reached, and another
    address of the host is where it is allowed."""
    client = exit_.clients[0].address[version]
    allowed = udp(client, INSIDE_OF[version], token(), 5301)
    with udp_server(exit_.world.exit, 5301) as server:
        exit_.send(allowed)
        until(lambda: allowed.carried in server.received(), "the allowed port is reached")
        exit_.is_rejected(udp(client, EXIT_OF[version], token(), 5301))
        if version == 4:
            at_other = udp(client, "198.51.100.17", token(), 5301)
            exit_.send(at_other)
            until(lambda: at_other.carried in server.received(), "the allowed address is reached")
            exit_.is_rejected(udp(client, "198.51.100.33", token(), 5301))


@pytest.mark.parametrize("version", [4, 6])
def test_a_published_port_is_allowed_as_clients_dial_it(exit_: Vantage, version: int) -> None:
    """A container's port that is published at the exit's own address may be named as what clients dial."""
    client, inside = exit_.clients[0].address[version], INSIDE_OF[version]
    family, container, target = {4: ("ip", "172.31.0.1", "172.31.0.1:80"), 6: ("ip6", "fd31::1", "[fd31::1]:80")}[
        version
    ]
    rule = f"{family} daddr {inside} udp dport 5301 dnat {family} to {target}"
    asked = udp(client, inside, token(), 5301, source_port=44000 + version)
    with table_of_another(exit_, PUBLISHED.format(rule=rule)):
        exit_.send(asked)
        seen = exit_.far.await_carrying(asked.carried)
    assert (str(seen.destination), seen.ports[1]) == (container, 80)
    exit_.is_rejected(udp(client, container, token(), 80))


def test_what_is_allowed_no_more_does_not_go_on(exit_: Vantage) -> None:
    """What a client had going while it was allowed ends with the reload that takes it out."""
    packet = udp(exit_.clients[0].address[4], "172.20.1.3", token())
    exit_.reaches(packet)
    exit_.appliance.configure(egress={"extra_allow": []})
    exit_.appliance.reload()
    until(lambda: "172.20.0.0/16" not in exit_.exit.sh("nft list table inet wg_appliance"), "it is blocked")
    exit_.is_rejected(udp(exit_.clients[0].address[4], "172.20.1.3", token()))
