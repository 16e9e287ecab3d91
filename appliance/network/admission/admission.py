"""Keeps the policy rules and the tunnel's filter in place. Each call is a few netlink requests, answered at once."""

from __future__ import annotations

import errno
import logging
import socket
from dataclasses import replace
from typing import TYPE_CHECKING

from appliance.domain.errors import EgressError, HostError
from appliance.network.admission import policy_rules, tunnel_filter
from appliance.network.admission.mark import first_of_others, is_good, place
from appliance.network.interfaces import has_ipv6
from appliance.network.netlink import constants, route

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator

    from appliance.network.admission.mark import Mark
    from appliance.network.admission.policy_rules import PolicyRule

log = logging.getLogger(__name__)

# The kernel lacks it: policy rules (CONFIG_IP_MULTIPLE_TABLES, CONFIG_IPV6_MULTIPLE_TABLES), sch_ingress or cls_bpf.
LACKING = (errno.EOPNOTSUPP, errno.ENOENT, errno.EAFNOSUPPORT)
_LISTING = bytes(12)  # struct fib_rule_hdr


class Admission:
    """Admits what has the mark. What the kernel lacks is said once, and counts as in place.

    `moved` is called when the rules have to come before others that were added; None: they stay where they are.
    """

    def __init__(self, interface: str, mark: Mark, moved: Callable[[Mark], None] | None = None) -> None:
        self.mark = mark
        self._moved = moved
        self._interface = interface
        self._lacking: set[str] = set()
        self._set_before = False
        self._filtered: int | None = None  # the index of the interface that has been given its filter
        self._passed_by = False  # whether answers enter the tunnel past the table

    def rules_stand(self) -> bool:
        """Tells whether the policy rules are as wanted, and no others of this exit are there."""
        if "rules" in self._lacking:
            return True
        try:
            mark, missing, excess = self._changes()
        except OSError as error:
            return error.errno in LACKING
        return mark == self.mark and not missing and not excess

    def set_rules(self) -> None:
        """Adds the rules that are missing and removes those that are too many. Raises EgressError."""
        try:
            mark, missing, excess = self._changes()
            self._move(mark)
            for rule in missing:
                self._add(rule)
            for rule in excess:
                _remove(rule)
            again = " again: they were changed" if self._set_before else ""
            log.info("ip rules %d to %d set%s", self.mark.priority, self.mark.priority + policy_rules.SPAN - 1, again)
            self._set_before = True
        except OSError as error:
            if error.errno not in LACKING:
                raise EgressError(f"ip rules for {self._interface} cannot be set: {error.strerror}") from error
            self._say_lacking("rules", "policy routing (CONFIG_IP_MULTIPLE_TABLES)")

    def see_flow_tables(self, *, are_there: bool) -> None:
        """Notes whether flow tables carry packets from an uplink into the tunnel past all chains, unmarked.

        The filter would drop clients' answers, so it is not in place meanwhile.
        """
        if are_there and not self._passed_by:
            log.warning(
                "an nftables flow table carries clients' packets past the table: %s has no egress filter, and what "
                "the host itself sends to clients is not stopped while the table is missing",
                self._interface,
            )
        self._passed_by = are_there

    def filter_stands(self) -> bool:
        """Tells whether the filter is as wanted; without an interface there is nothing to filter."""
        if "filter" in self._lacking or (index := _index(self._interface)) is None:
            return True
        try:
            listed = route.dump(constants.RTM_GETTFILTER, tunnel_filter.place(index, info=0))
        except OSError:
            return self._passed_by  # there is no such qdisc, or the interface went
        return any(tunnel_filter.is_in_place(each.payload, self.mark.bit) for each in listed) != self._passed_by

    def set_filter(self) -> None:
        """Adds the filter, or puts it back; removes it where flow tables pass it by. Raises EgressError."""
        if (index := _index(self._interface)) is None:
            return
        try:
            _ask(constants.RTM_NEWQDISC, constants.NLM_F_EXCL, tunnel_filter.queueing(index), errno.EEXIST)
            # Another's in its place may be of a kind that cannot become ours.
            _ask(constants.RTM_DELTFILTER, 0, tunnel_filter.place(index), errno.ENOENT, errno.EINVAL)
            if self._passed_by:
                self._filtered = None
                return
            _ask(constants.RTM_NEWTFILTER, constants.NLM_F_EXCL, tunnel_filter.encode(index, self.mark.bit))
            if self._filtered == index:
                log.info("egress filter of %s set again: it was changed", self._interface)
            self._filtered = index
        except OSError as error:
            if error.errno == errno.ENODEV:
                return  # the interface went meanwhile; with it, what there was to filter
            if error.errno not in LACKING:
                raise EgressError(f"{self._interface}: its egress filter cannot be set: {error.strerror}") from error
            self._say_lacking("filter", "filters at a device's egress (sch_ingress, cls_bpf)")

    def remove(self) -> None:
        """Removes the rules. The filter goes with the interface. Raises EgressError."""
        try:
            remove_rules(self._interface)
        except OSError as error:
            raise EgressError(f"ip rules for {self._interface} cannot be removed: {error.strerror}") from error

    def admit_all(self) -> None:
        """Removes rules and filter, for a version of the table that marks nothing. Raises EgressError."""
        self.remove()
        if (index := _index(self._interface)) is None or not self.filter_stands():
            return
        try:
            _ask(constants.RTM_DELTFILTER, 0, tunnel_filter.place(index), errno.ENOENT, errno.EINVAL, errno.ENODEV)
        except OSError as error:
            raise EgressError(f"{self._interface}: its egress filter cannot be removed: {error.strerror}") from error

    def _changes(self) -> tuple[Mark, list[PolicyRule], list[PolicyRule]]:
        """Returns the mark as it should be, the rules to add and those to remove."""
        present = list(_listed())
        mark = self._placed(present)
        wanted = policy_rules.wanted(_families(), self._interface, mark.bit, mark.priority)
        return mark, *policy_rules.changes(present, wanted, self._interface)

    def _placed(self, present: Collection[PolicyRule]) -> Mark:
        """Returns the mark with the priority that the rules should have beside those that came and went meanwhile."""
        first = first_of_others(present, self._interface)
        if self._moved is None or is_good(self.mark.priority, first):
            return self.mark
        others = {rule.priority for rule in present if not policy_rules.is_ours(rule, self._interface)}
        return replace(self.mark, priority=place(others, first))

    def _move(self, mark: Mark) -> None:
        if mark != self.mark and self._moved is not None:
            log.info(
                "other programs' ip rules came or went: those of %s move to priority %d", self._interface, mark.priority
            )
            self.mark = mark
            try:
                self._moved(mark)
            except HostError as error:
                log.warning("%s: the next start moves the rules once more", error)

    def _add(self, rule: PolicyRule) -> None:
        _ask(constants.RTM_NEWRULE, constants.NLM_F_EXCL, policy_rules.encode(rule), errno.EEXIST)

    def _say_lacking(self, what: str, named: str) -> None:
        if what not in self._lacking:
            log.warning("this kernel has no %s: while the nftables table is missing, clients are not stopped", named)
        self._lacking.add(what)


def remove_rules(interface: str) -> list[PolicyRule]:
    """Removes the rules of the exit with this interface; returns them. Raises OSError."""
    _, excess = policy_rules.changes(_listed(), (), interface)
    for rule in excess:
        _remove(rule)
    return excess


def listed_rules() -> list[PolicyRule]:
    """Returns the host's policy rules of both IP versions. Raises OSError."""
    return list(_listed())


def _listed() -> Iterator[PolicyRule]:
    for family in _families():
        for each in route.dump(constants.RTM_GETRULE, bytes([family]) + _LISTING[1:]):
            rule = policy_rules.parse(each.payload)
            if rule is not None and rule.family == family:
                yield rule


def _families() -> tuple[int, ...]:
    return (socket.AF_INET, socket.AF_INET6) if has_ipv6() else (socket.AF_INET,)


def _remove(rule: PolicyRule) -> None:
    _ask(constants.RTM_DELRULE, 0, policy_rules.encode(rule), errno.ENOENT)


def _ask(kind: int, flags: int, body: bytes, *as_success: int) -> None:
    create = constants.NLM_F_CREATE if kind not in (constants.RTM_DELRULE, constants.RTM_DELTFILTER) else 0
    try:
        route.request(kind, flags | create, body)
    except OSError as error:
        if error.errno not in as_success:
            raise


def _index(interface: str) -> int | None:
    try:
        return socket.if_nametoindex(interface)
    except OSError:
        return None
