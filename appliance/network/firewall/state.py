"""Compares the host's firewall state with the wanted one, and returns the changes. Pure."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from appliance.network.firewall.forwarding import HostForwarding, disowned, to_set

if TYPE_CHECKING:
    from collections.abc import Mapping


@dataclass(frozen=True, slots=True)
class EgressState:
    """Holds the current state. `rules_stand`: the table is as last applied.

    `others_seen`: no other table has changed since all of them were checked for letting clients through.
    `needed_by_others`: other programs rely on the global IPv4 switch that
    an earlier version has set. `changed_by`: the program that changed the table last, empty if it is not known.
    `policy_rules_stand`, `filter_stands`: the ip rules, and the filter of the tunnel's interface, if there is one.
    `declared`: the rules that do not stand are others than were ever applied.
    """

    rules_stand: bool
    forwarding: HostForwarding
    others_seen: bool = True
    changed_by: str = ""
    needed_by_others: bool = False
    policy_rules_stand: bool = True
    filter_stands: bool = True
    declared: bool = False


@dataclass(frozen=True, slots=True)
class EgressChanges:
    """Lists changes, to be applied in field order: nothing is forwarded before the blocks are in place.

    `disowned`: sysctls that are another program's by now. `give_back`: the global IPv4 switch, which an earlier version
    has set, unless another program needs it. `close`: the table is to be restored later, and removed until then: half
    a table may translate and not block. `declared`: the rules are new, not undone by another program.
    """

    close: bool = False
    rules: bool = False
    policy_rules: bool = False
    filter: bool = False
    disowned: frozenset[str] = frozenset()
    give_back: bool = False
    sysctls: Mapping[str, str] = field(default_factory=dict)  # in the order in which to set them
    others: bool = False
    declared: bool = False


def reconcile(state: EgressState, *, interface: str, ipv6: bool) -> EgressChanges | None:
    """Returns the changes to make, None if there are none. `interface`: the tunnel's; `ipv6`: whether it has IPv6."""
    host = state.forwarding
    changes = EgressChanges(
        rules=not state.rules_stand,
        policy_rules=not state.policy_rules_stand,
        filter=not state.filter_stands,
        disowned=disowned(host, interface),
        give_back=host.set_by_earlier_version and not state.needed_by_others,
        sysctls=to_set(host, interface, ipv6=ipv6),
        others=not state.others_seen,
        declared=state.declared and not state.rules_stand,
    )
    return None if changes == EgressChanges() else changes
