"""Finds handshakes of devices that have no session: finished ones, which begin one, and those that come to nothing, of
which the next one has the bytes."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import TYPE_CHECKING

from msgspec.structs import replace

from appliance.domain import accounting
from appliance.domain.accounting import Reading
from appliance.domain.charges import Amount
from appliance.domain.windows import MOST
from appliance.metering import handshakes

if TYPE_CHECKING:
    from collections.abc import Container, Mapping

    from appliance.domain.accounting import Counters
    from appliance.domain.believed_clock import BelievedClock
    from appliance.domain.clock import Moment
    from appliance.domain.device import Device
    from appliance.domain.entities import Session
    from appliance.network.wireguard.tunnel import Dump, PeerState
    from appliance.store.live_devices import LiveDevices


@dataclass(frozen=True, slots=True)
class Handshake:
    """Holds a handshake of a device without a session: its kernel's time, and when it was found.

    It lets the tunnel carry until `carries_until_ms`, and the session's time begins at `begins_ms` (CLOCK_BOOTTIME).
    Since `unmoved_until` the peer's counters may have moved.
    """

    seen_ns: int
    found: Moment
    begins_ms: int
    carries_until_ms: int
    unmoved_until: Moment


class DeviceHandshakes:
    """Reads dumps for devices without sessions. What it has found stays until its session has begun, or cannot."""

    def __init__(self, devices: LiveDevices, clock: BelievedClock, reject_after_ms: int) -> None:
        self._devices = devices
        self._clock = clock
        self._reject_after_ms = reject_after_ms
        self._found: dict[bytes, Handshake] = {}

    def read(
        self,
        sessions: Container[bytes],
        moved: Mapping[bytes, Moment | None],
        dump: Dump,
        now: Moment,
        heartbeat: Moment,
        *,
        first: bool,
    ) -> list[Device]:
        """Notes the finished handshakes, and returns the devices of others, with what has moved counted.

        `sessions`: the keys that have one. `moved`: the peers that have changed, since when; None: the heartbeat.
        `first`: this process has not looked before.
        """
        unfinished = []
        for key in moved if self._devices else ():
            device, sample = self._devices.get(key), dump.peers.get(key)
            if device is None or sample is None or key in sessions or not device.installed:
                continue
            if sample.last_handshake_ns in (0, device.handshake_seen_ns):
                counters = moved_of(device, dump, now)
                if counters.rx_bytes or counters.tx_bytes:
                    unfinished.append(_counted(device, counters))
                if first and key in self._devices.left_to_next:
                    self._go_on(sample, heartbeat, now)
                continue
            known = self._found.get(key)
            if known is None or known.seen_ns != sample.last_handshake_ns:
                self._found[key] = self._handshake(sample, moved[key] or heartbeat, now, first=first)
        return unfinished

    def _go_on(self, sample: PeerState, before: Moment, now: Moment) -> None:
        """Notes the handshake of a session that was to be followed by the next, if it lets the tunnel carry still: the
        process before this one has not begun the next, which begins now."""
        handshake = self._handshake(sample, before, now, first=True)
        if sample.last_handshake_ns and handshake.carries_until_ms > now.boot_ms:
            self._found[sample.public_key] = dataclasses.replace(handshake, begins_ms=now.boot_ms)

    def _handshake(self, sample: PeerState, before: Moment, now: Moment, *, first: bool) -> Handshake:
        """Returns a handshake, which counts from the look that finds it.

        What the first look finds was while this process was away, or was found by the one before, which has not stored
        it. It counts from when it was, and from no earlier than the last heartbeat.
        """
        place = handshakes.shaken_at if first else handshakes.shaken
        was = place(sample.last_handshake_ns, before, now, self._clock.ahead_ms)
        return Handshake(
            seen_ns=sample.last_handshake_ns,
            found=now,
            begins_ms=was.until_ms if first else now.boot_ms,
            carries_until_ms=was.from_ms + self._reject_after_ms,
            unmoved_until=before,
        )

    def waiting(self, sessions: Container[bytes], dump: Dump) -> dict[bytes, Handshake]:
        """Returns the handshakes, by key, whose sessions have not begun; forgets the others.

        `sessions`: the keys that have one. A peer that the dump lacks has lost its handshake.
        """
        self._found = {
            key: handshake
            for key, handshake in self._found.items()
            if key in dump.peers and key not in sessions and self._devices.get(key) is not None
        }
        return dict(self._found)

    def keep(self, public_key: bytes, handshake: Handshake) -> None:
        """Has the session of a handshake asked for again, which could not begin."""
        self._found.setdefault(public_key, handshake)

    def begun(self, public_key: bytes) -> None:
        """Forgets the handshake of a session that has begun."""
        self._found.pop(public_key, None)


def moved_of(device: Device, dump: Dump, now: Moment) -> Counters:
    """Returns what the peer of a device, which the dump shows, has moved since it was last counted."""
    sample = dump.peers[device.public_key]
    return accounting.read_counters(
        device.baseline, sample.rx_bytes, sample.tx_bytes, boot_id=now.boot_id, ifindex=dump.ifindex
    )


def given_up(device: Device, dump: Dump, now: Moment) -> Device:
    """Returns the device with what its peer has moved counted, which the dump may show: as of handshakes that come to
    nothing, as its session cannot begin before its peer goes."""
    return _counted(device, moved_of(device, dump, now)) if device.public_key in dump.peers else device


def first_reading(session: Session, device: Device, now: Moment) -> Reading:
    """Returns what handshakes have moved that came to nothing, for the session that has it."""
    amount = Amount(0, device.unfinished_rx, device.unfinished_tx)
    after = replace(session, bytes_in=amount.bytes_in, bytes_out=amount.bytes_out)
    return Reading(amount, now.wall_ms, now.wall_ms, after, None)


def unowned_bytes(device: Device, dump: Dump | None, now: Moment) -> int:
    """Returns what no session can have any more of a device that has none, and is not to have another.

    `dump` None: the peer with its key is another's by now.
    """
    unfinished = device.unfinished_rx + device.unfinished_tx
    if dump is None or device.public_key not in dump.peers:
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
