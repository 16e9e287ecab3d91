"""Sizes the kernel's connection tracking table, and puts the sizes back.

Once it is full, the kernel drops each packet that would begin a connection, the host's own too. Its default on a
machine with 1 GB is 8,192 entries, which two clients fill. All network namespaces share the limit, and only the first
one may change it: in a container it is the host's.
"""

from __future__ import annotations

import logging
import os
import re
from typing import TYPE_CHECKING

from appliance.config import state_file
from appliance.domain.errors import EgressError
from appliance.network.firewall.flow_capacity import BUCKETS, COUNT, MAX, TableSize, larger

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

log = logging.getLogger(__name__)

NUMBER = re.compile(r"[0-9]{1,10}")
CHANGEABLE = (BUCKETS, MAX)  # in the order in which to raise them


def read_size(proc: Path) -> TableSize | None:
    """Returns the table's size; None if it cannot be read: conntrack is not loaded, or /proc is hidden."""
    try:
        return TableSize(*(int(_read(proc, name)) for name in (COUNT, MAX, BUCKETS)))
    except (OSError, ValueError):
        return None


def memory(proc: Path) -> int:
    """Returns the memory of the machine in bytes; 0 if it cannot be read."""
    try:
        lines = (proc / "meminfo").read_text(encoding="ascii").splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("MemTotal:")), 0)


def is_changeable(proc: Path) -> bool:
    """Tells whether this process may change the limit, which all network namespaces but the first have read-only."""
    # access(2) leaves out the capability by which the service's user may: opening it asks the kernel itself.
    try:
        os.close(os.open(proc / "sys" / MAX, os.O_WRONLY))
    except OSError:
        return False
    return True


def _read(proc: Path, name: str) -> str:
    return (proc / "sys" / name).read_text(encoding="ascii").strip()


class ConntrackSizes:
    """Raises and restores the table's size. `record` keeps the values from before, of the boot `boot_id`."""

    def __init__(self, proc: Path, record: Path, boot_id: str) -> None:
        self._proc = proc
        self._record = record
        self._boot_id = boot_id

    def raise_limit(self) -> None:
        """Raises the limit to what the memory allows. Raises EgressError if it may not be raised here."""
        size = read_size(self._proc)
        if size is None or not (wanted := larger(size, memory(self._proc))):
            return
        if not is_changeable(self._proc):
            raise EgressError(_fixed(size, wanted[MAX], "read-only here"))
        self._note({**{name: _read(self._proc, name) for name in wanted}, **self._recorded()})
        try:
            for name, value in wanted.items():
                self._write(name, value)
        except OSError as error:
            raise EgressError(_fixed(size, wanted[MAX], error.strerror or str(error))) from error
        log.info("connection tracking has room for %s connections (%d before)", wanted[MAX], size.limit)

    def restore(self) -> list[str]:
        """Restores what `raise_limit` changed in this boot; returns the names. Raises EgressError.

        Only makes the two sizes smaller, as `raise_limit` has made them larger: the record belongs to the service's
        user, whom root does not trust further.
        """
        present = read_size(self._proc)
        sizes = {} if present is None else {BUCKETS: present.buckets, MAX: present.limit}
        recorded = {n: value for n, value in self._recorded().items() if n in sizes and int(value) < sizes[n]}
        try:
            # The limit first: fewer buckets for as many entries would make the chains long.
            for name in reversed(CHANGEABLE):
                if name in recorded:
                    self._write(name, recorded[name])
        except OSError as error:
            raise EgressError(f"cannot restore {', '.join(recorded)}: {error.strerror}") from error
        state_file.forget(self._record)
        return list(recorded)

    def _note(self, before: Mapping[str, str]) -> None:
        try:
            state_file.write_json(self._record, {"boot_id": self._boot_id, "values": dict(before)}, on_disk=True)
        except OSError as error:
            raise EgressError(f"cannot note the table's size in {self._record}: {error.strerror}") from error

    def _recorded(self) -> dict[str, str]:
        try:
            content = state_file.read_json(self._record)
            if content["boot_id"] != self._boot_id:
                return {}
            return {name: value for name, value in content["values"].items() if NUMBER.fullmatch(value)}
        except (OSError, ValueError, TypeError, KeyError, AttributeError):
            return {}

    def _write(self, name: str, value: str) -> None:
        descriptor = os.open(self._proc / "sys" / name, os.O_WRONLY | os.O_TRUNC)  # without O_CREAT
        try:
            os.write(descriptor, value.encode("ascii"))
        finally:
            os.close(descriptor)


def _fixed(size: TableSize, wanted: str, why: str) -> str:
    return (
        f"all connections together are limited to {size.limit}, and nf_conntrack_max cannot be raised: {why}; "
        f"on the machine itself: sysctl -w net.netfilter.nf_conntrack_max={wanted}"
    )
