"""What only a real device can be asked, on top of the contract: other interfaces, ports, packets, events."""

from __future__ import annotations

import asyncio
import secrets
import socket
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from appliance.domain.errors import TunnelError
from appliance.network.wireguard import keys
from appliance.network.wireguard.link_events import link_events
from appliance.network.wireguard.tunnel import DeviceChange, LinkChange, Peer, PutPeer
from tests.support.netns import Namespace, new_namespace
from tests.support.tunnel_contract import (
    CLIENT_PRIVATE_KEY,
    PORT,
    PRIVATE_KEY,
    SECONDS_A_WAIT,
    UP,
    TunnelContract,
    peer,
    prefix,
    present,
    run,
    until,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from appliance.network.wireguard.tunnel import Tunnel
    from tests.support.tunnel_contract import Exchange

IPV6 = Path("/proc/sys/net/ipv6/conf")


class RealTunnelContract(TunnelContract):
    """Each test runs in a network namespace of its own. A subclass gives `tunnel_named`."""

    @pytest.fixture
    def namespace(self) -> Iterator[Namespace]:
        with new_namespace() as space, space.entered():
            yield space

    @pytest.fixture
    def name(self, namespace: Namespace) -> str:  # noqa: ARG002 - nothing here may touch the host's interfaces
        """An interface name nobody has: wireguard-go's sockets are shared by all namespaces."""
        return f"wgc{secrets.token_hex(4)}"

    @pytest.fixture
    def make_tunnel(self, name: str, tunnel_named: Callable[[str], Tunnel]) -> Callable[[], Tunnel]:
        return lambda: tunnel_named(name)

    @pytest.fixture
    def exchange(self, name: str, namespace: Namespace, tunnel_named: Callable[[str], Tunnel]) -> Exchange:
        client_name = f"{name}c"

        async def shake_hands(tunnel: Tunnel, client_private_key: bytes) -> None:
            client_public_key = keys.public_key(client_private_key)
            client = tunnel_named(client_name)
            exit_key = keys.public_key(PRIVATE_KEY)
            try:
                await client.change_link(UP)
                await client.configure(DeviceChange(private_key=client_private_key))
                await client.apply([PutPeer(Peer(exit_key, frozenset({prefix("0.0.0.0/0")})))])
                # A client dials, which an exit never does, so the tunnel cannot be told an endpoint.
                dial = ("endpoint", f"127.0.0.1:{PORT}", "persistent-keepalive", "1")
                done = namespace.run("wg", "set", client_name, "peer", keys.encode(exit_key), *dial)
                assert done.returncode == 0, done.stderr

                async def shaken() -> bool:
                    return (await tunnel.dump()).peers[client_public_key].last_handshake_ns > 0

                await until(shaken, "a handshake")
            finally:
                await client.delete()
                await client.close()

        return shake_hands

    def test_where_a_client_was_seen(self, make_tunnel: Callable[[], Tunnel], exchange: Exchange) -> None:
        """The address that a client shook hands from is its peer's endpoint, until the peer is put fresh."""
        client = Peer(keys.public_key(CLIENT_PRIVATE_KEY), frozenset({prefix("10.9.0.2/32")}))

        async def body(tunnel: Tunnel) -> None:
            await tunnel.change_link(UP)
            await tunnel.configure(DeviceChange(PRIVATE_KEY, PORT))
            await tunnel.apply([PutPeer(client)])
            await exchange(tunnel, CLIENT_PRIVATE_KEY)
            seen = (await tunnel.dump()).peers[client.public_key].endpoint
            assert seen is not None
            assert (seen.address, seen.port > 0, seen.scope_id) == (bytes([127, 0, 0, 1]), True, 0)
            await tunnel.apply([PutPeer(client, fresh=True)])
            assert (await tunnel.dump()).peers[client.public_key].endpoint is None

        run(make_tunnel, body)

    def test_a_port_in_use_is_refused(self, make_tunnel: Callable[[], Tunnel]) -> None:
        """A port somebody else has is refused on an interface that is up, and says so."""

        async def body(tunnel: Tunnel) -> None:
            await tunnel.change_link(UP)
            with closing(socket.socket(socket.AF_INET, socket.SOCK_DGRAM)) as other:
                other.bind(("0.0.0.0", PORT))  # noqa: S104 - in a namespace that has loopback only
                with pytest.raises(TunnelError, match=r"(?i)address already in use"):
                    await tunnel.configure(DeviceChange(PRIVATE_KEY, PORT))
            await tunnel.configure(DeviceChange(listen_port=PORT))
            assert (await tunnel.dump()).listen_port == PORT

        run(make_tunnel, body)

    def test_an_interface_of_another_kind_is_not_used(
        self, make_tunnel: Callable[[], Tunnel], name: str, namespace: Namespace
    ) -> None:
        """An interface of our name that is not WireGuard's is neither used nor deleted."""
        assert namespace.run("ip", "link", "add", name, "type", "veth", "peer", "name", "other0").returncode == 0

        async def body(tunnel: Tunnel) -> None:
            for refused in (tunnel.link(), tunnel.change_link(UP), tunnel.delete(), tunnel.dump()):
                with pytest.raises(TunnelError, match=name):
                    await refused
            assert namespace.run("ip", "link", "del", name).returncode == 0

        run(make_tunnel, body)

    def test_the_interface_has_ipv6_where_the_host_has_not(self, make_tunnel: Callable[[], Tunnel]) -> None:
        """Where the host has IPv6 switched off, the interface has it all the same; the others stay without."""
        for which in ("all", "default"):
            (IPV6 / which / "disable_ipv6").write_text("1")
        addresses = frozenset({prefix("fd00::1/64")})

        async def body(tunnel: Tunnel) -> None:
            await tunnel.change_link(LinkChange(create=True, add_addresses=addresses, up=True))
            found = await tunnel.link()
            assert found is not None
            assert found.addresses == addresses
            assert [(IPV6 / which / "disable_ipv6").read_text().strip() for which in ("all", "default", "lo")] == [
                "1"
            ] * 3

        run(make_tunnel, body)

    def test_ipv6_address_is_usable_at_once(self, make_tunnel: Callable[[], Tunnel]) -> None:
        """An IPv6 address does not sit through duplicate address detection first."""

        async def body(tunnel: Tunnel) -> None:
            await tunnel.change_link(LinkChange(create=True, add_addresses=frozenset({prefix("fd00::1/64")}), up=True))
            with closing(socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)) as bound:
                bound.bind(("fd00::1", 0))

        run(make_tunnel, body)

    def test_changes_of_the_interface_wake_its_watcher(
        self, make_tunnel: Callable[[], Tunnel], name: str, namespace: Namespace
    ) -> None:
        """Whatever happens to the interface or its addresses wakes its watcher."""

        async def body(tunnel: Tunnel) -> None:
            await tunnel.change_link(UP)
            with link_events(name) as events:
                for command in (
                    ["ip", "addr", "add", "10.9.0.1/24", "dev", name],
                    ["ip", "link", "set", name, "mtu", "1300"],
                    ["ip", "link", "set", name, "down"],
                    ["ip", "link", "del", name],
                ):
                    assert namespace.run(*command).returncode == 0
                    async with asyncio.timeout(SECONDS_A_WAIT):
                        await events.happened()

        run(make_tunnel, body)

    def test_changes_of_others_wake_no_watcher(
        self, make_tunnel: Callable[[], Tunnel], name: str, namespace: Namespace
    ) -> None:
        """What happens to other interfaces wakes nobody."""

        async def body(tunnel: Tunnel) -> None:
            with link_events(name) as events, link_events("other0") as others:
                watch = asyncio.ensure_future(events.happened())
                for command in (
                    ["ip", "link", "add", "other0", "type", "veth", "peer", "name", "other1"],
                    ["ip", "addr", "add", "10.8.0.1/24", "dev", "other0"],
                ):
                    assert namespace.run(*command).returncode == 0
                    async with asyncio.timeout(SECONDS_A_WAIT):
                        await others.happened()
                assert not watch.done()
                await tunnel.change_link(UP)
                async with asyncio.timeout(SECONDS_A_WAIT):
                    await watch

        run(make_tunnel, body)

    def test_an_interface_deleted_by_another_is_missed(
        self, make_tunnel: Callable[[], Tunnel], name: str, namespace: Namespace
    ) -> None:
        """An interface somebody else deleted is missed by link(), and can be made again."""

        async def body(tunnel: Tunnel) -> None:
            await tunnel.change_link(UP)
            await tunnel.apply([PutPeer(peer(1, "10.9.0.2/32"))])
            assert namespace.run("ip", "link", "del", name).returncode == 0
            assert await tunnel.link() is None
            with pytest.raises(TunnelError):
                await tunnel.dump()
            await tunnel.change_link(UP)
            assert (await present(tunnel)).up
            assert (await tunnel.dump()).peers == {}

        run(make_tunnel, body)
