"""Records what sessions leave to their devices as they end: what they have used, and how far peers were counted."""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec.structs import replace

from appliance.domain.entities import Reason
from appliance.domain.windows import MOST
from appliance.store.queries import devices as rows

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    import aiosqlite

    from appliance.domain.device import Device
    from appliance.domain.entities import Session
    from appliance.store.live import LiveSessions
    from appliance.store.live_devices import LiveDevices

# After these the device's peer stays as it is: its next session has what its counters move from here on.
KEEP_PEERS = frozenset({Reason.IDLE, Reason.EXPIRED})


def keeps_peer(session: Session, reason: Reason) -> bool:
    """Tells whether the tunnel keeps the peer of a session that ends."""
    return bool(session.device_id) and reason in KEEP_PEERS


async def write(db: aiosqlite.Connection, ended: Iterable[tuple[Session, Reason]]) -> None:
    """Adds sessions to their devices in the caller's transaction.

    They must be marked terminated, and their peers' rows must still be there.
    """
    of_devices = [(session, reason) for session, reason in ended if session.device_id]
    await rows.add_ended(db, [session.id for session, _ in of_devices])
    gone = [(s.device_id, s.public_key) for s, reason in of_devices if not keeps_peer(s, reason)]
    await rows.forget_baselines(db, gone)


def committed(live: LiveSessions, devices: LiveDevices, ended: Iterable[tuple[Session, Reason]]) -> None:
    """Takes the same into memory, while the sessions are still in `live`."""
    for session, reason in ended:
        device = devices.by_id(session.device_id) if session.device_id else None
        if device is not None:
            devices.put(_after(device, live.get(session.public_key) or session, live, reason))


def _after(device: Device, session: Session, live: LiveSessions, reason: Reason) -> Device:
    after = replace(
        device,
        bytes_in=min(device.bytes_in + session.bytes_in, MOST),
        bytes_out=min(device.bytes_out + session.bytes_out, MOST),
        counted_ms=device.counted_ms + session.counted_ms,
        last_handshake_at=device.last_handshake_at if session.last_handshake_at is None else session.last_handshake_at,
    )
    if device.public_key != session.public_key:
        return after  # its key was rotated meanwhile: its peer is another one
    kept = keeps_peer(session, reason)
    return replace(
        after,
        handshake_seen_ns=session.handshake_seen_ns if kept else 0,
        baseline=live.baseline(session.public_key) if kept else None,
    )


async def write_restarted(db: aiosqlite.Connection, devices: Sequence[Device]) -> None:
    """Forgets in the caller's transaction how far peers were counted that are put back."""
    await rows.forget_baselines(db, [(device.id, device.public_key) for device in devices])


def restarted(held: LiveDevices, devices: Iterable[Device]) -> None:
    """Takes the same into memory."""
    for device in devices:
        held.update(replace(device, handshake_seen_ns=0, baseline=None))
