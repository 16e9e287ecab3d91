"""Checks what stops clients' packets while the firewall's table is missing: ip rules, and the tunnel's filter. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

from appliance.network.admission.mark import first_of_others
from appliance.network.admission.policy_rules import is_ours, wanted
from appliance.ops.doctor.finding import RESTART, Finding, failed, ok, unseen, warning

if TYPE_CHECKING:
    from appliance.ops.doctor.facts import Facts

FAMILIES = {2: "IPv4", 10: "IPv6"}  # linux/socket.h: AF_INET, AF_INET6


def fail_closed(facts: Facts) -> Finding:
    found = facts.forwarding.admission
    if found is None:
        return unseen("fail-closed", "the host's ip rules")
    if facts.state is None or not facts.state.served or found.mark is None:
        return ok("fail-closed", "the server sets ip rules and the tunnel's filter when it starts")
    interface = facts.settings.wireguard.interface
    families = [family for family, name in FAMILIES.items() if name == "IPv4" or facts.network.has_ipv6]
    rules = wanted(families, interface, found.mark.bit, found.mark.priority)
    open_to = {FAMILIES[rule.family] for rule in rules if rule not in found.rules}
    if open_to:
        what = f"the ip rules of {interface} for {' and '.join(sorted(open_to))} are not in place"
        return failed("fail-closed", f"{what}: without the nftables table, nothing stops clients", RESTART)
    if not found.filter_stands:
        what = f"the egress filter of {interface} is not in place"
        return warning(
            "fail-closed",
            f"{what}: are there flow tables (nft list flowtables), or has this kernel no sch_ingress and cls_bpf?",
            "modprobe cls_bpf",
        )
    first = first_of_others([rule for rule in found.rules if not is_ours(rule, interface)], interface)
    if first < found.mark.priority:
        what = f"the ip rule of priority {first} comes before the exit's, {found.mark.priority}"
        mend = f"give it a priority above {found.mark.priority + 2}, and set egress.rule_priority below it"
        return warning("fail-closed", f"{what}: what it routes is not stopped without the nftables table", mend)
    return ok("fail-closed", f"ip rules {found.mark.priority} to {found.mark.priority + 2}, mark {found.mark.bit:#x}")
