"""Represents the result of a check: one line, and the command that fixes it. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

START = "systemctl start wg-appliance"
RESTART = "systemctl restart wg-appliance"


class Status(StrEnum):
    OK = "ok"
    WARNING = "warning"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class Finding:
    """Holds the result of a check. `mend`: the command to run, or the edit to make; empty if all is well."""

    check: str
    status: Status
    what: str
    mend: str = ""


def ok(check: str, what: str) -> Finding:
    return Finding(check, Status.OK, what)


def warning(check: str, what: str, mend: str) -> Finding:
    return Finding(check, Status.WARNING, what, mend)


def failed(check: str, what: str, mend: str) -> Finding:
    return Finding(check, Status.FAILED, what, mend)


def unseen(check: str, what: str) -> Finding:
    """Reports that the facts for a check can be read by root only."""
    return warning(check, f"{what} cannot be seen without root", "sudo wg-appliance doctor")
