"""The exit's API, from inside the tunnel: clients ask for their session's status where the internet does."""

from __future__ import annotations

import json
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING

import pytest

from tests.support.certificates import self_signed
from tests.support.egress.capture import mac_of, send
from tests.support.egress.packets import tcp, token
from tests.support.egress.vantage import EXIT_OF, INSIDE, INSIDE6, INSIDE_OF, WEB_OF, Vantage, vantage_on
from tests.support.tunnel.appliance_process import Appliance
from tests.support.tunnel.client import CURL, clients_of
from tests.support.tunnel.waiting import until
from tests.support.tunnel.world import EXIT_IP, EXIT_IP6, new_world

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.support.tunnel.client import Client
    from tests.support.tunnel.namespace import Namespace

API, OTHER, METRICS = 8080, 8081, 9586
REFUSED = 7  # curl's status where a connection is refused, and not where it is left to wait
NATS, NATS6 = "192.0.2.200", "2001:db8:99::1"  # a provider's NAT's: no address of the host
# What the NAT does with WireGuard's packets. Done at the client, so that the exit sees nothing of it.
PROVIDER = """
table inet provider {{
  chain out {{
    type nat hook output priority -100;
    ip daddr {nats} udp dport 51820 dnat ip to {exit_ip}
    ip6 daddr {nats6} udp dport 51820 dnat ip6 to {exit_ip6}
  }}
}}
"""


def asked(space: Namespace, url: str, *options: str) -> int:
    """curl's exit status."""
    return space.run(*CURL, "--insecure", "--max-time", "30", *options, url, check=False, timeout=90).returncode


def status(client: Client, url: str, session: str, bearer: str) -> int:
    """What a client is told of its session: the bytes it has sent; -1 where it is told nothing."""
    call = (*CURL, "--insecure", "--fail", "--max-time", "30", "-H", f"Authorization: Bearer {bearer}")
    done = client.space.run(*call, f"{url}/v1/sessions/{session}", check=False, timeout=90)
    return int(json.loads(done.stdout)["bytes_in"]) if done.returncode == 0 else -1


@pytest.fixture(scope="module")
def exit_(backend: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Vantage]:
    """Its API listens on all IPv4 addresses, and so do its metrics, and another server of the host."""
    changes = {
        "api": {"listen": f"0.0.0.0:{API}", "insecure_http": True},
        "metrics": {"listen": f"0.0.0.0:{METRICS}"},
    }
    with vantage_on(backend, tmp_path_factory.mktemp("api"), **changes) as made, ExitStack() as stack:
        server = ("python3", "-m", "http.server", "--bind", "0.0.0.0", str(OTHER))  # noqa: S104 (in a namespace)
        other = made.world.exit.start(*server)
        stack.callback(other.wait, timeout=60)
        stack.callback(other.kill)
        until(lambda: asked(made.world.exit, f"http://127.0.0.1:{OTHER}/") == 0, "another server of the host serves")
        yield made


@pytest.mark.black_box
@pytest.mark.parametrize("address", [EXIT_IP, INSIDE])
def test_the_status_of_a_session_through_its_tunnel(exit_: Vantage, address: str) -> None:
    """A client with all of its traffic in the tunnel gets its session's status, as often as it asks, through it."""
    client = exit_.exit.members[0]
    opened, bearer = client.session, exit_.appliance.token("alice")
    before = exit_.appliance.transfer(client.key).received
    for _ in range(3):
        assert status(client.client, f"http://{address}:{API}", opened, bearer) >= 0
    assert exit_.appliance.transfer(client.key).received > before


@pytest.mark.black_box
@pytest.mark.parametrize("address", [EXIT_IP, INSIDE])
def test_the_metrics_and_other_servers_are_refused(exit_: Vantage, address: str) -> None:
    """At the same addresses clients reach neither the metrics nor another server, which a host outside does reach."""
    client = exit_.exit.members[0].client.space
    for port in (METRICS, OTHER):
        assert asked(client, f"http://{address}:{port}/metrics") == REFUSED
        assert asked(exit_.world.internet, f"http://{EXIT_IP}:{port}/metrics") == 0


@pytest.mark.parametrize("listen", [f"{INSIDE}:{API}", pytest.param(f"[{INSIDE6}]:{API}", marks=pytest.mark.long)])
@pytest.mark.black_box
def test_an_api_in_the_tunnel_is_reached_from_the_tunnel_alone(once: str, tmp_path: Path, listen: str) -> None:
    """One that listens at the exit's address in the tunnel is reached by clients inside, and by no neighbour of the
    host; metrics there are reached from the host alone."""
    version = 6 if listen.startswith("[") else 4
    metrics = listen.replace(str(API), str(METRICS))
    api = {"listen": listen, "insecure_http": True}
    with vantage_on(once, tmp_path, api=api, metrics={"listen": metrics}) as exit_:
        client = exit_.exit.members[0].client.space
        assert asked(client, f"http://{listen}/healthz") == 0
        assert asked(client, f"http://{metrics}/metrics") == REFUSED
        assert asked(exit_.world.exit, f"http://{metrics}/metrics") == 0
        gateway = mac_of(exit_.world.exit, "wan")
        for address in (INSIDE_OF[version], EXIT_OF[version]):  # the second one is answered, by a reset
            syn = tcp(WEB_OF[version], address, token(), API)
            send(exit_.world.internet, "net0", syn.whole(), to_mac=gateway)
        until(lambda: any(str(s.source) == EXIT_OF[version] for s in exit_.far.packets()), "the second one is answered")
        assert not any(str(seen.source) == INSIDE_OF[version] for seen in exit_.far.packets())


@pytest.mark.black_box
def test_all_addresses_are_those_of_both_ip_versions(once: str, tmp_path: Path) -> None:
    """An API that listens on [::] is reached over both IP versions, at the public addresses and at those in the tunnel,
    also at the IPv6 ones where the address that clients dial is an IPv4 one; its neighbour on the host is not."""
    api, metrics = {"listen": f"[::]:{API}", "insecure_http": True}, {"listen": f"[::]:{METRICS}"}
    with vantage_on(once, tmp_path, api=api, metrics=metrics) as exit_:
        client = exit_.exit.members[0]
        bearer = exit_.appliance.token("alice")
        for host in (f"[{EXIT_IP6}]", f"[{INSIDE6}]", EXIT_IP, INSIDE):
            assert status(client.client, f"http://{host}:{API}", client.session, bearer) >= 0
            assert asked(client.client.space, f"http://{host}:{METRICS}/metrics") == REFUSED


@contextmanager
def behind_a_nat(backend: str, directory: Path, **changes: dict[str, object]) -> Iterator[tuple[Appliance, Client]]:
    """An exit whose public address is its provider's NAT's, with a client in it."""
    provider = PROVIDER.format(nats=NATS, nats6=NATS6, exit_ip=EXIT_IP, exit_ip6=EXIT_IP6)
    with (
        new_world(1) as world,
        clients_of(world, directory) as clients,
        Appliance(world, backend, directory / "appliance", changes).serving() as appliance,
    ):
        world.clients[0].run("nft", "-f", "-", text_input=provider)
        yield appliance, clients[0]


@pytest.mark.black_box
@pytest.mark.parametrize(("public_ip", "everywhere"), [(NATS, "0.0.0.0"), (NATS6, "[::]")], ids=["IPv4", "IPv6"])  # noqa: S104 (in a namespace)
def test_a_nats_address_leads_to_the_api(backend: str, tmp_path: Path, public_ip: str, everywhere: str) -> None:
    """Where the address that clients dial is a NAT's, the API is reached at it from inside, over TLS too, and nothing
    else of the host."""
    cert, key = self_signed(tmp_path, "exit")
    api = {"listen": f"{everywhere}:8443", "tls_cert": str(cert), "tls_key": str(key)}
    metrics = {"listen": f"{everywhere}:{METRICS}"}
    with behind_a_nat(backend, tmp_path, node={"public_ip": public_ip}, api=api, metrics=metrics) as (exit_, client):
        bearer = exit_.token()
        opened = exit_.open(bearer)
        assert opened["public_ip"] == public_ip
        client.wg_quick(opened["wg_config"])
        host = f"[{public_ip}]" if ":" in public_ip else public_ip
        assert status(client, f"https://{host}:8443", opened["id"], bearer) >= 0
        assert asked(client.space, f"http://{host}:{METRICS}/metrics", "--max-time", "3") != 0


@pytest.mark.parametrize("endpoint", [NATS, pytest.param(NATS6, marks=pytest.mark.long)], ids=["IPv4", "IPv6"])
def test_what_clients_dial_leads_to_the_api(once: str, tmp_path: Path, endpoint: str) -> None:
    """With `endpoint` clients dial another address than the public one, and reach the API there from inside too."""
    cert, key = self_signed(tmp_path, "exit")
    changes = {
        "api": {"listen": "[::]:8443", "tls_cert": str(cert), "tls_key": str(key)},
        "wireguard": {"endpoint": endpoint},
    }
    with behind_a_nat(once, tmp_path, **changes) as (exit_, client):
        bearer = exit_.token()
        opened = exit_.open(bearer)
        host = f"[{endpoint}]" if ":" in endpoint else endpoint
        assert opened["public_ip"] == EXIT_IP
        assert f"Endpoint = {host}:51820" in opened["wg_config"].splitlines()
        client.wg_quick(opened["wg_config"])
        for dialled in (host, EXIT_IP):
            assert status(client, f"https://{dialled}:8443", opened["id"], bearer) >= 0
        assert asked(client.space, f"https://{host}:{OTHER}/", "--max-time", "3") != 0


@pytest.mark.parametrize("nat", [False, pytest.param(True, marks=pytest.mark.long)], ids=["the host's", "a NAT's"])
def test_a_reverse_proxy_is_reached_where_it_is_let(once: str, tmp_path: Path, nat: bool) -> None:
    """A proxy on the host's port 443 is reached from inside the tunnel with `proxy_in_tunnel`, and nothing else is."""
    node, api = {"public_ip": NATS} if nat else {}, {"proxy_in_tunnel": True}
    with behind_a_nat(once, tmp_path, node=node, api=api) as (exit_, client), ExitStack() as stack:
        for port in (443, OTHER):
            server = exit_.space.start("python3", "-m", "http.server", "--bind", "0.0.0.0", str(port))  # noqa: S104 (in a namespace)
            stack.callback(server.wait, timeout=60)
            stack.callback(server.kill)
            until(lambda port=port: asked(exit_.space, f"http://127.0.0.1:{port}/") == 0, "it serves")  # type: ignore[misc]  # mypy infers no lambda with a default
        client.wg_quick(exit_.open(exit_.token())["wg_config"])
        client.address_seen()
        for address in (NATS if nat else EXIT_IP, INSIDE):
            assert asked(client.space, f"http://{address}:443/") == 0
            assert asked(client.space, f"http://{address}:{OTHER}/", "--max-time", "3") != 0
