"""Holds in memory the devices that have not been removed, and which of them may not connect now.

Devices are rows of bytes (`rows/`): a Device is made when one is asked for, and is a value. Change it only after the
store has committed the same change. A device's session is in `live`; what is here of its use is of those that have
ended.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from appliance.domain.device import DeviceState
from appliance.store.rows.device_rows import DeviceRows
from appliance.store.rows.offsets import Offsets

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Set

    from appliance.domain.device import Device


class LiveDevices:
    """Holds devices by public key, which no two of them share. Those that are held have no peer."""

    def __init__(self) -> None:
        self._by_key = DeviceRows()
        self.left_to_next: frozenset[bytes] = frozenset()  # whose next session followed on the last, as they were read
        self._addresses = Offsets()
        self._held: set[bytes] = set()
        self._opening: set[bytes] = set()
        self._gone: dict[bytes, Device] = {}
        self._touched: set[bytes] = set()
        self._loaded = False

    def __len__(self) -> int:
        return len(self._by_key)

    def __iter__(self) -> Iterator[Device]:
        return iter(self._by_key.values())

    def __getitem__(self, public_key: bytes) -> Device:
        """Returns the device with this key. Raises KeyError if there is none."""
        return self._by_key[public_key]

    def get(self, public_key: bytes) -> Device | None:
        """Returns the device with this key, or None if there is none."""
        return self._by_key.get(public_key)

    def by_id(self, device_id: str) -> Device | None:
        """Returns the device with this id, or None if there is none."""
        return self._by_key.by_id(device_id)

    def of_account(self, account_id: str) -> list[Device]:
        """Returns the account's devices."""
        return self._by_key.of_account(account_id)

    def addresses(self) -> Set[int]:
        """Returns the offsets of the devices' addresses, now and whenever it is looked at."""
        return self._addresses

    def accounts(self) -> Set[str]:
        """Returns the ids of the accounts with devices."""
        return self._by_key.accounts()

    def by_state(self, with_session: Set[bytes], connected: int) -> Mapping[DeviceState, int]:
        """Counts the devices, looking only at those that are held, and only if others are connected.

        `with_session`: the keys of all sessions; `connected`: how many sessions of devices are not ending.
        """
        paused = self._by_key.paused
        alone = sum(key not in with_session for key in self._held) if connected else len(self._held)
        held = max(alone - paused, 0)
        return {
            DeviceState.IDLE: max(len(self) - connected - paused - held, 0),
            DeviceState.CONNECTED: connected,
            DeviceState.PAUSED: paused,
            DeviceState.HELD: held,
        }

    # Peers --------------------------------------------------------------------------------------------

    def may_connect(self, public_key: object) -> bool:
        """Tells whether there is a device with this key that is not held."""
        return public_key in self._by_key and public_key not in self._held

    def is_held(self, public_key: object) -> bool:
        """Tells whether there is a device with this key that is held."""
        return public_key in self._held

    def has_peer(self, public_key: object) -> bool:
        """Tells whether there is a device with this key whose peer the tunnel should have, with a session or without.

        What the peer of one that is held has carried before it was, is of a session that is about to begin, and to end.
        """
        return public_key in self._by_key and (public_key not in self._held or public_key in self._opening)

    def with_peer(self) -> Iterator[bytes]:
        """Yields the keys of the same devices."""
        return (key for key in self._by_key if self.has_peer(key))

    def new(self) -> Set[bytes]:
        """Returns the keys of devices whose peers have not been installed yet."""
        return self._by_key.new

    def opens(self, public_key: bytes) -> bool:
        """Notes that a session of a device is about to begin; returns whether that is new."""
        if public_key in self._opening:
            return False
        self._opening.add(public_key)
        return True

    def opened(self, public_key: bytes) -> None:
        """Notes that the session has begun, or that it does not."""
        self._opening.discard(public_key)
        self._touched.add(public_key)

    def hold(self, public_key: bytes, *, held: bool) -> bool:
        """Notes whether a device is held; returns whether that is new."""
        if held == (public_key in self._held):
            return False
        (self._held.add if held else self._held.discard)(public_key)
        self._touched.add(public_key)
        return True

    def take_touched(self) -> set[bytes]:
        """Returns the keys of devices whose peers may have to come or to go, since this was last called."""
        touched, self._touched = self._touched, set()
        return touched

    def take_gone(self) -> dict[bytes, Device]:
        """Returns the devices, by key, that were removed or have another key, since this was last called."""
        gone, self._gone = self._gone, {}
        return gone

    # Changes ------------------------------------------------------------------------------------------

    def load(self, devices: DeviceRows, left_to_next: frozenset[bytes] = frozenset()) -> None:
        """Replaces all with what was read from the store. Who was held is, until it is looked at again."""
        before, self._by_key, self.left_to_next = self._by_key, devices, left_to_next
        if self._loaded:
            gone = {key: before[key] for key in before if key not in devices}
            self._touched |= {*gone, *(key for key in devices if key not in before)}
            self._gone |= gone
        self._loaded = True
        self._addresses.clear()
        for offset in devices.address_offsets():
            self._addresses.add(offset)
        self._held = {key for key in self._held if key in devices}

    def put(self, device: Device) -> None:
        """Adds a device, or replaces the one with its key."""
        self._by_key.put(device)
        self._addresses.add(device.address_offset)
        self._touched.add(device.public_key)

    def update(self, device: Device) -> None:
        """Replaces the figures of a device, whose peer stays as it is wanted."""
        self._by_key.put(device)

    def drop(self, public_key: bytes) -> None:
        """Removes a device; whether the tunnel still has its peer is looked at."""
        self._gone[public_key] = device = self._by_key.drop(public_key)
        self._addresses.discard(device.address_offset)
        self._held.discard(public_key)
        self._touched.add(public_key)

    def touch(self, public_keys: Iterable[bytes]) -> None:
        """Has these peers compared with what they should be: it is not known what has become of them."""
        self._touched.update(public_keys)
