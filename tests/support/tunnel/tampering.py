"""The table of what somebody may change behind the appliance's back, and what is to come of it."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum


class Loss(Enum):
    """How many outages a client may have that the tampering is not meant for."""

    NONE = 0  # not one packet is lost
    UNTIL_REPAIRED = 1
    TWICE = 2  # as it is changed, and as it is changed back


class Sessions(Enum):
    """Whose WireGuard sessions the tampering ends on the exit. A client notices 15 s after the last answer."""

    STAY = "nobody's"
    CONCERNED = "the concerned client's"
    ALL = "everybody's"


@dataclass(frozen=True, slots=True)
class Row:
    """`fact` is what to watch for the repair, `repairs` all that is to be logged of it.

    `{concerned}`, `{addresses}` and `{session}` are a client's key, allowed-ips and session, `{sessions}` those of
    both clients, `{foreign}` is a key of no session, `{abbreviated}` what is logged of it, `{wireguard_go}` a process.
    """

    name: str
    tamper: str
    fact: str
    repairs: tuple[str, ...]
    ipv4: Loss = Loss.NONE
    ipv6: Loss = Loss.NONE
    sessions: Sessions = Sessions.STAY
    userspace_only: bool = False


NONE, UNTIL_REPAIRED = Loss.NONE, Loss.UNTIL_REPAIRED
OWN, OWN6 = "10.101.0.1/24", "fd65:7869:7400::1/112"
RULES = "nftables table inet wg_appliance applied again: it was changed"
IP_RULES = "ip rules 100 to 102 set again: they were changed"
FILTER = "egress filter of {wg} set again: it was changed"
ALL_ANEW = (
    f"interface: created, mtu 1420, added {OWN}, added {OWN6}, up",
    "device: private key or port set",
    "peers restored count=2 sessions={sessions}",
)

TABLE = [
    # With the interface go everybody's peers.
    Row("interface deleted", "ip link del {wg}", "peers", ALL_ANEW, UNTIL_REPAIRED, UNTIL_REPAIRED, Sessions.ALL),
    Row(
        "wireguard-go killed",
        "kill -KILL {wireguard_go}",
        "peers",
        ALL_ANEW,
        UNTIL_REPAIRED,
        UNTIL_REPAIRED,
        Sessions.ALL,
        userspace_only=True,
    ),
    # Going down, the interface drops all sessions and loses its IPv6 addresses. It keeps the peers.
    Row(
        "interface set down",
        "ip link set {wg} down",
        "link",
        (f"interface: added {OWN6}, up",),
        UNTIL_REPAIRED,
        UNTIL_REPAIRED,
        Sessions.ALL,
    ),
    Row(
        "peer removed",
        "wg set {wg} peer {concerned} remove",
        "peers",
        ("peers restored count=1 sessions={session}",),
        sessions=Sessions.CONCERNED,
    ),
    Row(
        "foreign peer added",
        "wg set {wg} peer {foreign} allowed-ips 10.101.0.77/32",
        "peers",
        ("peers of no session removed count=1 keys={abbreviated}",),
    ),
    Row(
        "address taken by a foreign peer",
        "wg set {wg} peer {foreign} allowed-ips {addresses}",
        "peers",
        ("peers of no session removed count=1 keys={abbreviated}", "allowed-ips set count=1 sessions={session}"),
    ),
    Row(
        "allowed-ips changed",
        "wg set {wg} peer {concerned} allowed-ips 10.101.0.78/32",
        "peers",
        ("allowed-ips set count=1 sessions={session}",),
    ),
    # The others' own addresses are more specific.
    Row(
        "allowed-ips made everything",
        "wg set {wg} peer {concerned} allowed-ips 0.0.0.0/0,::/0",
        "peers",
        ("allowed-ips set count=1 sessions={session}",),
    ),
    # One key and one port for everybody.
    Row(
        "private key changed",
        "wg genkey | wg set {wg} private-key /proc/self/fd/0",
        "key",
        ("device: private key or port set",),
        UNTIL_REPAIRED,
        UNTIL_REPAIRED,
    ),
    # A client may have followed the exit to the other port before it is set back.
    Row(
        "port changed",
        "wg set {wg} listen-port 51999",
        "port",
        ("device: private key or port set",),
        Loss.TWICE,
        Loss.TWICE,
    ),
    Row("MTU changed", "ip link set {wg} mtu 1300", "link", ("interface: mtu 1420",)),
    # Below 1280 there is no IPv6.
    Row(
        "MTU too small for IPv6",
        "ip link set {wg} mtu 1200",
        "addresses",
        (f"interface: mtu 1420, added {OWN6}",),
        NONE,
        UNTIL_REPAIRED,
    ),
    # With the address goes the route to the clients.
    Row(
        "IPv4 address removed",
        f"ip address del {OWN} dev {{wg}}",
        "addresses",
        (f"interface: added {OWN}",),
        UNTIL_REPAIRED,
        NONE,
    ),
    Row(
        "IPv6 address removed",
        f"ip address del {OWN6} dev {{wg}}",
        "addresses",
        (f"interface: added {OWN6}",),
        NONE,
        UNTIL_REPAIRED,
    ),
    Row(
        "foreign address added",
        "ip address add 192.0.2.77/32 dev {wg}",
        "addresses",
        ("interface: removed 192.0.2.77/32",),
    ),
    # Without the table nobody's source address is translated.
    Row("table deleted", "nft delete table inet wg_appliance", "table", (RULES,), UNTIL_REPAIRED, UNTIL_REPAIRED),
    Row("ruleset flushed", "nft flush ruleset", "table", (RULES,), UNTIL_REPAIRED, UNTIL_REPAIRED),
    # A flow that was translated stays so: the kernel asks the rules for its first packet. But while the table is
    # replaced, the kernel has its rules and not yet its sets: for a moment nothing is admitted, a packet may be lost.
    Row(
        "translation flushed",
        "nft flush chain inet wg_appliance nat",
        "table",
        (RULES,),
        UNTIL_REPAIRED,
        UNTIL_REPAIRED,
    ),
    Row(
        "sources flushed",
        "nft flush chain inet wg_appliance sources",
        "table",
        (RULES,),
        UNTIL_REPAIRED,
        UNTIL_REPAIRED,
    ),
    Row(
        "blocks flushed",
        "nft flush chain inet wg_appliance from_clients",
        "table",
        (RULES,),
        UNTIL_REPAIRED,
        UNTIL_REPAIRED,
    ),
    Row(
        "blocked networks emptied",
        "nft flush set inet wg_appliance private4",
        "table",
        (RULES,),
        UNTIL_REPAIRED,
        UNTIL_REPAIRED,
    ),
    Row(
        "rule deleted",
        "nft delete rule inet wg_appliance from_clients handle "
        "$(nft -a list chain inet wg_appliance from_clients | sed -n 's/.*@private4.* handle //p')",
        "table",
        (RULES,),
        UNTIL_REPAIRED,
        UNTIL_REPAIRED,
    ),
    Row(
        "foreign rule that accepts",
        "nft insert rule inet wg_appliance forward accept",
        "table",
        (RULES,),
        UNTIL_REPAIRED,
        UNTIL_REPAIRED,
    ),
    Row(
        "foreign rule that drops",
        "nft insert rule inet wg_appliance forward drop",
        "table",
        (RULES,),
        UNTIL_REPAIRED,
        UNTIL_REPAIRED,
    ),
    # One rule is deleted, not all: the repair of the first comes before the next command.
    Row("IPv4 rule deleted", "ip -4 rule del iif {wg} prohibit", "policy rules", (IP_RULES,)),
    # Without the rule that admitted packets jump to they are prohibited as all others.
    Row("IPv6 rule deleted", "ip -6 rule del iif {wg} nop", "policy rules", (IP_RULES,), NONE, UNTIL_REPAIRED),
    Row("egress filter deleted", "tc filter del dev {wg} egress", "filter", (FILTER,)),
    # Linux (seen: 6.18) drops what is sent while a qdisc is removed, and while one is added.
    Row(
        "egress qdisc deleted",
        "tc qdisc del dev {wg} clsact",
        "filter",
        (FILTER,),
        Loss.TWICE,
        Loss.TWICE,
    ),
    # Without their routes clients get no answers.
    Row(
        "IPv4 route removed",
        "ip route del 10.101.0.0/24 dev {wg}",
        "routes",
        ("interface: route to 10.101.0.0/24 added",),
        UNTIL_REPAIRED,
        NONE,
    ),
    Row(
        "IPv6 route removed",
        "ip -6 route del fd65:7869:7400::/112 dev {wg}",
        "routes",
        ("interface: route to fd65:7869:7400::/112 added",),
        NONE,
        UNTIL_REPAIRED,
    ),
    Row(
        "tunnel's forwarding off",
        "sysctl -qw net.ipv4.conf.{wg}.forwarding=0",
        "sysctls",
        ("interface: forwarding on",),
        UNTIL_REPAIRED,
        NONE,
    ),
    Row(
        "uplink's forwarding off",
        "sysctl -qw net.ipv4.conf.wan.forwarding=0",
        "sysctls",
        ("sysctl net.ipv4.conf.wan.forwarding = 1 (was 0)",),
        UNTIL_REPAIRED,
        NONE,
    ),
    Row(
        "IPv6 forwarding off",
        "sysctl -qw net.ipv6.conf.all.forwarding=0",
        "sysctls",
        ("sysctl net.ipv6.conf.all.forwarding = 1 (was 0)",),
        NONE,
        UNTIL_REPAIRED,
    ),
    Row(
        "send_redirects on",
        "sysctl -qw net.ipv4.conf.all.send_redirects=1",
        "sysctls",
        ("sysctl net.ipv4.conf.all.send_redirects = 0 (was 1)",),
    ),
]
