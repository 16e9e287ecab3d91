"""Holds in memory the devices that have not been removed, and which of them may not connect now.

Change it only after the store has committed the same change. A device's session is in `live`; what is here of its use
is of those that have ended.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Set

    from appliance.domain.device import Device


class LiveDevices:
    """Holds devices by public key, which no two of them share. Those that are held have no peer."""

    def __init__(self) -> None:
        self._by_key: dict[bytes, Device] = {}
        self._keys: dict[str, bytes] = {}  # by id
        self._of_account: dict[str, dict[bytes, None]] = {}
        self._held: set[bytes] = set()
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
        key = self._keys.get(device_id)
        return None if key is None else self._by_key[key]

    def of_account(self, account_id: str) -> list[Device]:
        """Returns the account's devices."""
        return [self._by_key[key] for key in self._of_account.get(account_id, ())]

    def accounts(self) -> Set[str]:
        """Returns the ids of the accounts with devices."""
        return self._of_account.keys()

    # Peers --------------------------------------------------------------------------------------------

    def may_connect(self, public_key: object) -> bool:
        """Tells whether there is a device with this key that is not held, so that the tunnel should have its peer."""
        return public_key in self._by_key and public_key not in self._held

    def connectable(self) -> Iterator[bytes]:
        """Yields the keys of devices that are not held."""
        return (key for key in self._by_key if key not in self._held)

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

    # Changes ------------------------------------------------------------------------------------------

    def load(self, devices: Iterable[Device]) -> None:
        """Replaces all with what was read from the store. Who was held is, until it is looked at again."""
        before, self._by_key = self._by_key.keys(), {device.public_key: device for device in devices}
        if self._loaded:
            self._touched |= before ^ self._by_key.keys()
        self._loaded = True
        self._keys = {device.id: device.public_key for device in self}
        self._of_account = {}
        for device in self:
            self._of_account.setdefault(device.account_id, {})[device.public_key] = None
        self._held &= self._by_key.keys()

    def put(self, device: Device) -> None:
        """Adds a device, or replaces the one with its key."""
        self._by_key[device.public_key] = device
        self._keys[device.id] = device.public_key
        self._of_account.setdefault(device.account_id, {})[device.public_key] = None
        self._touched.add(device.public_key)
