"""Implements the steps of the self-test."""

from __future__ import annotations

from contextlib import ExitStack, closing
from ipaddress import ip_address, ip_network
from typing import TYPE_CHECKING, Any

from appliance.client.tunnel import links, wg_config
from appliance.client.tunnel.namespace import Namespace
from appliance.domain.errors import HostError
from appliance.network.firewall.chains.destinations import PRIVATE
from appliance.network.interfaces import host_interfaces
from appliance.network.wireguard import keys, tunnel_mtu
from appliance.network.wireguard.backend import choose_device, dump_existing
from appliance.network.wireguard.client_config import Endpoint
from appliance.network.wireguard.tunnel import LinkChange, Prefix, RemotePeer
from appliance.ops.selftest import cleanup, plan, transfer
from appliance.ops.selftest.run import SelfTestStep
from appliance.ops.selftest.waiting import answer_within

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping, Sequence

    from appliance.client.signals import Interruption
    from appliance.config.load import Settings
    from appliance.ops.selftest.api_client import LocalApi
    from appliance.ops.selftest.temporary_account import TemporaryAccount

HANDSHAKE_S = 12.0  # a device retries a handshake after 5 s (REKEY_TIMEOUT of the WireGuard paper)
POLL_S = 0.05
KEEPALIVE_S = 25  # whatever the file says: it also makes the device start the handshake at once
STATUS_POLL_S = 1.0  # a tier may allow as little as one request per second
LONGEST_INTERVAL_S = 60  # a longer meter.interval is not waited for
COUNTED_SLACK_S = 15.0
CHUNKS = 128

FIGURES = {"bytes_in": int, "bytes_out": int}
DOCTOR = "try wg-appliance doctor"


class SelfTest:
    """Defines the steps of a self-test, and holds the state that they share."""

    def __init__(
        self, settings: Settings, api: LocalApi, account: TemporaryAccount, interruption: Interruption
    ) -> None:
        self._settings = settings
        self._exit = settings.wireguard
        self._api = api
        self._account = account
        self._interruption = interruption
        self._names = plan.names(settings.wireguard.interface)
        self._private_key = keys.generate_private_key()
        self._spaces = ExitStack()
        self._client: Namespace
        self._target: Namespace
        self._addresses: Sequence[plan.LinkAddresses]  # IPv4 first
        self._own: Collection[plan.IPAddress]
        self._token: str
        self._session: Mapping[str, Any]

    def steps(self) -> Sequence[SelfTestStep]:
        return (
            SelfTestStep("api", self._find_api, f"start wg-appliance serve, or see its log; else {DOCTOR}"),
            SelfTestStep("host", self._prepare_host, DOCTOR),
            SelfTestStep("account", self._open_account, DOCTOR),
            SelfTestStep("session", self._open_session, f"see wg-appliance node status; else {DOCTOR}"),
            SelfTestStep("tunnel", self._make_tunnel, DOCTOR),
            SelfTestStep("handshake", self._shake_hands, DOCTOR),
            SelfTestStep("traffic", self._carry, DOCTOR),
            SelfTestStep("counted", self._see_counted, f"see the server's log; else {DOCTOR}"),
            SelfTestStep("closed", self._close_session, f"see the server's log; else {DOCTOR}"),
        )

    def clearing(self) -> SelfTestStep:
        return SelfTestStep("cleared", self._clear, "run it again, which clears what is left")

    # The steps ---------------------------------------------------------------------------------------

    def _find_api(self) -> str:
        self._api.ask("GET", "/readyz").require(200)
        return f"ready at {self._settings.api.url}"

    def _prepare_host(self) -> str:
        with self._interruption.allowed(False):
            self._clear()
        families = [plan.IPV4, plan.IPV6] if self._has_ipv6 else [plan.IPV4]
        interfaces = [interface for _, interface in host_interfaces(without=self._exit.interface)]
        self._own = [interface.ip for interface in interfaces]
        avoid = [*self._reserved(), *(interface.network for interface in interfaces), *links.routed()]
        self._addresses = [plan.choose_addresses(family, avoid) for family in families]
        self._client = self._new_namespace()
        self._target = self._new_namespace()
        near = [links.Ends(a.client_gateway, a.client, a.family.prefix_length) for a in self._addresses]
        far = [links.Ends(a.target_gateway, a.target, a.family.prefix_length) for a in self._addresses]
        links.join(self._client, self._names.client_link, near)
        links.join(self._target, self._names.target_link, far)
        for a in self._addresses:
            self._target.run(links.add_route, a.family.everything, links.UPLINK, a.target_gateway)
        return f"client {self._ipv4.client}, target {' and '.join(str(a.target) for a in self._addresses)}"

    def _open_account(self) -> str:
        tier = plan.roomiest_tier(self._settings.tiers)
        with self._interruption.allowed(False):
            self._token = self._account.open_account(tier)
        return f"temporary, tier {tier}"

    def _open_session(self) -> str:
        public_key = keys.encode(keys.public_key(self._private_key))
        body = {"region": self._settings.node.region, "client_public_key": public_key, "ipv6": self._has_ipv6}
        answer = self._api.ask("POST", "/v1/sessions", self._token, body)
        if answer.status == 401:
            # The API's own message would not say that the token is in another store than the API's.
            raise HostError(f"the API refuses a token made in {self._settings.node.state_dir}: is that its state_dir?")
        self._session = session = answer.require(201, {"id": str, "public_ip": str, "wg_config": str})
        return f"{session['id']}, leaves from {session['public_ip']}"

    def _make_tunnel(self) -> str:
        config = wg_config.parse(self._session["wg_config"], ipv6=self._has_ipv6)
        server = RemotePeer(config.server_key, Endpoint(self._dialled, self._exit.listen_port), KEEPALIVE_S)
        addresses = frozenset(Prefix(each.packed, each.max_prefixlen) for each in config.addresses)
        up = LinkChange(create=True, mtu=config.mtu or tunnel_mtu.MOST, add_addresses=addresses, up=True)

        def make() -> str:
            device, _ = choose_device("auto", self._names.tunnel)
            with closing(device):
                device.change_link(up)
                if self._dialled != self._ipv4.client_gateway:
                    links.add_route(ip_network(self._dialled), links.UPLINK, self._ipv4.client_gateway)
                for a in self._addresses:
                    links.add_route(a.family.everything, self._names.tunnel)
                device.dial(server, self._private_key)
            return f"{device.backend}, dials {self._dialled} port {self._exit.listen_port}"

        return self._client.run(make)

    def _shake_hands(self) -> str:
        def shaken() -> bool | None:
            peers = self._client.run(dump_existing, self._names.tunnel).peers.values()
            return True if any(peer.last_handshake_ns for peer in peers) else None

        if answer_within(HANDSHAKE_S, shaken, POLL_S) is None:
            raise HostError(
                f"no answer from {self._dialled} port {self._exit.listen_port} in {HANDSHAKE_S:g} s: "
                f"this host's firewall may drop UDP that comes in on {self._names.client_link}"
            )
        return "the exit answers"

    def _carry(self) -> str:
        seen = " and ".join([self._carry_to(a) for a in self._addresses])
        return f"{CHUNKS * transfer.CHUNK // 1024} KiB there and back, seen from {seen}"

    def _carry_to(self, addresses: plan.LinkAddresses) -> str:
        try:
            seen = transfer.carry(self._client, self._target, addresses.target, CHUNKS)
        except transfer.NotReached as error:
            raise HostError(
                f"{error}: this host's firewall may drop what is forwarded from {self._exit.interface} "
                f"to {self._names.target_link}"
            ) from error
        # The public address does not belong to the test's link: packets leave by it with its own.
        if seen != str(wanted := addresses.target_gateway):
            raise HostError(
                f"the target sees {seen}, and should see {wanted}: "
                "another address translation of this host may come first"
            )
        return seen

    def _see_counted(self) -> str:
        interval = self._settings.meter.interval
        if interval > LONGEST_INTERVAL_S:
            return f"looked at when the session is closed, as meter.interval is {interval} s"
        last: list[Mapping[str, Any]] = []

        def counted() -> Mapping[str, Any] | None:
            answer = self._api.ask("GET", self._session_path, self._token)
            if answer.status == 429:
                return None
            found = answer.require(200, FIGURES)
            last[:] = [found]
            return found if self._has_all(found) else None

        if (found := answer_within(interval + COUNTED_SLACK_S, counted, STATUS_POLL_S)) is None:
            raise HostError(f"{_figures(last[0]) if last else 'nothing'} within {interval + COUNTED_SLACK_S:g} s")
        return _figures(found)

    def _close_session(self) -> str:
        final = self._api.ask("DELETE", self._session_path, self._token).require(200, FIGURES)
        if not self._has_all(final):
            raise HostError(f"the final figures lack some of what was sent: {_figures(final)}")
        if keys.public_key(self._private_key) in dump_existing(self._exit.interface).peers:
            raise HostError("the session is closed, and its peer is still there")
        return f"its peer is gone; {_figures(final)}"

    def _clear(self) -> str:
        """Removes what this run, or a killed one, has made."""
        with ExitStack() as all_of_it:
            # Callbacks run in the opposite order, all of them even if one fails.
            all_of_it.callback(self._account.clear)
            all_of_it.callback(cleanup.clear, self._names)
            all_of_it.callback(self._spaces.close)
        return "nothing is left behind"

    # What they need ------------------------------------------------------------------------------------

    @property
    def _session_path(self) -> str:
        return f"/v1/sessions/{self._session['id']}"

    def _new_namespace(self) -> Namespace:
        space = Namespace()
        self._spaces.callback(space.close)
        return space

    @property
    def _ipv4(self) -> plan.LinkAddresses:
        return self._addresses[0]

    @property
    def _has_ipv6(self) -> bool:
        return self._exit.subnet6 is not None

    @property
    def _public_ip(self) -> plan.IPAddress:
        return ip_address(self._session["public_ip"])

    @property
    def _dialled(self) -> plan.IPAddress:
        return plan.dialled(self._public_ip, self._ipv4, self._own)

    def _reserved(self) -> Iterator[plan.IPNetwork]:
        """Yields the networks that the exit blocks or uses itself."""
        egress, public_ip = self._settings.egress, self._settings.node.public_ip
        yield from PRIVATE if egress.block_private else ()
        yield from egress.extra_block
        yield self._exit.subnet
        if self._exit.subnet6 is not None:
            yield self._exit.subnet6
        if public_ip is not None:  # behind a 1:1 NAT the host has no route to it
            yield ip_network(public_ip)

    def _has_all(self, session: Mapping[str, Any]) -> bool:
        least: int = min(session["bytes_in"], session["bytes_out"])
        return least >= len(self._addresses) * CHUNKS * transfer.CHUNK


def _figures(session: Mapping[str, Any]) -> str:
    return f"{session['bytes_in']} bytes in, {session['bytes_out']} bytes out"
