"""The exit's nftables table, as text; and nft itself reads it."""

from __future__ import annotations

import os
import shutil
import subprocess
from dataclasses import replace
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address

import pytest

from appliance.network.firewall.chains.destinations import PRIVATE, SMTP_PORTS
from appliance.network.firewall.rules import Blocks, EgressRules, Marking, Translation, TunnelNetworks
from appliance.network.firewall.ruleset import remove, render

TUNNEL = TunnelNetworks("wga0", IPv4Network("10.101.0.0/24"), IPv6Network("fd65:7869:7400::/112"))
BLOCKS = Blocks(
    smtp=True,
    private=True,
    other_clients=True,
    extra=(IPv4Network("10.0.0.0/8"), IPv4Network("198.51.100.7/32"), IPv6Network("2001:db8::/32")),
)
FULL = EgressRules(tunnel=TUNNEL, blocks=BLOCKS, translation=Translation(IPv4Address("192.0.2.1")))

VARIANTS = {
    "everything": FULL,
    "masquerade": replace(FULL, translation=Translation(None)),
    "IPv6 source": replace(FULL, translation=Translation(IPv6Address("2001:db8::1"))),
    "IPv4 only": replace(FULL, tunnel=replace(TUNNEL, subnet6=None)),
    "nothing blocked": replace(FULL, blocks=Blocks(smtp=False, private=False, other_clients=False, extra=())),
    "extra only": replace(FULL, blocks=replace(BLOCKS, private=False)),
    "marked": replace(FULL, marking=Marking(0x1000)),
    "marked, nothing blocked": replace(
        FULL, marking=Marking(0x80000000), blocks=Blocks(smtp=False, private=False, other_clients=False, extra=())
    ),
    "marked, IPv4 only": replace(FULL, marking=Marking(0x1000), tunnel=replace(TUNNEL, subnet6=None)),
    "own ports": replace(FULL, own_ports=(8080, 9586)),
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


def test_the_table_is_replaced_in_one_transaction() -> None:
    """The table is declared, deleted and made in one go: also where there is none yet, and never a moment without."""
    assert render(FULL).startswith(remove())
    assert lines(FULL)[:3] == ["table inet wg_appliance {}", "delete table inet wg_appliance", ""]
    assert render(FULL).count("table inet wg_appliance {") == 2


def test_each_family_leaves_with_the_public_address_or_masqueraded() -> None:
    """Each family leaves with the exit's public address where that is the host's own, else masqueraded."""
    assert [line for line in chain(FULL, "nat") if "saddr" in line] == [
        'ip saddr 10.101.0.0/24 oifname != "wga0" snat ip to 192.0.2.1',
        'ip6 saddr fd65:7869:7400::/112 oifname != "wga0" masquerade',
    ]
    assert 'ip saddr 10.101.0.0/24 oifname != "wga0" masquerade' in chain(VARIANTS["masquerade"], "nat")
    six = chain(VARIANTS["IPv6 source"], "nat")
    assert 'ip6 saddr fd65:7869:7400::/112 oifname != "wga0" snat ip6 to 2001:db8::1' in six
    assert not any("ip6" in line for line in chain(VARIANTS["IPv4 only"], "nat"))


def test_mail_ports_are_reset() -> None:
    """Mail ports are reset, so that a client sees at once; on the host too, whose mail server may relay."""
    rule = 'iifname "wga0" tcp dport { 25, 465, 587, 2525 } reject with tcp reset'
    assert SMTP_PORTS == (25, 465, 587, 2525)
    for name in ("forward", "local"):
        assert rule in chain(FULL, name)
    assert not any("dport" in line for line in lines(replace(FULL, blocks=replace(BLOCKS, smtp=False))))


def test_clients_do_not_reach_each_other_unless_they_may() -> None:
    """Clients do not reach each other unless they may."""
    rule = 'iifname "wga0" oifname "wga0" reject with icmpx admin-prohibited'
    assert rule in chain(FULL, "forward")
    assert rule not in chain(replace(FULL, blocks=replace(BLOCKS, other_clients=False)), "forward")


def test_own_subnet_is_not_private_to_clients_that_may_meet() -> None:
    """The private networks, of which the tunnel's own subnets are part, and the rejection of whoever was not called
    concern the other interfaces."""
    open_ = chain(replace(FULL, blocks=replace(BLOCKS, other_clients=False)), "forward")
    private = [line for line in open_ if "@private" in line]
    assert len(private) == 2
    assert all(line.startswith('iifname "wga0" oifname != "wga0" ') for line in private)
    assert open_[-1] == 'iifname != "wga0" oifname "wga0" ct state new reject with icmpx admin-prohibited'


def test_a_client_address_comes_out_of_the_tunnel_alone() -> None:
    """A client's address comes out of the tunnel alone, and nothing else comes out of it."""
    assert chain(FULL, "sources")[1:] == [
        'iifname "wga0" ip saddr != 10.101.0.0/24 drop',
        'iifname != { "wga0", "lo" } ip saddr 10.101.0.0/24 drop',
        'iifname "wga0" ip6 saddr != fd65:7869:7400::/112 drop',
        'iifname != { "wga0", "lo" } ip6 saddr fd65:7869:7400::/112 drop',
    ]
    assert 'iifname "wga0" meta nfproto ipv6 drop' in chain(VARIANTS["IPv4 only"], "sources")


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
    what is marked comes last there, and loses the mark once it is routed."""
    marked = chain(VARIANTS["marked"], "admission")
    rejected = [line for line in marked if "reject" in line]
    assert marked[1:] == ['iifname != "wga0" accept', *rejected, *(line for line in marked if "mark set" in line)]
    assert not any("@" in line for line in marked)
    assert "ip daddr 10.101.0.0/24 ip daddr != 10.101.0.1 reject with icmpx admin-prohibited" in rejected
    assert any("198.51.100.7/32" in line for line in rejected)
    for name in ("admitted_here", "admitted_through"):
        assert 'iifname "wga0" meta mark set meta mark and 0xffffefff' in chain(VARIANTS["marked"], name)
    assert chain(FULL, "admission") == []
    assert not any("reject" in line for line in chain(VARIANTS["marked, nothing blocked"], "admission"))


def test_own_listeners_are_closed_to_clients() -> None:
    """What the appliance itself listens to on all addresses is closed to clients, on all of them."""
    rule = 'iifname "wga0" tcp dport { 8080, 9586 } reject with tcp reset'
    assert rule in chain(VARIANTS["own ports"], "local")
    assert rule not in chain(FULL, "local")


def test_no_block_is_passed_by() -> None:
    """Nothing of a client is accepted before all blocks, what belongs to a standing connection neither."""
    assert not any("accept" in line for name in ("forward", "local") for line in chain(FULL, name)[1:])


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
    assert not any("elements" in line for line in lines(VARIANTS["nothing blocked"]))


def test_clients_reach_the_exits_tunnel_addresses_alone_on_the_host() -> None:
    """Of the host itself clients reach the exit's tunnel addresses alone; the operator's networks are blocked here
    too."""
    addresses = [line for line in chain(FULL, "local") if "daddr !=" in line]
    assert addresses == [
        'iifname "wga0" ip daddr != 10.101.0.1 reject with icmpx admin-prohibited',
        'iifname "wga0" ip6 daddr != fd65:7869:7400::1 reject with icmpx admin-prohibited',
    ]
    without = chain(VARIANTS["extra only"], "local")
    assert not any("daddr !=" in line for line in without)
    assert 'iifname "wga0" ip daddr @extra4 reject with icmpx admin-prohibited' in without


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
