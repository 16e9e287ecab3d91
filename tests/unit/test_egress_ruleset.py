"""The exit's nftables table, as text; and nft itself reads it."""

from __future__ import annotations

import os
import shutil
import subprocess
from dataclasses import replace
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

import pytest

from appliance.config.value_types import AddressPort
from appliance.network.firewall.chains.destinations import METADATA, PRIVATE, SMTP_PORTS
from appliance.network.firewall.rules import (
    Blocks,
    EgressRules,
    FlowLimits,
    HostService,
    HostServices,
    Marking,
    PortRange,
    PortRanges,
    Translation,
    TunnelNetworks,
)
from appliance.network.firewall.ruleset import remove, render

TUNNEL = TunnelNetworks("wga0", IPv4Network("10.101.0.0/24"), IPv6Network("fd65:7869:7400::/112"))
BLOCKS = Blocks(
    smtp=True,
    private=True,
    other_clients=True,
    extra=(IPv4Network("10.0.0.0/8"), IPv4Network("198.51.100.7/32"), IPv6Network("2001:db8::/32")),
)
NATS, NATS6 = IPv4Address("192.0.2.200"), IPv6Address("2001:db8:99::1")
API4, API6 = HostService(IPv4Address(0), 8080), HostService(IPv6Address(0), 8443)
BEHIND_NAT = HostService(IPv4Address("172.31.5.6"), 8080)
METRICS, METRICS_INSIDE = HostService(IPv4Address(0), 9586), HostService(TUNNEL.subnet[1], 9587)
ALLOWED = (
    IPv4Network("172.19.0.0/30"),
    IPv4Network("172.19.0.0/31"),
    IPv6Network("fd19::/64"),
    AddressPort(IPv4Address("172.19.0.10"), 53),
    AddressPort(IPv4Address("172.19.0.10"), 53),
    AddressPort(IPv6Address("fd19::10"), 5353),
)
RANGES = PortRanges(PortRange(8081, 65535), PortRange(1024, 51819))
FULL = EgressRules(
    tunnel=TUNNEL,
    blocks=BLOCKS,
    translation=Translation((("wan", IPv4Address("192.0.2.1")),)),
    port_ranges=RANGES,
)

VARIANTS = {
    "everything": FULL,
    "masquerade": replace(FULL, translation=Translation()),
    "IPv6 source": replace(
        FULL, translation=Translation((("wan", IPv6Address("2001:db8::1")), ("wan2", IPv4Address("192.0.2.2"))))
    ),
    "IPv4 only": replace(FULL, tunnel=replace(TUNNEL, subnet6=None)),
    "nothing blocked": replace(FULL, blocks=Blocks(smtp=False, private=False, other_clients=False, extra=())),
    "extra only": replace(FULL, blocks=replace(BLOCKS, private=False)),
    "every UDP port taken": replace(FULL, port_ranges=replace(RANGES, udp=None)),
    "one port": replace(FULL, port_ranges=replace(RANGES, udp=PortRange(4000, 4000))),
    "services": replace(FULL, services=HostServices(NATS, (API4, API6), (METRICS, METRICS_INSIDE))),
    "services, and an endpoint": replace(
        FULL, services=HostServices(NATS, (API4, API6), (METRICS,), (NATS, ip_address("198.51.100.9"), NATS6))
    ),
    "services, IPv6": replace(FULL, services=HostServices(NATS6, (API4, API6), (METRICS,))),
    "a listener at a private address": replace(FULL, services=HostServices(NATS, (BEHIND_NAT,))),
    "a listener at the public address": replace(FULL, services=HostServices(NATS, (HostService(NATS, 443),))),
    "a listener in the tunnel": replace(FULL, services=HostServices(NATS, (HostService(TUNNEL.subnet[1], 8080),))),
    "allowed": replace(FULL, blocks=replace(BLOCKS, allowed=ALLOWED)),
    "limits": replace(FULL, flows=FlowLimits(open=4096, new=200)),
    "a limit at a time": replace(FULL, flows=FlowLimits(open=1, new=0)),
    "a limit a second": replace(FULL, flows=FlowLimits(open=0, new=100_000)),
    "marked": replace(FULL, marking=Marking(0x1000)),
    "marked, nothing blocked": replace(
        FULL, marking=Marking(0x80000000), blocks=Blocks(smtp=False, private=False, other_clients=False, extra=())
    ),
    "marked, IPv4 only": replace(FULL, marking=Marking(0x1000), tunnel=replace(TUNNEL, subnet6=None)),
    "long name": replace(FULL, tunnel=replace(TUNNEL, interface="wg-exit_0.public"[:15])),
}


def lines(rules: EgressRules) -> list[str]:
    return [line.strip() for line in render(rules).splitlines()]


def networks(rules: EgressRules) -> list[str]:
    """The sets of networks."""
    return [line for line in lines(rules) if line.startswith(("set private", "set extra"))]


def chain(rules: EgressRules, name: str) -> list[str]:
    """The lines of one chain; empty where there is none."""
    found = lines(rules)
    if f"chain {name} {{" not in found:
        return []
    start = found.index(f"chain {name} {{")
    return found[start + 1 : found.index("}", start)]


@pytest.mark.parametrize("rules", VARIANTS.values(), ids=VARIANTS)
def test_protocols_are_keywords_of_nft(rules: EgressRules) -> None:
    """Protocols are named as nft's grammar has them: others it looks up in /etc/protocols, which may be missing."""
    assert "ipv6-icmp" not in render(rules)


def test_the_table_is_replaced_in_one_transaction() -> None:
    """The table is declared, deleted and made in one go: also where there is none yet, and never a moment without."""
    assert render(FULL).startswith(remove())
    assert lines(FULL)[:3] == ["table inet wg_appliance {}", "delete table inet wg_appliance", ""]
    assert render(FULL).count("table inet wg_appliance {") == 2


def test_each_family_leaves_with_the_address_of_the_link_or_masqueraded() -> None:
    """Each family leaves with the address that is named for the interface, by any other masqueraded; TCP and UDP from a
    range of ports each, whatever has no ports from the address alone."""
    four, six = "ip saddr 10.101.0.0/24", "ip6 saddr fd65:7869:7400::/112"
    others = [
        f'{each} oifname != "wga0" {action}'
        for each in (four, six)
        for action in (
            "meta l4proto tcp masquerade to :8081-65535",
            "meta l4proto udp masquerade to :1024-51819",
            "masquerade",
        )
    ]
    assert chain(FULL, "nat")[1:] == [
        f'{four} oifname "wan" meta l4proto tcp snat ip to 192.0.2.1:8081-65535',
        f'{four} oifname "wan" meta l4proto udp snat ip to 192.0.2.1:1024-51819',
        f'{four} oifname "wan" snat ip to 192.0.2.1',
        *others,
    ]
    assert chain(VARIANTS["masquerade"], "nat")[1:] == others
    named = [line for line in chain(VARIANTS["IPv6 source"], "nat") if "snat" in line]
    assert named == [
        f'{four} oifname "wan2" meta l4proto tcp snat ip to 192.0.2.2:8081-65535',
        f'{four} oifname "wan2" meta l4proto udp snat ip to 192.0.2.2:1024-51819',
        f'{four} oifname "wan2" snat ip to 192.0.2.2',
        f'{six} oifname "wan" meta l4proto tcp snat ip6 to [2001:db8::1]:8081-65535',
        f'{six} oifname "wan" meta l4proto udp snat ip6 to [2001:db8::1]:1024-51819',
        f'{six} oifname "wan" snat ip6 to 2001:db8::1',
    ]
    assert not any("ip6" in line for line in chain(VARIANTS["IPv4 only"], "nat"))


@pytest.mark.parametrize("name", ['wan" accept #', "wan*", "wan\\"])
def test_a_name_that_means_something_to_nft_is_masqueraded(name: str) -> None:
    """The kernel allows quotes and asterisks in names of interfaces; nothing of one becomes a rule."""
    odd = replace(FULL, translation=Translation(((name, IPv4Address("192.0.2.1")),)))
    assert render(odd) == render(VARIANTS["masquerade"])


def test_without_a_free_port_nothing_leaves_that_needs_one() -> None:
    """Where the host has taken every port of a protocol, clients' packets of it are dropped, never sent from one."""
    taken = chain(VARIANTS["every UDP port taken"], "nat")
    assert [line for line in taken if "drop" in line] == [
        f"{packets} meta l4proto udp drop"
        for packets in (
            'ip saddr 10.101.0.0/24 oifname "wan"',
            'ip saddr 10.101.0.0/24 oifname != "wga0"',
            'ip6 saddr fd65:7869:7400::/112 oifname != "wga0"',
        )
    ]


def test_mail_ports_are_reset() -> None:
    """Mail ports are reset, so that a client sees at once; on the host too, whose mail server may relay."""
    rule = "tcp dport { 25, 465, 587, 2525 } reject with tcp reset"
    assert SMTP_PORTS == (25, 465, 587, 2525)
    for name in ("from_clients", "to_host"):
        assert rule in chain(FULL, name)
    without = replace(FULL, blocks=replace(BLOCKS, smtp=False))
    assert not any("dport" in line for name in ("from_clients", "to_host") for line in chain(without, name))


def test_clients_do_not_reach_each_other_unless_they_may() -> None:
    """Clients do not reach each other unless they may."""
    rule = 'oifname "wga0" reject with icmpx admin-prohibited'
    assert rule in chain(FULL, "from_clients")
    assert rule not in chain(replace(FULL, blocks=replace(BLOCKS, other_clients=False)), "from_clients")


def test_own_subnet_is_not_private_to_clients_that_may_meet() -> None:
    """The private networks, of which the tunnel's own subnets are part, and the rejection of whoever was not called
    concern the other interfaces."""
    open_ = replace(FULL, blocks=replace(BLOCKS, other_clients=False))
    private = [line for line in chain(open_, "from_clients") if "@private" in line]
    assert len(private) == 2
    assert all(line.startswith('oifname != "wga0" ') for line in private)
    assert chain(open_, "to_clients")[-1] == 'iifname != "wga0" ct state new reject with icmpx admin-prohibited'


def test_a_client_address_comes_out_of_the_tunnel_alone() -> None:
    """A client's address comes out of the tunnel alone, and nothing else comes out of it; what is for the exit's own
    addresses in it comes out of it too."""
    assert chain(FULL, "sources")[1:] == [
        'iifname "wga0" goto tunnel_sources',
        'iifname "lo" accept',
        "ip saddr 10.101.0.0/24 drop",
        "ip daddr 10.101.0.1 drop",
        "ip6 saddr fd65:7869:7400::/112 drop",
        "ip6 daddr fd65:7869:7400::1 drop",
    ]
    assert chain(FULL, "tunnel_sources") == [
        "ip saddr != 10.101.0.0/24 drop",
        "ip6 saddr != fd65:7869:7400::/112 drop",
    ]
    assert "meta nfproto ipv6 drop" in chain(VARIANTS["IPv4 only"], "tunnel_sources")


def test_what_is_closed_comes_before_all_that_is_let_through() -> None:
    """The metrics are closed to clients where they listen, before anything on the host is let through, and also where
    private networks are reached."""
    closed = [
        "meta nfproto ipv4 tcp dport 9586 reject with tcp reset",
        "ip daddr 10.101.0.1 tcp dport 9587 reject with tcp reset",
    ]
    with_services = VARIANTS["services"]
    assert chain(with_services, "to_host")[-3:] == [*closed, "jump host"]
    open_ = replace(with_services, blocks=replace(BLOCKS, private=False))
    assert chain(open_, "to_host")[-2:] == closed


def reached(rules: EgressRules) -> list[str]:
    """Where clients reach the host's services."""
    return [line for line in chain(rules, "host") if "tcp dport" in line]


def test_open_services_are_reached_where_the_internet_reaches_them() -> None:
    """One that listens on all addresses is reached at the exit's address in the tunnel and at the public one, and where
    the public one is of the other IP version, at the host's own public ones; one at a single address is reached there.
    """
    assert reached(VARIANTS["services"]) == [
        "ip daddr 10.101.0.1 tcp dport 8080 return",
        "ip daddr 192.0.2.200 tcp dport 8080 return",
        "ip6 daddr fd65:7869:7400::1 tcp dport 8443 return",
        "fib daddr type local ip6 daddr != @private6 tcp dport 8443 return",
    ]
    assert reached(VARIANTS["a listener at the public address"]) == ["ip daddr 192.0.2.200 tcp dport 443 return"]
    assert reached(VARIANTS["a listener in the tunnel"]) == ["ip daddr 10.101.0.1 tcp dport 8080 return"]
    behind = ["ip daddr 172.31.5.6 ct status dnat tcp dport 8080 return"]
    assert reached(VARIANTS["a listener at a private address"]) == behind
    assert reached(FULL) == []


def test_a_public_address_of_a_nat_leads_to_the_listener() -> None:
    """Where the public address is not the host's, what is for an open service there goes to where it listens."""
    to_public = 'iifname "wga0" ip daddr 192.0.2.200 fib daddr type != local ip daddr != @extra4 tcp dport 8080 dnat ip'
    assert chain(VARIANTS["services"], "reflection")[1:] == [f"{to_public} to 10.101.0.1:8080"]
    assert chain(VARIANTS["a listener at a private address"], "reflection")[1:] == [f"{to_public} to 172.31.5.6:8080"]
    (six,) = chain(VARIANTS["services, IPv6"], "reflection")[1:]
    assert six.endswith("tcp dport 8443 dnat ip6 to [fd65:7869:7400::1]:8443")
    for name in ("everything", "a listener at the public address", "a listener in the tunnel"):
        assert chain(VARIANTS[name], "reflection")[1:] == []


def test_allowed_destinations_come_before_the_private_networks_alone() -> None:
    """What the operator allows is let through where private networks are rejected, after all other blocks."""
    for name in ("private", "host"):
        inside = chain(VARIANTS["allowed"], name)
        allowed = [line for line in inside if "@allowed" in line]
        assert len(allowed) == 6
        assert inside[-1] == "reject with icmpx admin-prohibited"
    forward = chain(VARIANTS["allowed"], "from_clients")
    assert not any("@allowed" in line for line in forward)
    blocks = [number for number, line in enumerate(forward) if "@extra" in line or "2525" in line]
    assert max(blocks) < min(number for number, line in enumerate(forward) if "jump private" in line)


def allowed_set(rules: EgressRules, name: str) -> list[str]:
    (line,) = (line for line in lines(rules) if line.startswith(f"set {name} "))
    return line.partition("elements = { ")[2].removesuffix(" }; }").split(", ")


def test_allowed_destinations_are_in_sets() -> None:
    """Networks, which may overlap, and ports, which may repeat; a resolver's port at the exit's own addresses is always
    among them. The NAT64's forms of allowed networks are not."""
    rules = VARIANTS["allowed"]
    assert allowed_set(rules, "allowed4") == ["172.19.0.0/30", "172.19.0.0/31"]
    assert allowed_set(rules, "allowed6") == ["fd19::/64"]
    assert allowed_set(rules, "allowed_ports4") == ["172.19.0.10 . 53", "10.101.0.1 . 53"]
    assert allowed_set(rules, "allowed_ports6") == ["fd19::10 . 5353", "fd65:7869:7400::1 . 53"]
    assert allowed_set(FULL, "allowed4") == [""]


@pytest.mark.parametrize("kept", [*METADATA, TUNNEL.subnet[1], ip_address("fd65:7869:7400::1")])
def test_a_wide_network_opens_neither_metadata_nor_the_exit(kept: IPv4Address | IPv6Address) -> None:
    """A network that holds a metadata service, or the exit's own address, leaves that out, and nothing beside it; named
    alone it is let through."""
    wide = ip_network(f"{kept}/{kept.max_prefixlen - 16}", strict=False)
    rules = replace(FULL, blocks=replace(BLOCKS, allowed=(wide,)))
    parts = [ip_network(text) for text in allowed_set(rules, f"allowed{kept.version}")]
    left_out = [each for each in (*METADATA, *TUNNEL.own.values()) if each in wide]
    assert sum(part.num_addresses for part in parts) == wide.num_addresses - len(left_out)
    assert not any(kept in part for part in parts)
    alone = replace(FULL, blocks=replace(BLOCKS, allowed=(ip_network(kept),)))
    assert allowed_set(alone, f"allowed{kept.version}") == [f"{kept}/{kept.max_prefixlen}"]


def test_an_icmp_error_from_a_client_is_of_a_flow_of_its_own() -> None:
    """Each error is compared with both ends of the flow that it quotes, of the IP versions that the tunnel has."""
    assert chain(FULL, "errors_ip6") == [
        "add @same_ip6 { ip6 saddr . ip6 saddr }",
        "ip6 saddr . ct original ip6 saddr @same_ip6 accept",
        "ip6 saddr . ct original ip6 daddr @same_ip6 accept",
        "drop",
    ]
    assert [line.rpartition(" goto ")[2] for line in chain(FULL, "errors")[1:]] == ["errors_ip", "errors_ip6"]
    assert len(chain(VARIANTS["IPv4 only"], "errors")) == 2


def test_what_is_blocked_gets_no_mark() -> None:
    """Whatever is rejected on its way through is rejected before routing too, by rules that no set's flush empties;
    what is marked comes last there, and loses the mark once it is routed. Of private networks alone some is allowed."""
    for family in ("ip", "ip6"):
        marked = chain(VARIANTS["marked"], f"admission_{family}")
        rejected = [line for line in marked if "reject" in line]
        private = [line for line in rejected if "10.0.0.0/8, 100.64.0.0/10" in line or "fc00::/7" in line]
        allowed = [line for line in marked if line.endswith("0x1000 accept")]
        others = [line for line in rejected if line not in private]
        clients = marked[-1]
        assert marked == [*others, *allowed, *private, clients]
        assert "saddr" in clients
        assert clients.endswith("meta mark set meta mark or 0x1000")
        assert len(private) == 1
        assert len(allowed) == 3
        assert all("@allowed" in line for line in allowed)
        assert not any("@" in line for line in rejected)
        assert "tcp dport { 25, 465, 587, 2525 } reject with tcp reset" in rejected
        assert any(("198.51.100.7/32" if family == "ip" else "2001:db8::/32") in line for line in rejected)
        assert chain(FULL, f"admission_{family}") == []
        assert not any("reject" in line for line in chain(VARIANTS["marked, nothing blocked"], f"admission_{family}"))
    for name in ("admitted_here", "admitted_through"):
        assert 'iifname "wga0" meta mark set meta mark and 0xffffefff' in chain(VARIANTS["marked"], name)
    isolated = "ip daddr 10.101.0.0/24 ip daddr != 10.101.0.1 reject with icmpx admin-prohibited"
    assert isolated in chain(VARIANTS["marked"], "admission_ip")
    assert chain(VARIANTS["marked"], "admission")[1:] == [
        'iifname != "wga0" accept',
        "meta nfproto ipv4 goto admission_ip",
        "meta nfproto ipv6 goto admission_ip6",
    ]


def test_no_block_is_passed_by() -> None:
    """Nothing of a client is accepted before all blocks, what belongs to a standing connection neither."""
    chains = ("forward", "from_clients", "private", "local", "to_host", "host")
    assert not any(
        "accept" in line.split()
        for rules in VARIANTS.values()
        for name in chains
        for line in chain(rules, name)
        if not line.startswith("type ")
    )


def test_private_and_extra_networks_have_sets_of_their_own() -> None:
    """The private networks and the operator's are in sets of their own, those of IPv4 also as NAT64 reaches them; empty
    sets are declared."""
    private4, private6, extra4, extra6 = networks(FULL)
    for network in PRIVATE:
        assert f" {network}" in (private4 if network.version == 4 else private6)
    assert "elements = { 10.0.0.0/8, 198.51.100.7/32 };" in extra4
    assert (
        "elements = { 2001:db8::/32, 64:ff9b::a00:0/104, 64:ff9b:1::a00:0/104, 64:ff9b::c633:6407/128, "
        "64:ff9b:1::c633:6407/128 };"
    ) in extra6
    assert {"64:ff9b::a9fe:0/112,", "64:ff9b:1::a9fe:0/112,", "64:ff9b::f000:0/100,"} <= set(private6.split())
    assert ["elements" in line for line in networks(VARIANTS["extra only"])] == [False, False, True, True]
    assert not any("elements" in line for line in networks(VARIANTS["nothing blocked"]))


def test_clients_reach_the_exits_tunnel_addresses_alone_on_the_host() -> None:
    """Of the host itself clients reach ping at the exit's tunnel addresses, and what is allowed; the operator's
    networks are blocked here too."""
    inside = chain(FULL, "host")
    assert [line for line in inside if "echo" in line] == [
        "ip daddr 10.101.0.1 icmp type echo-request return",
        "ip6 daddr fd65:7869:7400::1 icmpv6 type echo-request return",
    ]
    assert inside[-3:] == [
        "ip daddr 10.101.0.1 meta l4proto tcp reject with tcp reset",
        "ip6 daddr fd65:7869:7400::1 meta l4proto tcp reject with tcp reset",
        "reject with icmpx admin-prohibited",
    ]
    assert chain(FULL, "to_host")[-1] == "jump host"
    assert chain(FULL, "local")[-1] == 'iifname "wga0" jump to_host'
    without = chain(VARIANTS["extra only"], "to_host")
    assert not any("jump" in line for line in without)
    assert "ip daddr @extra4 reject with icmpx admin-prohibited" in without


PASS = (
    "1.1.1.1",
    "192.0.2.1",
    "198.51.100.1",
    "203.0.113.1",
    "100.128.0.0",
    "172.32.0.0",
    "11.0.0.0",
    "223.255.255.255",
)
PASS6 = ("2001:db8::1", "2606:4700::1111", "64:ff9b::808:808", "64:ff9b:1::808:808", "fec0::1")
STOP = ("0.0.0.0", "10.1.1.1", "100.64.0.1", "127.0.0.1", "169.254.169.254", "172.16.0.1", "172.31.255.255")  # noqa: S104
STOP4 = ("192.168.0.1", "224.0.0.1", "239.255.255.255", "240.0.0.1", "255.255.255.255")
STOP6 = ("::", "::1", "fc00::1", "fd00:ec2::254", "fe80::1", "ff02::1")


@pytest.mark.parametrize("address", [*PASS, *PASS6])
def test_public_addresses_are_in_no_private_network(address: str) -> None:
    """Public addresses and documentation ranges are in none of the private networks."""
    assert not any(ip_address(address) in network for network in PRIVATE)


@pytest.mark.parametrize("address", [*STOP, *STOP4, *STOP6])
def test_reserved_addresses_are_in_a_private_network(address: str) -> None:
    """Private, shared, link-local, loopback, multicast and reserved addresses are."""
    assert any(ip_address(address) in network for network in PRIVATE)


@pytest.mark.skipif(
    os.geteuid() != 0 or shutil.which("nft") is None, reason="NOT TESTED: nft checks rules only as root"
)
@pytest.mark.parametrize("rules", VARIANTS.values(), ids=VARIANTS)
def test_nft_accepts_every_variant(rules: EgressRules) -> None:
    """nft accepts every variant; --check changes nothing."""
    checked = subprocess.run(
        ["nft", "-c", "-f", "-"], input=render(rules), capture_output=True, text=True, timeout=20, check=False
    )
    if "Operation not permitted" in checked.stderr or "Operation not supported" in checked.stderr:
        pytest.skip("NOT TESTED: this kernel lets nobody check nftables rules")
    assert (checked.returncode, checked.stderr) == (0, "")


def test_without_limits_nothing_of_them_is_in_the_path() -> None:
    """An exit without limits has neither their chains nor their sets."""
    assert "limit" not in render(FULL)
    assert "client_" not in render(FULL)


@pytest.mark.parametrize("prefix", [16, 20, 24, 30])
def test_a_client_is_one_to_both_versions(prefix: int) -> None:
    """The place in the subnet, by which a client is counted, is the same of its IPv4 and IPv6 address."""
    subnet = IPv4Network(f"10.101.0.0/{prefix}")
    tunnel = replace(TUNNEL, subnet=subnet, subnet6=IPv6Network("fd65:7869:7400::/112"))
    rules = replace(FULL, tunnel=tunnel, flows=FlowLimits(open=10, new=0))
    masks = {line.split("& ")[1].split()[0] for line in chain(rules, "client_limits")}
    assert masks == {f"{int(subnet.hostmask):#06x}"}
    assert f"set client_flows {{ typeof @nh,112,16; size {subnet.num_addresses}; flags dynamic; }}" in lines(rules)
