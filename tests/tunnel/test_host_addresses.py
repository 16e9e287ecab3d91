"""The host's addresses and default routes change while it serves: what new sessions are told, and what clients' packets
leave with, follow."""

from __future__ import annotations

import itertools
import json
import time
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

import pytest

from tests.support.egress.capture import Capture, Seen
from tests.support.egress.packets import token, udp
from tests.support.egress.vantage import EXIT_OF, WEB_OF, Vantage, vantage_on
from tests.support.tunnel.namespace import Namespace
from tests.support.tunnel.waiting import until
from tests.support.tunnel.world import EXIT_IP, EXIT_IP6, WEB_IP, WEB_IP6

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

pytestmark = pytest.mark.black_box

# Seldom: whatever is taken over sooner was seen in an event.
SELDOM = {"interval": "60s"}
AGAIN_SECONDS = 2.0
NEW, NEW6 = "203.0.113.5", "2001:db8:2::5"
OWN, OWN6 = "203.0.113.7", "2001:db8:2::7"  # the configured address of one exit, for as long as a test gives it
LINK2, LINK2_6, FAR2, FAR2_6 = "192.0.2.1", "2001:db8:3::1", "192.0.2.10", "2001:db8:3::10"
LINK2_OF, FAR2_OF = {4: LINK2, 6: LINK2_6}, {4: FAR2, 6: FAR2_6}

AS_FOUND = f"""
address flush dev wan scope global
address add {EXIT_IP}/24 dev wan
address add {EXIT_IP6}/64 dev wan nodad
route replace default via {WEB_IP}
route replace ::/0 via {WEB_IP6}
"""


class Watched:
    """An exit whose host changes. Clients reach it at an address that stays, whatever becomes of its public one."""

    def __init__(self, vantage: Vantage) -> None:
        self.vantage = vantage
        self.world, self.appliance = vantage.world, vantage.appliance
        self._ports = itertools.count(42000)
        self.token = self.appliance.token("carol")
        for number, inside in enumerate(vantage.clients, start=1):
            (key,) = inside.space.run("wg", "show", inside.interface, "peers").stdout.split()
            here = f"198.51.100.{16 * number + 1}:51820"
            inside.space.run("wg", "set", inside.interface, "peer", key, "endpoint", here)

    def restart(self, **node: object) -> None:
        """Tunnels stay up meanwhile."""
        self.appliance.stop()
        self.appliance.configure(node=dict(node))
        self.appliance.start()

    def ip(self, *lines: str) -> None:
        self.world.exit.run("ip", "-batch", "-", text_input="\n".join(lines) + "\n")

    def told(self) -> str:
        """What a session that is opened now is told, in its answer and in its file; empty where none can be."""
        answer = self.appliance.api("POST", "/v1/sessions", {"region": self.appliance.region}, self.token)
        if answer.status == 503:
            return ""  # between two of the host's changes nothing could leave
        assert answer.status == 201, answer.body
        opened = answer.body
        self.appliance.api("DELETE", f"/v1/sessions/{opened['id']}", token=self.token)
        endpoint = opened["public_ip"] if ":" not in opened["public_ip"] else f"[{opened['public_ip']}]"
        assert f"Endpoint = {endpoint}:51820" in opened["wg_config"]
        return str(opened["public_ip"])

    def leaves_with(self, version: int, far: Capture, to: str, port: int = 41000) -> str:
        """The address that a client's packet has where it comes out; of a flow that may have begun before.

        It is sent again: as the host's links and routes change, and are put back, one is lost now and then.
        """
        packet = udp(self.vantage.clients[0].address[version], to, token(), source_port=port)

        def comes_out() -> list[Seen]:
            self.vantage.send(packet)
            with suppress(TimeoutError):
                return [far.await_carrying(packet.carried, AGAIN_SECONDS)]
            return []

        return str(until(comes_out, "the packet comes out")[0].source)

    def new_flows_leave_with(self, address: str, version: int = 4) -> int:
        """Waits until one does; its port."""

        def leaves() -> bool:
            return self.leaves_with(version, self.vantage.far, WEB_OF[version], next(self._ports)) == address

        until(leaves, f"a new flow leaves with {address}")
        return next(self._ports) - 1

    def comes_to_leave_with(self, version: int, address: str, far: Capture, to: str, port: int = 41000) -> None:
        """One and the same flow does in the end."""

        def leaves() -> bool:
            packet = udp(self.vantage.clients[0].address[version], to, token(), source_port=port)
            self.vantage.send(packet)
            time.sleep(0.05)
            return [str(seen.source) for seen in far.carrying(packet.carried)] == [address]

        until(leaves, f"the flow leaves with {address}")

    def doctor(self) -> tuple[str, str]:
        """What it says of the public address."""
        checks = json.loads(self.appliance.attempt("doctor", "--json").stdout)["checks"]
        (found,) = [check for check in checks if check["check"] == "public-address"]
        return found["status"], found["what"]

    def value(self, sample: str) -> float:
        shown = self.world.exit.run("curl", "-sq", "http://127.0.0.1:9586/metrics").stdout
        return next((float(line.split()[-1]) for line in shown.splitlines() if line.startswith(f"{sample} ")), -1.0)


@contextmanager
def second_link(exit_: Watched, name: str) -> Iterator[Capture]:
    """Another link of the host's, with somebody else's network behind it; what comes out there."""
    far = Namespace(f"{exit_.world.internet.name}2")
    try:
        exit_.ip(
            f"link add name {name} type veth peer name net1 netns {far.name}",
            f"address add {LINK2}/24 dev {name}",
            f"address add {LINK2_6}/64 dev {name} nodad",
            f"link set {name} up",
        )
        far.run("sysctl", "-qw", "net.ipv6.conf.net1.accept_dad=0", "net.ipv6.conf.net1.disable_ipv6=0")
        far.run("ip", "address", "add", f"{FAR2}/24", "dev", "net1")
        far.run("ip", "address", "add", f"{FAR2_6}/64", "dev", "net1", "nodad")
        far.run("ip", "link", "set", "net1", "up")
        with Capture(far, "net1") as seen:
            yield seen
    finally:
        exit_.world.exit.run("ip", "link", "del", name, check=False)
        far.remove()


@pytest.fixture(scope="module")
def shared(backend: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Watched]:
    directory = tmp_path_factory.mktemp("exit")
    with vantage_on(backend, directory, meter=dict(SELDOM), wireguard={"keep_on_exit": True}) as vantage:
        yield Watched(vantage)


@pytest.fixture
def exit_(shared: Watched, request: pytest.FixtureRequest) -> Iterator[Watched]:
    """As it was found again afterwards."""
    before = len(shared.appliance.log())
    yield shared
    request.node.add_report_section("teardown", "log of the appliance", shared.appliance.log()[before:])
    shared.ip(*AS_FOUND.strip().splitlines())
    for version, address in EXIT_OF.items():
        shared.new_flows_leave_with(address, version)
        shared.comes_to_leave_with(version, address, shared.vantage.far, WEB_OF[version])


@pytest.fixture(scope="module")
def configured(shared: Watched) -> None:
    """From the first test that asks for it on: the last ones of this file."""
    shared.restart(public_ip=OWN)


@pytest.fixture
def fixed(configured: None, exit_: Watched) -> Watched:  # noqa: ARG001 - it is restarted once for all
    """Its public address is configured, and not there at first."""
    return exit_


def test_a_changed_address_is_taken_over(exit_: Watched, show: Callable[[str], None]) -> None:
    """New sessions are told the new address and packets leave with it, of flows that are under way too (within a second
    on a host that has nothing else to do); sessions that are open keep what they were told. It is logged, and counted.
    """
    far, session = exit_.vantage.far, exit_.vantage.exit.members[0].session
    assert exit_.leaves_with(4, far, WEB_IP) == EXIT_IP
    changes, logged = exit_.value("wg_appliance_public_address_changes_total"), len(exit_.appliance.log())
    began = time.monotonic()
    exit_.ip(
        f"address del {EXIT_IP}/24 dev wan",
        f"address add {NEW}/24 dev wan",
        f"route replace default via {WEB_IP}",
    )
    until(lambda: exit_.told() == NEW, "a new session is told the new address", every=0.05)
    show(f"told {time.monotonic() - began:.2f} s after the change")
    until(lambda: exit_.leaves_with(4, far, WEB_IP) == NEW, "the flow of before leaves with it", every=0.05)
    show(f"the flow of before leaves with it {time.monotonic() - began:.2f} s after the change")
    assert exit_.leaves_with(4, far, WEB_IP, port=41001) == NEW
    kept = exit_.appliance.live_sessions()
    assert next(one["public_ip"] for one in kept if one["id"] == session) == EXIT_IP
    lines = [line for line in exit_.appliance.log()[logged:].splitlines() if NEW in line and EXIT_IP in line]
    assert len(lines) == 1
    assert f"the public address is {NEW} now, it was {EXIT_IP}" in lines[0]
    assert exit_.value("wg_appliance_public_address_changes_total") == changes + 1
    assert exit_.value(f'wg_appliance_public_address_info{{address="{NEW}"}}') == 1


@pytest.mark.parametrize(
    "routes",
    [
        (f"route replace default via {FAR2}", f"route replace ::/0 via {FAR2_6}"),
        (
            *(f"route add {half} via {FAR2}" for half in ("0.0.0.0/1", "128.0.0.0/1")),
            *(f"route add {half} via {FAR2_6}" for half in ("::/1", "8000::/1")),
        ),
        (f"route add 192.0.0.0/4 via {FAR2}", f"route add 2001::/16 via {FAR2_6}"),
    ],
    ids=["whole", "halves", "pieces"],
)
def test_a_default_route_that_moves_is_followed(exit_: Watched, routes: tuple[str, ...]) -> None:
    """Both IP versions leave by the other link with its address, flows that are under way too; new sessions are told
    that."""
    far = exit_.vantage.far
    for version in (4, 6):
        assert exit_.leaves_with(version, far, WEB_OF[version]) == EXIT_OF[version]
    with second_link(exit_, "wan2") as far2:
        exit_.ip(*routes)
        until(lambda: exit_.told() == LINK2, "a new session is told the other link's address")
        for version, to in ((4, "198.18.0.9"), (6, "2001:db8:9::9")):
            exit_.comes_to_leave_with(version, LINK2_OF[version], far2, to)


def test_a_change_while_it_was_stopped_is_taken_over(exit_: Watched) -> None:
    """Flows that go on through the restart leave with the new address too."""
    far = exit_.vantage.far
    assert exit_.leaves_with(4, far, WEB_IP, port=41007) == EXIT_IP
    exit_.appliance.stop()
    exit_.ip(
        f"address del {EXIT_IP}/24 dev wan", f"address add {NEW}/24 dev wan", f"route replace default via {WEB_IP}"
    )
    exit_.appliance.start()
    assert exit_.told() == NEW
    exit_.comes_to_leave_with(4, NEW, far, WEB_IP, port=41007)


@pytest.mark.parametrize("version", [4, 6])
def test_each_link_has_its_own_address(exit_: Watched, version: int) -> None:
    """What a route sends by a second link leaves with that link's address, all else with the public one."""
    with second_link(exit_, "wan2") as far2:
        assert exit_.leaves_with(version, far2, FAR2_OF[version]) == LINK2_OF[version]
        assert exit_.leaves_with(version, exit_.vantage.far, WEB_OF[version]) == EXIT_OF[version]


def test_without_a_default_route_it_is_not_ready(exit_: Watched) -> None:
    """It is ready again by itself; new sessions are told what they were told before."""
    exit_.ip("route del default", "route del ::/0")
    # Between the two, only the one of the dialled IP version is missing, which is said in other words.
    until(lambda: "no default route" in str(exit_.appliance.api("GET", "/readyz").body), "it is not ready")
    assert exit_.appliance.api("GET", "/readyz").status == 503
    exit_.ip(f"route add default via {WEB_IP}", f"route add ::/0 via {WEB_IP6}")
    until(lambda: exit_.appliance.api("GET", "/readyz").status == 200, "it is ready")
    assert exit_.told() == EXIT_IP


def test_without_one_to_answer_by_it_is_not_ready(exit_: Watched) -> None:
    """Where the address that clients dial stands, and only its IP version's default route has gone; not for the other
    version's."""
    exit_.ip("route del ::/0")
    exit_.new_flows_leave_with(EXIT_IP)
    assert exit_.appliance.api("GET", "/readyz").status == 200
    exit_.ip(f"route add ::/0 via {WEB_IP6}", "route del default")
    until(lambda: exit_.appliance.api("GET", "/readyz").status == 503, "it is not ready")
    assert "no IPv4 default route" in str(exit_.appliance.api("GET", "/readyz").body)
    (line,) = [line for line in exit_.appliance.attempt("doctor").stdout.splitlines() if " uplink " in line]
    assert line.startswith("failed")
    exit_.ip(f"route add default via {WEB_IP}")
    until(lambda: exit_.appliance.api("GET", "/readyz").status == 200, "it is ready")


def test_links_that_come_and_go_all_the_time_cost_little(exit_: Watched, show: Callable[[str], None]) -> None:
    """A container's link, say, that goes up and down hundreds of times: a few ticks a second, and what else changes is
    taken over."""
    ticks = 'wg_appliance_tick_duration_seconds_count{kind="whole"}'
    exit_.ip("tuntap add dev flap0 mode tun")
    before, began = exit_.value(ticks), time.monotonic()
    # Not in one batch: wireguard-go ends when it cannot keep up with the host's links.
    flap = "i=0; while [ $i -lt 300 ]; do ip link set flap0 up; ip link set flap0 down; i=$((i+1)); done"
    exit_.world.exit.run("sh", "-c", flap)
    took, many = time.monotonic() - began, exit_.value(ticks) - before
    show(f"{many:.0f} ticks in {took:.1f} s")
    exit_.ip("link del flap0", f"address add {NEW}/24 dev wan", f"route replace default via {WEB_IP} src {NEW}")
    until(lambda: exit_.told() == NEW, "a new session is told the new address", every=0.05)
    assert many <= 6 * took + 5


def test_ipv6_leaves_with_an_address_that_lasts(exit_: Watched) -> None:
    """Neither a privacy address, which the host itself prefers, nor a deprecated one, nor a ULA; also where IPv6 is all
    there is, and new sessions are told it."""
    far, wan = exit_.vantage.far, exit_.world.exit
    wan.run("sysctl", "-qw", "net.ipv6.conf.wan.use_tempaddr=2")
    try:
        exit_.ip(
            "address flush dev wan scope global",
            "address add fd00:9::1/64 dev wan nodad",
            f"address add {NEW6}/64 dev wan nodad mngtmpaddr valid_lft 86400 preferred_lft 86400",
            "address add 2001:db8:2::dead/64 dev wan nodad preferred_lft 0",
            f"route replace ::/0 via {WEB_IP6}",
        )
        shown = until(
            lambda: wan.run("ip", "-6", "address", "show", "dev", "wan", "temporary").stdout, "a privacy address"
        )
        assert "2001:db8:2:" in shown
        until(lambda: exit_.told() == NEW6, "a new session is told the address that lasts")
        assert exit_.leaves_with(6, far, WEB_IP6, port=41002) == NEW6
    finally:
        wan.run("sysctl", "-qw", "net.ipv6.conf.wan.use_tempaddr=0")


def test_doctor_compares_with_what_the_server_uses(exit_: Watched) -> None:
    """While a server that hangs tells clients the old address, doctor says so; once it follows, all is well."""
    until(lambda: exit_.doctor() == ("ok", f"{EXIT_IP}, of the default route"), "all is well")
    with exit_.appliance.standing_still():
        exit_.ip(
            f"address del {EXIT_IP}/24 dev wan", f"address add {NEW}/24 dev wan", f"route replace default via {WEB_IP}"
        )
        assert exit_.doctor() == ("failed", f"the server tells clients {EXIT_IP}, this host now sends from {NEW}")
    until(lambda: exit_.doctor() == ("ok", f"{NEW}, of the default route"), "it follows")
    with exit_.appliance.standing_still():
        exit_.ip("address add 2001:db8:2::6/64 dev wan nodad", f"address del {EXIT_IP6}/64 dev wan")
        status, what = exit_.doctor()
        assert (status, EXIT_IP6 in what, "2001:db8:2::6" in what) == ("failed", True, True)


def test_another_tables_default_route_is_not_ours(exit_: Watched) -> None:
    """A default route of another VPN's table counts where a rule leads to it, and nowhere else."""
    with second_link(exit_, "vpn0"):
        exit_.ip(f"route add default via {FAR2} dev vpn0 table 51820")
        exit_.restart()
        assert exit_.told() == EXIT_IP
        exit_.ip("rule add iif lo lookup 51820 priority 99")  # for what the host itself sends
        try:
            until(lambda: exit_.told() == LINK2, "a new session is told the VPN's address")
        finally:
            exit_.ip("rule del priority 99")
        until(lambda: exit_.told() == EXIT_IP, "a new session is told the host's own address")


def test_a_host_without_a_default_route_is_told_so(exit_: Watched) -> None:
    """In one line, that names the key; a route of a table that no rule leads to is none."""
    with second_link(exit_, "vpn0"):
        exit_.ip(f"route add default via {FAR2} dev vpn0 table 51820", "route del default", "route del ::/0")
        exit_.appliance.stop()
        status, said = exit_.appliance.try_to_start()
        assert status == 1
        (line,) = [line for line in said.splitlines() if "node.public_ip" in line]
        assert "no default route" in line
        exit_.ip(f"route add default via {WEB_IP}")
        exit_.appliance.start()
        assert exit_.told() == EXIT_IP


def test_a_configured_address_that_comes_and_goes(fixed: Watched) -> None:
    """New flows leave with it as long as the host has it; when it goes, those too that left with it."""
    far = fixed.vantage.far
    assert fixed.leaves_with(4, far, WEB_IP) == EXIT_IP
    for _ in range(2):
        fixed.ip(f"address add {OWN}/24 dev wan")
        port = fixed.new_flows_leave_with(OWN)
        fixed.ip(f"address del {OWN}/24 dev wan")
        fixed.comes_to_leave_with(4, EXIT_IP, far, WEB_IP, port)
    assert fixed.told() == OWN
    log = fixed.appliance.log()
    assert f"the public address {OWN} is this host's own now" in log
    assert f"the public address {OWN} is no address of this host any more" in log


def test_a_configured_address_on_an_interface_of_its_own(fixed: Watched) -> None:
    """A failover address on the loopback leaves by the link that the kernel sends it by."""
    fixed.ip(f"address add {OWN}/32 dev lo")
    try:
        fixed.new_flows_leave_with(OWN)
    finally:
        fixed.ip(f"address del {OWN}/32 dev lo")


def test_an_upstream_vpn_has_its_own_address(fixed: Watched) -> None:
    """A VPN of the host's that takes its whole traffic: clients leave by it with the VPN's address, and what still goes
    by the link of the public address with that one."""
    far = fixed.vantage.far
    fixed.ip(f"address add {OWN}/24 dev wan")
    port = fixed.new_flows_leave_with(OWN)
    with second_link(fixed, "vpn0") as far2:
        fixed.ip(*(f"route add {half} via {FAR2}" for half in ("0.0.0.0/1", "128.0.0.0/1")))
        fixed.comes_to_leave_with(4, LINK2, far2, "198.18.0.9", port)
        assert fixed.leaves_with(4, far, WEB_IP, port) == OWN
        assert fixed.told() == OWN
