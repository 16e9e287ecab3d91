"""Finds what marks and priorities this host's other programs use, and notes what was chosen beside them. Blocking."""

from __future__ import annotations

import logging
from contextlib import suppress
from typing import TYPE_CHECKING

from appliance.config import state_file
from appliance.domain.errors import HostError
from appliance.network import programs
from appliance.network.admission.admission import listed_rules
from appliance.network.admission.mark import Mark, choose, is_possible, others
from appliance.network.firewall import iptables, nft

if TYPE_CHECKING:
    from pathlib import Path

log = logging.getLogger(__name__)

LISTING_TIMEOUT_S = 10.0


def mark_of_this_exit(wanted: tuple[int | None, int | None], interface: str, table: str | None, record: Path) -> Mark:
    """Returns the mark's bit and the rules' priority: as configured (None: auto), as noted, or free ones, then noted.

    `table`: our own nftables table, if there is one.

    Raises HostError if what was configured is another program's.
    """
    try:
        rules = listed_rules()
    except OSError as error:
        raise HostError(f"the host's ip rules cannot be read: {error.strerror}") from error
    used = others(rules, _output(nft.PROGRAM, *nft.LIST_TERSE), iptables.saved(), interface, table)
    before = noted(record)
    mark = choose(wanted, before, used)
    if before is not None and mark.bit != before.bit and (user := used.bits.get(before.bit)):
        log.warning("%s uses the bit %#x of packet marks too: %#x is used now", user, before.bit, mark.bit)
    if mark != before:
        note(mark, record)
    return mark


def _output(program: str, *arguments: str) -> str:
    """Returns what a program prints; nothing if it is missing, or refuses: its rules are none that packets meet."""
    try:
        return programs.run(program, *arguments, timeout_s=LISTING_TIMEOUT_S)
    except programs.ProgramFailed as error:
        log.debug("%s: %s", program, error)
        return ""


def noted(record: Path) -> Mark | None:
    """Returns the mark that was noted last; None if there is none, or it cannot be read."""
    with suppress(OSError, ValueError, LookupError, TypeError):
        content = state_file.read_json(record)
        mark = Mark(content["mark"], content["rule_priority"])
        return mark if is_possible(mark) else None
    return None


def note(mark: Mark, record: Path) -> None:
    """Notes the mark, so that the next start uses the same. Raises HostError."""
    try:
        state_file.write_json(record, {"mark": mark.bit, "rule_priority": mark.priority})
    except OSError as error:
        raise HostError(f"cannot note the packet mark in {record}: {error.strerror}") from error
