"""Counts what handshakes move that come to nothing: bytes of a device without a session, which its next one has."""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec.structs import replace

from appliance.domain import accounting
from appliance.domain.windows import MOST

if TYPE_CHECKING:
    from collections.abc import Container, Iterable

    from appliance.domain.accounting import Counters
    from appliance.domain.clock import Moment
    from appliance.domain.device import Device
    from appliance.network.wireguard.tunnel import Dump
    from appliance.store.live_devices import LiveDevices


def read_unfinished(
    devices: LiveDevices, sessions: Container[bytes], moved: Iterable[bytes], dump: Dump, now: Moment
) -> list[Device]:
    """Returns the devices whose counters have moved, with that counted. `sessions`: the keys that have one.

    One whose handshake was finished is not among them: its session counts from where it was counted last.
    """
    found = []
    for key in moved if devices else ():
        device, sample = devices.get(key), dump.peers.get(key)
        if device is None or sample is None or key in sessions:
            continue
        if sample.last_handshake_ns in (0, device.handshake_seen_ns):
            counters = moved_of(device, dump, now)
            if counters.rx_bytes or counters.tx_bytes:
                found.append(_counted(device, counters))
    return found


def moved_of(device: Device, dump: Dump, now: Moment) -> Counters:
    """Returns what the peer of a device, which the dump shows, has moved since it was last counted."""
    sample = dump.peers[device.public_key]
    return accounting.read_counters(
        device.baseline, sample.rx_bytes, sample.tx_bytes, boot_id=now.boot_id, ifindex=dump.ifindex
    )


def unowned_bytes(device: Device, dump: Dump, now: Moment) -> int:
    """Returns what no session can have any more of a device that has none, and is not to have another."""
    unfinished = device.unfinished_rx + device.unfinished_tx
    if device.public_key not in dump.peers:
        return unfinished
    counters = moved_of(device, dump, now)
    return unfinished + counters.rx_bytes + counters.tx_bytes


def _counted(device: Device, counters: Counters) -> Device:
    return replace(
        device,
        unfinished_rx=min(device.unfinished_rx + counters.rx_bytes, MOST),
        unfinished_tx=min(device.unfinished_tx + counters.tx_bytes, MOST),
        baseline=counters.baseline,
    )
