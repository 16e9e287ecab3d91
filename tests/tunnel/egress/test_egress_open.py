"""An exit whose operator allows what it blocks by default: then it passes, and what is blocked besides does not."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.support.egress.capture import mac_of, send
from tests.support.egress.packets import echo, tcp, token, udp
from tests.support.egress.servers import udp_server
from tests.support.egress.vantage import EXIT_OF, INSIDE_OF, PROHIBITED, WEB_OF, Vantage, vantage_on
from tests.support.tunnel.waiting import until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

EXTRA, EXTRA_6, EXTRA_OWN = "192.0.2.128/25", "2001:db8:ee::/48", "198.51.100.33/32"


ALLOWING = {
    "block_smtp": False,
    "block_private": False,
    "isolate_clients": False,
    "extra_block": [EXTRA, EXTRA_6, EXTRA_OWN],
}


@pytest.fixture(scope="module")
def exit_(backend: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Vantage]:
    with vantage_on(backend, tmp_path_factory.mktemp("open"), egress=ALLOWING) as made:
        yield made


@pytest.mark.parametrize("version", [4, 6])
def test_clients_reach_each_other(exit_: Vantage, version: int) -> None:
    """Clients reach each other, either of them first, with any protocol, untranslated."""
    one, other = exit_.clients
    for sender, receiver in ((one, other), (other, one)):
        ends = sender.address[version], receiver.address[version]
        for packet in (udp(*ends, token()), tcp(*ends, token(), 22), tcp(*ends, token(), 25), echo(*ends, token())):
            exit_.send(packet, sender)
            assert str(receiver.seen.await_carrying(packet.carried).source) == ends[0]


@pytest.mark.parametrize("version", [4, 6])
def test_mail_ports_are_reached(exit_: Vantage, version: int) -> None:
    """Mail ports are reached."""
    for port in (25, 465, 587, 2525):
        exit_.reaches(tcp(exit_.clients[0].address[version], WEB_OF[version], token(), port))


@pytest.mark.parametrize(
    "address", ["10.0.0.1", "192.168.0.1", "100.64.0.1", "169.254.169.254", "fd00:ec2::254", "64:ff9b::a00:1"]
)
def test_private_networks_are_reached(exit_: Vantage, address: str) -> None:
    """So are private networks."""
    client = exit_.clients[0].address[6 if ":" in address else 4]
    exit_.reaches(udp(client, address, token()))


@pytest.mark.parametrize("version", [4, 6])
def test_the_hosts_own_addresses_are_reached(exit_: Vantage, version: int) -> None:
    """And the host's own addresses."""
    client = exit_.clients[0].address[version]
    with udp_server(exit_.world.exit, 5353) as server:
        for address in (EXIT_OF[version], INSIDE_OF[version]):
            packet = udp(client, address, token(), 5353)
            exit_.send(packet)
            until(lambda packet=packet: packet.carried in server.received(), f"{address} is reached")  # type: ignore[misc]  # mypy infers no lambda with a default


@pytest.mark.parametrize("address", ["192.0.2.128", "192.0.2.255", "2001:db8:ee::1", "64:ff9b::c000:280"])
def test_extra_networks_are_prohibited(exit_: Vantage, address: str) -> None:
    """The operator's own networks are prohibited, through a NAT64 too, and their neighbours are not."""
    client = exit_.clients[0].address[6 if ":" in address else 4]
    for packet in (udp(client, address, token()), tcp(client, address, token(), 80), echo(client, address, token())):
        exit_.is_rejected(packet)
    exit_.reaches(udp(exit_.clients[0].address[4], "192.0.2.127", token()))
    exit_.reaches(udp(exit_.clients[0].address[6], "2001:db8:ed::1", token()))


def test_extra_on_the_host(exit_: Vantage) -> None:
    """An address of the host's own among them is prohibited too."""
    address, _, _ = EXTRA_OWN.partition("/")
    packet = udp(exit_.clients[0].address[4], address, token(), 5353)
    with udp_server(exit_.world.exit, 5353) as server:
        exit_.send(packet)
        error = until(lambda: next(exit_.clients[0].seen.errors_about(packet.carried), None), "the client is told")
        assert error is not None
        assert error.icmp == PROHIBITED[4]
        assert server.received() == []


@pytest.mark.parametrize("version", [4, 6])
def test_a_client_still_sends_from_its_own_address_alone(exit_: Vantage, version: int) -> None:
    """Whose address a client sends from is no setting."""
    exit_.is_stopped(udp(exit_.clients[1].address[version], WEB_OF[version], token()))


@pytest.mark.parametrize("address", ["10.0.0.1", "fd00:ec2::254"])
def test_an_open_flow_ends_when_it_is_blocked(once: str, tmp_path: Path, address: str) -> None:
    """What a client had going while it was allowed does not go on when it is blocked."""
    with vantage_on(once, tmp_path, egress={"block_private": False}) as exit_:
        client = exit_.clients[0].address[6 if ":" in address else 4]
        sent = exit_.reaches(udp(client, address, token()))
        answer = udp(address, str(sent.source), token(), sent.ports[0], source_port=sent.ports[1])
        send(exit_.world.internet, "net0", answer.whole(), to_mac=mac_of(exit_.world.exit, "wan"))
        exit_.clients[0].seen.await_carrying(answer.carried)
        exit_.appliance.configure(egress={"block_private": True})
        exit_.appliance.reload()
        until(lambda: "10.0.0.0/8" in exit_.exit.sh("nft list set inet wg_appliance private4"), "it is blocked")
        exit_.is_rejected(udp(client, address, token()))
