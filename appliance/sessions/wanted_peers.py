"""Shows whose peers the tunnel should have: sessions, and devices that may connect, as they are when it is asked."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

    from appliance.domain.device import Device
    from appliance.domain.entities import Session
    from appliance.store.live import LiveSessions
    from appliance.store.live_devices import LiveDevices


class WantedPeers(Mapping[bytes, "Session | Device"]):
    """Maps public keys to what has their peers: of a device that has a session, the session."""

    def __init__(self, live: LiveSessions, devices: LiveDevices) -> None:
        self._live = live
        self._devices = devices

    def __contains__(self, key: object) -> bool:
        return key in self._live.public_keys() or self._devices.has_peer(key)

    def __getitem__(self, key: bytes) -> Session | Device:
        session = self._live.get(key)
        if session is not None:
            return session
        if not self._devices.has_peer(key):
            raise KeyError(key)
        return self._devices[key]

    def __iter__(self) -> Iterator[bytes]:
        yield from self._live.public_keys()
        yield from self._without_session()

    def __len__(self) -> int:
        return len(self._live) + sum(1 for _ in self._without_session())

    def _without_session(self) -> Iterator[bytes]:
        sessions = self._live.public_keys()
        return (key for key in self._devices.with_peer() if key not in sessions)
