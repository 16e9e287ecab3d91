"""What a check found: one line, and the command that mends it. Pure."""

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
    """`mend`: the command to run, or the edit to make; empty where all is well."""

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
    """What only root may look at."""
    return warning(check, f"{what} cannot be seen without root", "sudo wg-appliance doctor")
