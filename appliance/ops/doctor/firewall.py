"""Checks what this host does with clients' packets: IP forwarding and other programs' packet filters. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

from appliance.network.firewall import coexistence, nft_json, other_routing
from appliance.network.firewall import forwarding as host_forwarding
from appliance.network.firewall.simulator import Obstacle, Packet, Table, obstacles
from appliance.network.firewall.sysctl_paths import ON, of_interface
from appliance.ops.doctor import iptables_save
from appliance.ops.doctor.finding import RESTART, START, Finding, failed, ok, unseen, warning

if TYPE_CHECKING:
    from collections.abc import Iterator

    from appliance.ops.doctor.facts import Facts
    from appliance.ops.doctor.facts import Firewall as Filters

PROGRAMS = {"ip": "iptables", "ip6": "ip6tables"}
NAMED_AT_MOST = 3


def forwarding(facts: Facts) -> Finding:
    tunnel = facts.settings.wireguard
    ipv6 = tunnel.subnet6 is not None and facts.network.has_ipv6
    to_set = host_forwarding.to_set(facts.forwarding.host, tunnel.interface, ipv6=ipv6)
    own = of_interface(4, tunnel.interface)
    if facts.forwarding.sysctls.get(own, ON) != ON:
        to_set[own] = ON
    needed = {
        name: value
        for name, value in to_set.items()
        if name == own or host_forwarding.is_needed(name, value, facts.forwarding.default)
    }
    if not to_set:
        return ok("forwarding", "on")
    wrong = [f"{name.replace('/', '.')} = {facts.forwarding.sysctls.get(name, 'missing')}" for name in needed or to_set]
    what = ", ".join(wrong[:NAMED_AT_MOST]) + (
        f" and {len(wrong) - NAMED_AT_MOST} more" if wrong[NAMED_AT_MOST:] else ""
    )
    set_them = "sysctl -w " + " ".join(f"{name.replace('/', '.')}={value}" for name, value in to_set.items())
    if facts.forwarding.writable is False and not needed:
        mend = f"on the machine around this container: {set_them}"
        return warning("forwarding", f"on; {what}, and /proc/sys is read-only here", mend)
    if facts.forwarding.writable is False:
        mend = f"on the machine around this container: {set_them}"
        return failed("forwarding", f"{what}, and /proc/sys is read-only here", mend)
    if facts.state is not None and facts.state.served:
        return failed("forwarding", f"{what}, and the server could not set it", set_them)
    return warning("forwarding", f"{what}; the server sets it when it starts", START)


def transit(facts: Facts) -> Finding:
    """Tells what this host forwards between its other networks, and checks for what an earlier version has left on."""
    host, ipv6 = facts.forwarding.host, facts.settings.wireguard.subnet6 is not None and facts.network.has_ipv6
    if not facts.machine.root:
        return unseen("transit", "what this host forwards between its other networks")
    if facts.settings.egress.forward_others:
        return ok("transit", "egress.forward_others: this host forwards between its other networks too")
    if host.set_by_earlier_version:
        needing = other_routing.relying(facts.firewall.ruleset or '{"nftables": []}')
        what = (
            "net.ipv4.ip_forward = 1, which an earlier version has set: this host forwards between its other networks"
        )
        return warning(
            "transit",
            what + ("" if needing is None else f"; left, as {needing} needs it"),
            "set it in a file of your own in /etc/sysctl.d if it is to stay, else sysctl -w net.ipv4.ip_forward=0",
        )
    others = ["IPv4"] if host.values.get(host_forwarding.IP_FORWARD) == ON else []
    if ipv6 and not host.owns_ipv6:
        others.append("IPv6")
    if not others:
        return ok("transit", "this host forwards for clients alone; egress.forward_others = true ends that")
    return ok(
        "transit", f"this host forwards between its other networks in {' and '.join(others)}: others switched it on"
    )


def nftables(facts: Facts) -> Finding:
    found = facts.firewall
    if found.ruleset is None:
        if found.fault is not None and "not installed" in found.fault:
            return failed("nftables", "nft is not installed", "apt-get install nftables")
        if not facts.machine.root:
            return unseen("nftables", "the firewall")
        return failed(
            "nftables",
            found.fault or "nft does not work",
            "modprobe nf_tables; apt-get install --reinstall nftables",
        )
    stands = any((table.family, table.name) == ("inet", found.table) for table in nft_json.parse(found.ruleset))
    if stands:
        return ok("nftables", f"table inet {found.table} stands")
    if facts.state is not None and facts.state.served:
        return failed(
            "nftables", f"table inet {found.table} is missing: nothing is translated, nothing is blocked", RESTART
        )
    return ok("nftables", "usable")


def forward(facts: Facts) -> Finding:
    """Checks whether another packet filter of this host drops packets from or to clients."""
    if facts.firewall.ruleset is None:
        return unseen("forward", "the firewall") if not facts.machine.root else _blind("forward")
    dropping = [
        obstacle
        for packet in coexistence.forwarded(_way(facts))
        for obstacle in obstacles(tables(facts.firewall), "forward", packet)
    ]
    interface = facts.settings.wireguard.interface
    out = next((uplink.interface for uplink in facts.network.uplinks.values()), "<uplink>")
    fixes = (_let_forward(obstacle, interface, out) for obstacle in dropping)
    return _finding(
        facts,
        "forward",
        dropping,
        "what clients send or receive",
        fixes,
        "no packet filter drops what clients send or receive",
    )


def udp_filter(facts: Facts) -> Finding:
    """Checks whether clients' handshakes reach the UDP port."""
    if facts.firewall.ruleset is None:
        return unseen("udp-filter", "the firewall") if not facts.machine.root else _blind("udp-filter")
    port = facts.settings.wireguard.listen_port
    packet = _handshake(facts)
    dropping = [] if packet is None else list(obstacles(tables(facts.firewall), "input", packet))
    fixes = (_let_in(obstacle, port) for obstacle in dropping)
    passes = f"this host lets UDP port {port} in; a firewall of the provider's cannot be seen from here"
    return _finding(facts, "udp-filter", dropping, f"UDP port {port}", fixes, passes)


def tables(firewall: Filters) -> list[Table]:
    """Returns all filter tables but the appliance's own. Output of iptables-save replaces nft's view of its tables."""
    listed = nft_json.parse(firewall.ruleset or '{"nftables": []}')
    shown = [iptables_save.parse(text, family) for family, text in firewall.iptables.items()]
    shown += [
        iptables_save.parse(text, family, legacy=True) for family, text in firewall.legacy.items() if text is not None
    ]
    replaced = {(family, "filter") for family in firewall.iptables} | {("inet", firewall.table)}
    return [table for table in listed if (table.family, table.name) not in replaced] + shown


def _finding(
    facts: Facts, check: str, dropping: list[Obstacle], packets: str, fixes: Iterator[str], passes: str
) -> Finding:
    unread = [family for family, text in facts.firewall.legacy.items() if text is None]
    if not dropping and unread:
        what = "there are rules of iptables-legacy, which cannot be read"
        return warning(check, what, f"{PROGRAMS[unread[0]]}-legacy -S, or apt-get install iptables")
    if not dropping:
        return ok(check, passes)
    surely = [obstacle for obstacle in dropping if obstacle.surely]
    names = _each_once(_name(obstacle) for obstacle in surely or dropping)
    mend = " && ".join(_each_once(fixes))
    if surely:
        return failed(check, f"{', '.join(names)} drops {packets}", mend)
    return warning(check, f"{', '.join(names)} may drop {packets}; some of its rules are not understood here", mend)


def _blind(check: str) -> Finding:
    return warning(check, "cannot be checked without a working nft", "apt-get install nftables")


def _way(facts: Facts) -> coexistence.ExitTraffic:
    tunnel = facts.settings.wireguard
    uplinks = {version: uplink.interface for version, uplink in facts.network.uplinks.items()}
    subnets = tuple(subnet for subnet in (tunnel.subnet, tunnel.subnet6) if subnet is not None)
    return coexistence.ExitTraffic(tunnel.interface, tunnel.listen_port, subnets, uplinks)


def _handshake(facts: Facts) -> Packet | None:
    version = facts.dialled_version
    uplink = facts.network.uplinks.get(version)
    if uplink is None:
        return None
    port, there = facts.settings.wireguard.listen_port, coexistence.SOMEWHERE[version]
    return Packet(uplink.interface, None, there, uplink.address or there, "udp", coexistence.ANY_PORT, port, "new")


def _name(obstacle: Obstacle) -> str:
    table, chain = obstacle.table, obstacle.chain
    owner = _owner(table)
    where = _iptables(table) if table.legacy else f"table {table.family} {table.name}"
    return f"{f'{owner}, ' if owner else ''}chain {chain.name} of {where}"


def _owner(table: Table) -> str | None:
    """Guesses the program that owns a table, by the names in it."""
    if table.name == "firewalld":
        return "firewalld"
    if any(name.startswith(("ufw-", "ufw6-")) for name in table.chains):
        return "ufw"
    return "Docker" if "DOCKER-USER" in table.chains else None


def _let_forward(obstacle: Obstacle, interface: str, out: str) -> str:
    table, chain = obstacle.table, obstacle.chain
    match _owner(table):
        case "firewalld":
            return f"firewall-cmd --permanent --zone=trusted --add-interface={interface} && firewall-cmd --reload"
        case "ufw":
            return f"ufw route allow in on {interface} out on {out}"
        case "Docker":
            name = "DOCKER-USER"
        case _:
            name = chain.name
    if _is_iptables(table):
        insert = f"{_iptables(table)} -I {name}"
        back = "-m conntrack --ctstate RELATED,ESTABLISHED"
        return f"{insert} -i {interface} -j ACCEPT && {insert} -o {interface} {back} -j ACCEPT"
    insert = f"nft insert rule {table.family} {table.name} {chain.name}"
    return f"{insert} iifname {interface} accept && {insert} oifname {interface} ct state established,related accept"


def _let_in(obstacle: Obstacle, port: int) -> str:
    table, chain = obstacle.table, obstacle.chain
    owner = _owner(table)
    if owner == "firewalld":
        return f"firewall-cmd --permanent --add-port={port}/udp && firewall-cmd --reload"
    if owner == "ufw":
        return f"ufw allow {port}/udp"
    if _is_iptables(table):
        return f"{_iptables(table)} -I {chain.name} -p udp --dport {port} -j ACCEPT"
    return f"nft insert rule {table.family} {table.name} {chain.name} udp dport {port} accept"


def _is_iptables(table: Table) -> bool:
    """Tells whether iptables owns the table: `filter` of one IP version, with chains in capitals."""
    return table.family in PROGRAMS and table.name == "filter" and {"INPUT", "FORWARD"} & set(table.chains) != set()


def _iptables(table: Table) -> str:
    """Returns the program that changes the table. Packets pass both kinds: one may drop what the other accepts."""
    return PROGRAMS[table.family] + ("-legacy" if table.legacy else "")


def _each_once(words: Iterator[str]) -> list[str]:
    return list(dict.fromkeys(words))
