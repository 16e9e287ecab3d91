"""Renders the limits of one client's connections: how many it has at a time, and how many new ones a second. Pure.

A connection is rejected before conntrack confirms it, so what is over a limit takes no room in the host's table. Both
IP versions count together: a client's addresses have the same place in both subnets, by which the sets' elements are
found: 16 bits, those of the widest subnet. There is no typed expression for a part of an address.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from appliance.network.firewall.chains.destinations import PROHIBITED

if TYPE_CHECKING:
    from collections.abc import Iterator

    from appliance.network.firewall.rules import EgressRules

# A client's last 16 bits: offsets in bits from the network header, of the end of the source address (RFC 791, 8200).
PLACES = (("ipv4", 112), ("ipv6", 176))
PLACE = "@nh,112,16"  # of the sets' elements, by its size alone
BURST_S = 10  # seconds' worth of new connections that a client may open at once
HOOKS = ("forward", "input")
# How long conntrack keeps a TCP connection that was reset (net.netfilter.nf_conntrack_tcp_timeout_close, by default).
RESET_KEPT_S = 10

# A connection that was reset is not counted any more (net/netfilter/nf_conncount.c, already_closed), but the other side
# may answer another SYN on it (nf_conntrack_proto_tcp.c, TCP_CONNTRACK_IGNORE): it would then live on uncounted. The
# SYN is repeated until the entry has gone, and then begins a connection that counts.
_REOPENING = f"tcp flags & (syn | ack) == syn ct state established ct expiration <= {RESET_KEPT_S}s"


def chain(rules: EgressRules) -> Iterator[str]:
    """Renders the sets and chains; none without limits."""
    limits, size = rules.flows, rules.tunnel.subnet.num_addresses
    if not (limits.open or limits.new):
        return
    yield f"  set client_flows {{ typeof {PLACE}; size {size}; flags dynamic; }}"
    # The bucket of a client that has opened nothing for this long is full again.
    yield f"  set client_new_flows {{ typeof {PLACE}; size {size}; flags dynamic,timeout; timeout {2 * BURST_S}s; }}"
    yield "  chain over_limit {"
    # A reset ends a program's wait at once; a TCP client may ignore an ICMP error (RFC 5927).
    yield "    meta l4proto tcp reject with tcp reset"
    yield f"    {PROHIBITED}"
    yield "  }"
    yield "  chain client_limits {"
    yield from _limits(rules)
    yield "  }"
    for hook in HOOKS:
        yield f"  chain client_limits_{hook} {{"
        # Behind the chains that block: what they reject is no connection.
        yield f"    type filter hook {hook} priority filter + 1; policy accept;"
        outof = f'iifname "{rules.tunnel.interface}"'
        # A flow is in state new until it is answered, and confirmed once its first packet has left; one that a helper
        # of conntrack expects (FTP's data) is related.
        yield f"    {outof} ct state new,related ct status ! confirmed jump client_limits"
        if limits.open:
            yield f"    {outof} {_REOPENING} drop"
        yield "  }"


def _limits(rules: EgressRules) -> Iterator[str]:
    # The rate first: it is the cheaper one. The kernel looks through all of a client's connections to count them.
    for version, at in PLACES:
        client = f"@nh,{at},16 & {int(rules.tunnel.subnet.hostmask):#06x}"
        if new := rules.flows.new:
            over = f"limit rate over {new}/second burst {new * BURST_S} packets"
            yield f"    meta nfproto {version} update @client_new_flows {{ {client} {over} }} goto over_limit"
        if most := rules.flows.open:
            yield f"    meta nfproto {version} add @client_flows {{ {client} ct count over {most} }} goto over_limit"
