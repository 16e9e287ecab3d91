"""Reads the rules of iptables, whichever of its kinds the host uses. Blocking."""

from __future__ import annotations

import logging

from appliance.network import programs

log = logging.getLogger(__name__)

SAVED_BY = ("iptables-save", "ip6tables-save")
TIMEOUT_S = 10.0


def saved() -> str:
    """Returns the rules as iptables-save prints them; without those of a program that is missing, or refuses."""
    return "".join(map(_output, SAVED_BY))


def _output(program: str) -> str:
    try:
        # Without a table's name: with one it would load the modules of a table that is not there.
        return programs.run(program, timeout_s=TIMEOUT_S)
    except programs.ProgramFailed as error:
        log.debug("%s: %s", program, error)
        return ""
