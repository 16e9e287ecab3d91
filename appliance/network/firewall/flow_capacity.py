"""Decides how many connections the host tracks at a time, and how many of them one client may have. Pure."""

from __future__ import annotations

from dataclasses import dataclass

MAX, BUCKETS, COUNT = (f"net/netfilter/nf_conntrack_{name}" for name in ("max", "buckets", "count"))
MEMORY_SHARE = 20  # at most a twentieth of the memory
# struct nf_conn with its slab's rest (320), the first block of extensions, which NAT needs (NF_CT_EXT_PREALLOC), and
# half a bucket of 8 bytes.
ENTRY_BYTES = 320 + 128 + 4
LARGEST = 1 << 19  # the kernel walks all buckets to find flows: half of this many take some 9 ms
STEP = 1 << 12
ENTRIES_PER_BUCKET = 2  # an entry is in two chains, so four to a chain when it is full

AUTO_FLOWS, AUTO_SHARE = 4096, 16
ENOUGH = AUTO_FLOWS * AUTO_SHARE  # from here on each client may have as many as it would anywhere


@dataclass(frozen=True, slots=True)
class TableSize:
    """Holds the size of the table. `count`: entries of this network namespace. `limit` 0: none."""

    count: int
    limit: int
    buckets: int

    @property
    def share(self) -> float:
        """Returns how full the table is, from 0 to 1."""
        return self.count / self.limit if self.limit else 0.0


def wanted_limit(memory_bytes: int) -> int:
    """Returns how many entries this much memory allows."""
    affordable = memory_bytes // MEMORY_SHARE // ENTRY_BYTES
    return min(LARGEST, affordable - affordable % STEP)


def larger(size: TableSize, memory_bytes: int) -> dict[str, str]:
    """Returns the sysctls to set, by path below /proc/sys; none if the table is as large as it may be."""
    wanted = wanted_limit(memory_bytes)
    if not 0 < size.limit < wanted:
        return {}
    buckets = wanted // ENTRIES_PER_BUCKET
    return ({BUCKETS: str(buckets)} if size.buckets < buckets else {}) | {MAX: str(wanted)}


def flows_of_one(limit: int) -> int:
    """Returns how many connections one client may have by default, where the table has this limit."""
    return max(1, min(AUTO_FLOWS, limit // AUTO_SHARE)) if limit else AUTO_FLOWS
