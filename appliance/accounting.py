"""(baseline, sample) -> delta. Pure; the only place where counters are subtracted."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from appliance.entities import Baseline

if TYPE_CHECKING:
    from appliance.wireguard.tunnel import PeerState


@dataclass(frozen=True, slots=True)
class Reading:
    """What a sample adds to a session, and the baseline to commit together with it."""

    rx_bytes: int
    tx_bytes: int
    baseline: Baseline


def read_counters(baseline: Baseline | None, sample: PeerState, *, boot_id: str, ifindex: int) -> Reading:
    """How many bytes moved since `baseline`.

    A peer's counters start at zero when it is added to an interface and only grow until it is removed. So no
    baseline, another boot or another ifindex means that the whole sample is new. A counter below its
    baseline in the same life means that someone removed the peer and added it again: what it shows since is
    new as well. A re-added peer that has already passed its old baseline cannot be told from one that stayed;
    the difference is then billed, which is never more than what moved.
    """
    rx, tx = sample.rx_bytes, sample.tx_bytes
    if baseline is not None and (baseline.boot_id, baseline.ifindex) == (boot_id, ifindex):
        restarted = rx < baseline.rx_bytes or tx < baseline.tx_bytes
        if not restarted:
            rx, tx = rx - baseline.rx_bytes, tx - baseline.tx_bytes
    return Reading(rx, tx, Baseline(boot_id, ifindex, sample.rx_bytes, sample.tx_bytes))
