"""The checks alone, on facts that no namespace can be made to have, and on those that go unseen."""

from __future__ import annotations

import json
from dataclasses import replace
from ipaddress import ip_address, ip_interface
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from appliance.config.load import parse_settings
from appliance.config.settings import by_key
from appliance.domain.clock import Moment
from appliance.network.admission.mark import Mark
from appliance.network.admission.policy_rules import PolicyRule, wanted
from appliance.network.firewall.flow_capacity import TableSize
from appliance.network.firewall.rules import Translation
from appliance.network.public_address import Standing
from appliance.network.uplinks import Uplink
from appliance.network.wireguard.backend import HostFacts
from appliance.ops.doctor import admission, diagnosis, firewall, machine, ports, server, state, tunnel
from appliance.ops.doctor.facts import (
    AdmissionFacts,
    Disk,
    Facts,
    Firewall,
    ForwardingFacts,
    Machine,
    Network,
    PortFacts,
    StateFacts,
    StateFile,
    Tracking,
    UdpPort,
)
from appliance.ops.doctor.finding import Finding, Status
from appliance.store.inspection import Inspection

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

FOLDER = Path("/var/lib/wg-appliance")
SETTINGS = parse_settings("", {}, "host")
BOOT = "a boot"
NO_RULES = '{"nftables": []}'
OUR_TABLE = '{"nftables": [{"table": {"family": "inet", "name": "wg_appliance", "handle": 1}}]}'
SYSCTLS = {
    "net/ipv4/conf/all/send_redirects": "0",
    "net/ipv4/ip_forward": "0",
    "net/ipv4/conf/eth0/forwarding": "1",
    "net/ipv4/conf/wga0/forwarding": "1",
    "net/ipv6/conf/all/forwarding": "1",
    "net/ipv6/conf/default/forwarding": "0",
}
FOUND = {
    "net/ipv4/conf/eth0/forwarding": "0",
    "net/ipv6/conf/all/forwarding": "0",
    "net/ipv6/conf/default/forwarding": "0",
}
UPLINKS = frozenset({"eth0"})

RULES = wanted((2, 10), "wga0", 0x1000, 100)
EARLIER = PolicyRule(2, 5, action=1, table=77)

ADMISSION = AdmissionFacts(tuple(RULES), Mark(0x1000, 100), filter_stands=True)
HEALTHY = Facts(
    settings=SETTINGS,
    config_file=Path("/etc/wg-appliance/config.toml"),
    machine=Machine(
        root=True,
        now=Moment(wall_ms=2_000_000, boot_ms=100_000, boot_id=BOOT),
        clock_synchronised=True,
        disk=Disk(free=10 << 30, total=20 << 30, free_inodes=100_000, read_only=False),
        tracking=Tracking(TableSize(count=1000, limit=262_144, buckets=262_144), wanted=524_288, changeable=True),
    ),
    state=StateFacts(
        files=(StateFile(FOLDER, 7, 0o700), StateFile(FOLDER / "server.key", 7, 0o600)),
        served=True,
        running=by_key(SETTINGS),
        running_s=1000.0,
        store=Inspection(None, ours=True, version=3, newest=3, heartbeat=Moment(0, 95_000, BOOT)),
    ),
    wireguard=HostFacts(
        net_admin=True, kernel_module=True, wireguard_go=False, tun_device=False, interface_kind="wireguard"
    ),
    network=Network(
        uplinks={
            4: Uplink("eth0", 1500, ip_address("203.0.113.1")),
            6: Uplink("eth0", 1500, ip_address("2001:db8:2::1")),
        },
        addresses=(("eth0", ip_interface("203.0.113.1/24")), ("eth0", ip_interface("2001:db8:2::1/64"))),
        routes=(),
        has_ipv6=True,
        ipv6_off=False,
        ports=PortFacts(frozenset({(6, 8080), (17, 51820)}), {}, {6: 100, 17: 200}),
    ),
    udp=UdpPort(holders=("another process",), device=51820),
    forwarding=ForwardingFacts(SYSCTLS, True, FOUND, UPLINKS, UPLINKS, ADMISSION),
    firewall=Firewall(OUR_TABLE, None, {}, {}),
)


def admitted(*rules: PolicyRule, filter_stands: bool = True) -> Facts:
    """With these ip rules."""
    found = AdmissionFacts(rules, Mark(0x1000, 100), filter_stands)
    return replace(HEALTHY, forwarding=replace(HEALTHY.forwarding, admission=found))


def configured(text: str, facts: Facts = HEALTHY) -> Facts:
    """The same host with this configuration, which its server has taken over."""
    settings = parse_settings(text, {}, "host")
    assert facts.state is not None
    return replace(facts, settings=settings, state=replace(facts.state, running=by_key(settings)))


def standing(address: str, *leave_with: str) -> Standing:
    translation = Translation(tuple(("eth0", ip_address(each)) for each in leave_with))
    return Standing(ip_address(address), bool(leave_with), translation, {4: "eth0"})


def in_use(used: Standing, now: Standing) -> Facts:
    """A server that uses the one, on a host that is the other now."""
    assert HEALTHY.state is not None
    state = replace(HEALTHY.state, standing=used)
    return replace(HEALTHY, state=state, network=replace(HEALTHY.network, standing=now))


STANDING = standing("203.0.113.1", "203.0.113.1")


def host(**changes: Any) -> Facts:
    return replace(HEALTHY, wireguard=replace(HEALTHY.wireguard, **changes))


def of_machine(**changes: Any) -> Facts:
    return replace(HEALTHY, machine=replace(HEALTHY.machine, **changes))


UNKEPT = of_machine(clock_synchronised=False).machine


def network(**changes: Any) -> Facts:
    return replace(HEALTHY, network=replace(HEALTHY.network, **changes))


def of_state(**changes: Any) -> Facts:
    assert HEALTHY.state is not None
    return replace(HEALTHY, state=replace(HEALTHY.state, **changes))


def of_store(**changes: Any) -> Facts:
    assert HEALTHY.state is not None
    assert HEALTHY.state.store is not None
    return of_state(store=replace(HEALTHY.state.store, **changes))


def filters(ruleset: str | None = OUR_TABLE, fault: str | None = None, **changes: Mapping[str, Any]) -> Facts:
    return replace(HEALTHY, firewall=Firewall(ruleset, fault, changes.get("iptables", {}), changes.get("legacy", {})))


def test_healthy_facts_are_all_ok() -> None:
    """Nothing is wrong with these facts; what follows is each a step away from them."""
    assert [finding for finding in diagnosis.diagnose(HEALTHY) if finding.status is not Status.OK] == []


def of_ports(*taken: tuple[int, int], **changes: Any) -> Facts:
    return network(ports=PortFacts(frozenset(taken), changes.get("holders", {}), changes.get("flows", {})))


def translated(protocol: str, **statement: Any) -> dict[str, Any]:
    """A rule of the appliance's table."""
    match = {"match": {"op": "==", "left": {"meta": {"key": "l4proto"}}, "right": protocol}}
    return {"rule": {"family": "inet", "table": "wg_appliance", "chain": "nat", "expr": [match, statement]}}


USED = json.dumps(
    {
        "nftables": [
            translated("tcp", snat={"family": "ip", "addr": "192.0.2.1", "port": {"range": [30000, 65000]}}),
            translated("udp", masquerade={"port": {"range": [40000, 40999]}}),
        ]
    }
)
MEDIA = {(17, port) for port in range(20000, 50000)}
KERNEL, USERSPACE = '[wireguard]\nbackend = "kernel"\n', '[wireguard]\nbackend = "userspace"\n'
IPV6_ALONE = {6: HEALTHY.network.uplinks[6]}
DROPS_INPUT = "*filter\n:INPUT DROP [0:0]\nCOMMIT\n"
PRIVATE = {4: Uplink("eth0", 1500, ip_address("10.0.0.5"))}
SEEN_AS_TUN = {"kernel_module": False, "wireguard_go": True, "tun_device": True, "interface_kind": "tun"}


def forwarding(values: Mapping[str, str], *, writable: bool = True, found: Mapping[str, str] = FOUND) -> Facts:
    """The same host with these sysctls."""
    return replace(HEALTHY, forwarding=ForwardingFacts(SYSCTLS | values, writable, found, UPLINKS, UPLINKS))


ROUTER = """{"nftables": [{"table": {"family": "ip", "name": "containers", "handle": 1}},
{"chain": {"family": "ip", "table": "containers", "name": "out", "handle": 1, "type": "nat", "hook": "postrouting",
"prio": 100, "policy": "accept"}},
{"rule": {"family": "ip", "table": "containers", "chain": "out", "handle": 2, "expr": [{"masquerade": null}]}}]}"""


CASES: list[tuple[Callable[[Facts], Finding], Facts, str, str, str]] = [
    (
        tunnel.wireguard,
        configured(KERNEL, host(kernel_module=False)),
        "failed",
        "this kernel has none",
        'backend = "auto"',
    ),
    (tunnel.wireguard, host(kernel_module=False), "failed", "not installed", "apt-get install wireguard-go"),
    (tunnel.wireguard, host(kernel_module=False, wireguard_go=True), "failed", "/dev/net/tun", "modprobe tun"),
    (tunnel.wireguard, host(**SEEN_AS_TUN), "ok", "wireguard-go", ""),
    (tunnel.wireguard, configured(USERSPACE, host(**SEEN_AS_TUN)), "ok", "wireguard-go", ""),
    (tunnel.wireguard, host(interface_kind=""), "failed", "not ours (a device)", "set wireguard.interface"),
    (tunnel.wireguard, host(interface_kind="tun"), "failed", "not ours (tun)", "ip link del wga0"),
    (tunnel.udp_port, replace(HEALTHY, udp=UdpPort((), 4000)), "failed", "listens on 4000, not on 51820", "restart"),
    (tunnel.udp_port, replace(HEALTHY, udp=UdpPort(("dnsmasq",), None)), "failed", "taken by dnsmasq", "ss -lunp"),
    (tunnel.udp_port, replace(HEALTHY, udp=UdpPort(("dnsmasq",), 4000)), "failed", "taken by dnsmasq", "ss -lunp"),
    (tunnel.udp_port, replace(of_machine(root=False), udp=UdpPort(("?",), None)), "warning", "without root", "sudo"),
    (tunnel.public_address, network(uplinks={}), "failed", "no default route", "set node.public_ip"),
    (tunnel.public_address, network(uplinks=PRIVATE), "failed", "10.0.0.5 is private", "forward UDP port 51820"),
    (
        tunnel.public_address,
        configured('[node]\npublic_ip = "10.0.0.5"\n', network(addresses=(("eth0", ip_interface("10.0.0.5/8")),))),
        "warning",
        "only clients of that network",
        "set node.public_ip",
    ),
    (tunnel.public_address, configured('[node]\npublic_ip = "2001:db8:2::1"\n'), "ok", "this host's own", ""),
    (tunnel.public_address, in_use(STANDING, STANDING), "ok", "of the default route", ""),
    (
        tunnel.public_address,
        in_use(STANDING, standing("203.0.113.5", "203.0.113.5")),
        "failed",
        "the server tells clients 203.0.113.1, this host now sends from 203.0.113.5",
        "restart",
    ),
    (
        tunnel.public_address,
        in_use(STANDING, standing("203.0.113.1")),
        "failed",
        "leave by eth0 with 203.0.113.1, by any other interface with its own address; as the host is now they would "
        "with the interface's own",
        "restart",
    ),
    (
        tunnel.public_address,
        configured('[node]\npublic_ip = "203.0.113.5"\n', in_use(STANDING, standing("203.0.113.5"))),
        "failed",
        "the server tells clients 203.0.113.1, the configuration says 203.0.113.5",
        "restart",
    ),
    (tunnel.uplink, network(uplinks=IPV6_ALONE), "warning", "no IPv4 default route", "ip route"),
    (
        tunnel.uplink,
        configured('[node]\npublic_ip = "2001:db8:2::1"\n[wireguard]\nmtu = 1430\n'),
        "warning",
        "1430 + 80",
        'wireguard.mtu = "auto"',
    ),
    (
        tunnel.uplink,
        network(uplinks={4: Uplink("ppp0", 1300, ip_address("203.0.113.1"))}),
        "warning",
        "ppp0 has MTU 1300",
        "ip link set ppp0 mtu 1340",  # 1240 would be too little for IPv6
    ),
    (
        firewall.udp_filter,
        replace(network(uplinks=IPV6_ALONE), firewall=Firewall(OUR_TABLE, None, {}, {"ip6": DROPS_INPUT})),
        "failed",
        "chain INPUT of ip6tables-legacy",
        "ip6tables-legacy -I INPUT",
    ),
    (admission.fail_closed, admitted(*RULES[:3]), "failed", "for IPv6 are not in place", "restart"),
    (admission.fail_closed, admitted(*RULES, filter_stands=False), "warning", "egress filter", "modprobe cls_bpf"),
    (admission.fail_closed, admitted(EARLIER, *RULES), "warning", "priority 5 comes before", "priority above 102"),
    (tunnel.ipv6, configured('[wireguard]\nsubnet6 = ""\n', network(uplinks=PRIVATE)), "ok", "neither", ""),
    (
        tunnel.ipv6,
        network(uplinks={**HEALTHY.network.uplinks, 6: Uplink("eth0", 1500, None)}),
        "warning",
        "no address for it",
        "ip -6 route del default dev eth0",
    ),
    (
        tunnel.ipv6,
        replace(network(ipv6_off=True), forwarding=ForwardingFacts(SYSCTLS, writable=False)),
        "failed",
        "the server will not start",
        "sysctl -w net.ipv6.conf.default.disable_ipv6=0",
    ),
    (tunnel.ipv6, network(ipv6_off=True), "ok", "clients' leaves by eth0", ""),
    (
        tunnel.subnet,
        network(addresses=(("lan", ip_interface("fd65:7869:7400::9/64")),)),
        "failed",
        "wireguard.subnet6",
        "another /112",
    ),
    (
        tunnel.subnet,
        of_state(store=Inspection(None, devices=7)),
        "ok",
        "not used here otherwise; devices have 7 of 253 addresses",
        "",
    ),
    (machine.clock, of_machine(clock_synchronised=False), "warning", "wrong time", "timedatectl set-ntp true"),
    (
        machine.clock,
        replace(of_store(known=Moment(2_000_000 - 31_536_000_000, 95_000, BOOT)), machine=UNKEPT),
        "warning",
        "the wall clock is 365 d ahead of",
        "wg-appliance node resume --accept-clock",
    ),
    (
        machine.clock,
        of_store(known=Moment(9_000_000, 95_000, BOOT)),
        "warning",
        "behind what the boot clock and the last heartbeat say, and the server cannot learn that it is synchronised",
        "wg-appliance node resume --accept-clock",
    ),
    (machine.clock, of_state(served=False, store=Inspection(None, known=Moment(9_000_000, 1, BOOT))), "ok", "", ""),
    (
        machine.clock,
        replace(of_store(known=Moment(1_995_000, 95_000, BOOT)), machine=UNKEPT),
        "warning",
        "wrong time",
        "apt-get install systemd-timesyncd",
    ),
    (machine.disk, of_machine(disk=None), "warning", "without root", "sudo"),
    (
        machine.disk,
        of_machine(disk=Disk(10 << 30, 20 << 30, 3, read_only=False)),
        "failed",
        "3 more files",
        "df -i",
    ),
    (machine.disk, of_machine(disk=Disk(10 << 30, 20 << 30, None, read_only=False)), "ok", "10240 MiB", ""),
    (state.store, of_store(version=2), "warning", "version 2", "restart"),
    (state.store, of_store(damage="it cannot be opened; check that"), "failed", "it cannot be opened", "check that"),
    (server.server, of_state(served=False), "failed", "not running", "systemctl start wg-appliance"),
    (server.server, of_store(drained=True), "warning", "drained: it takes no new sessions", "node resume"),
    (server.tick, of_store(heartbeat=None), "failed", "none since the boot", "restart"),
    (server.tick, of_store(heartbeat=Moment(0, 99_000, "another boot")), "failed", "none since the boot", "restart"),
    (server.tick, of_store(heartbeat=Moment(0, 69_000, BOOT)), "failed", "31 s ago", "restart"),
    (server.tick, of_store(heartbeat=Moment(0, 70_000, BOOT)), "ok", "30 s ago", ""),
    (server.tick, of_state(store=None, running_s=2.0), "ok", "about to come", ""),
    (server.drift, of_state(running=None), "warning", "has not noted", "restart"),
    (server.drift, of_state(running={}), "warning", " more", "restart"),
    (server.contention, of_state(contended=("the tunnel's peers: changed",)), "warning", "the tunnel's peers", "stop"),
    (firewall.nftables, filters(None, "nft is not installed"), "failed", "not installed", "apt-get install nftables"),
    (firewall.nftables, filters(None, "nft: no such device"), "failed", "nft: no such device", "modprobe nf_tables"),
    (firewall.nftables, filters(NO_RULES), "failed", "is missing", "restart"),
    (firewall.forward, filters(None, "nft is not installed"), "warning", "without a working nft", "apt-get"),
    (firewall.forward, filters(legacy={"ip": None}), "warning", "iptables-legacy", "iptables-legacy -S"),
    (
        firewall.forward,
        filters(legacy={"ip": "*filter\n:FORWARD DROP [0:0]\nCOMMIT\n"}),
        "failed",
        "chain FORWARD of iptables-legacy",
        "iptables-legacy -I FORWARD -i wga0 -j ACCEPT && iptables-legacy -I FORWARD -o wga0",
    ),
    (ports.ports, HEALTHY, "ok", "TCP 8081-65535, UDP 1024-51819: 50796 flows of all clients to one resolver fit", ""),
    (ports.ports, network(ports=None), "warning", "cannot be read", "udp_diag"),
    (
        ports.ports,
        of_ports(*MEDIA, holders={(17, 20000): ("rtpengine",)}),
        "warning",
        "clients share 18976 UDP ports, 1024-19999, as this host uses 20000 (rtpengine)",
        "ss -lnup",
    ),
    (
        ports.ports,
        of_ports((6, 20000), (6, 40000)),
        "warning",
        "25535 TCP ports, 40001-65535, as this host uses 40000",
        "ss -lntp",
    ),
    (ports.ports, of_ports(*((17, port) for port in range(65536))), "warning", "clients' UDP is dropped", "ss -lnup"),
    (ports.ports, of_ports((17, 51820), flows={17: 40_637}), "warning", "40637 of 50796 UDP flows", "session list"),
    (ports.ports, of_ports((17, 51820), flows={17: 40_636}), "ok", "50796 flows", ""),
    (ports.ports, filters(USED), "warning", "1000 UDP ports, 40000-40999, as this host uses 39999 and 41000", "ss"),
    (
        firewall.forwarding,
        forwarding({"net/ipv4/conf/eth0/forwarding": "0"}, writable=False),
        "failed",
        "/proc/sys is read-only here",
        "sysctl -w net.ipv4.conf.eth0.forwarding=1",
    ),
    (
        firewall.forwarding,
        forwarding({"net/ipv4/conf/wga0/forwarding": "0"}),
        "failed",
        "net.ipv4.conf.wga0.forwarding = 0, and the server could not set it",
        "sysctl -w net.ipv4.conf.wga0.forwarding=1",
    ),
    (
        firewall.forwarding,
        forwarding({"net/ipv4/conf/all/send_redirects": "1"}, writable=False),
        "warning",
        "on; net.ipv4.conf.all.send_redirects = 1, and /proc/sys is read-only here",
        "on the machine around this container",
    ),
    (tunnel.routing, HEALTHY, "ok", "clients' packets are routed to the internet and back", ""),
    (
        tunnel.routing,
        replace(HEALTHY, network=replace(HEALTHY.network, routing_fault="a rule takes it; see ip rule")),
        "failed",
        "a rule takes it",
        "see ip rule, and remove the rule or route",
    ),
    (firewall.transit, HEALTHY, "ok", "this host forwards for clients alone", ""),
    (firewall.transit, forwarding({"net/ipv4/ip_forward": "1"}), "ok", "in IPv4: others switched it on", ""),
    (firewall.transit, forwarding({"net/ipv6/conf/default/forwarding": "1"}), "ok", "in IPv6: others", ""),
    (firewall.transit, configured("[egress]\nforward_others = true\n"), "ok", "egress.forward_others", ""),
    (
        firewall.transit,
        replace(
            forwarding({"net/ipv4/ip_forward": "1"}, found={"net/ipv4/ip_forward": "0"}),
            firewall=Firewall(ROUTER, None, {}, {}),
        ),
        "warning",
        "left, as table ip containers needs it",
        "sysctl -w net.ipv4.ip_forward=0",
    ),
]


@pytest.mark.parametrize(("check", "facts", "status", "what", "mend"), CASES)
def test_each_fact_has_its_finding_and_its_mend(
    check: Callable[[Facts], Finding], facts: Facts, status: str, what: str, mend: str
) -> None:
    """What is found, in which words, and what mends it; where all is well nothing is to be mended."""
    found = check(facts)
    assert (found.status, what in found.what) == (status, True), found
    assert mend in found.mend
    assert (found.mend == "") == (status == "ok")


def test_unseen_facts_fail_no_check() -> None:
    """Without root, and without a way into the state: every check answers, and none fails for it."""
    facts = replace(
        of_machine(root=False, disk=None), state=None, firewall=Firewall(None, "nft: not permitted", {}, {})
    )
    findings = diagnosis.diagnose(facts)
    unseen = {finding.check for finding in findings if "without root" in finding.what}
    assert unseen == {
        "server",
        "tick",
        "drift",
        "contention",
        "state",
        "store",
        "disk",
        "nftables",
        "forward",
        "transit",
        "udp-filter",
    }
    assert all(finding.status is not Status.FAILED for finding in findings)


def test_root_that_cannot_see_the_state_finds_a_fault() -> None:
    """What its owner cannot read does not come right with more rights."""
    found = state.state(replace(of_machine(root=True), state=None))
    assert found.status is Status.FAILED
    assert "cannot read its files" in found.what
    assert "ls -la" in found.mend


def test_each_finding_is_one_line() -> None:
    """Names are unlike each other, and no message has more than one line."""
    findings = diagnosis.diagnose(HEALTHY)
    assert len({finding.check for finding in findings}) == len(findings)
    assert not any("\n" in f"{finding.what}{finding.mend}" for finding in findings)


def test_a_check_that_fails_itself() -> None:
    """A listing that is not as documented is no reason not to show what the other checks found."""
    odd = json.dumps({"nftables": [{"rule": {"family": "ip"}}]})
    findings = {finding.check: finding for finding in diagnosis.diagnose(filters(odd))}
    assert findings["forward"].status is Status.WARNING
    assert findings["forward"].what.startswith("cannot be checked: KeyError")
    assert findings["server"].status is Status.OK
