"""Keeps devices as rows: found by key, id and account."""

from __future__ import annotations

from collections.abc import Mapping
from errno import ENOENT
from typing import TYPE_CHECKING

from appliance.domain import ids
from appliance.domain.device import Device
from appliance.store.rows import device_row as layout
from appliance.store.rows.device_row import PackedDevices
from appliance.store.rows.row_index import RowIndex
from appliance.store.rows.row_lists import RowLists

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Set


class DeviceRows(Mapping[bytes, Device]):
    """Maps public keys to devices. No two devices have the same id."""

    def __init__(self, devices: Iterable[Device] = ()) -> None:
        self._packed = PackedDevices()
        memory = self._packed.memory
        self._by_key = RowIndex(memory, layout.KEY_AT, layout.KEY_SIZE)
        self._by_id = RowIndex(memory, layout.ID_AT, layout.ID_SIZE)
        self._lists = RowLists(memory, layout.LINKS_AT)
        self._first: dict[str, int] = {}  # of each account's list
        self.new: set[bytes] = set()  # the keys of those whose peers have not been installed yet
        for device in devices:
            self.put(device)

    def __len__(self) -> int:
        return len(self._by_key)

    def __iter__(self) -> Iterator[bytes]:
        """Yields the keys of all devices; none may come or go meanwhile."""
        return (self._packed.key(row) for row in self._packed.memory.taken())

    def __contains__(self, key: object) -> bool:
        return isinstance(key, bytes) and self._by_key.find(key) >= 0

    def __getitem__(self, public_key: bytes) -> Device:
        row = self._by_key.find(public_key)
        if row < 0:
            raise KeyError(public_key)
        return self._packed.unpack(row)

    @property
    def nbytes(self) -> int:
        """Returns the bytes that rows and indices take, without what devices share."""
        return self._packed.memory.nbytes + self._by_key.nbytes + self._by_id.nbytes

    @property
    def paused(self) -> int:
        """Returns how many devices are paused, without those of accounts that are disabled."""
        return self._packed.paused

    def by_id(self, device_id: str) -> Device | None:
        """Returns the device with this id, or None if there is none."""
        row = self._find_id(device_id)
        return None if row < 0 else self._packed.unpack(row)

    def of_account(self, account_id: str) -> list[Device]:
        """Returns the account's devices."""
        return [self._packed.unpack(row) for row in self._lists.rows(self._first.get(account_id, 0))]

    def accounts(self) -> Set[str]:
        """Returns the ids of the accounts with devices."""
        return self._first.keys()

    def address_offsets(self) -> Iterator[int]:
        """Yields the devices' addresses; none may come or go meanwhile."""
        return (self._packed.address_offset(row) for row in self._packed.memory.taken())

    # Changes ------------------------------------------------------------------------------------------

    def put(self, device: Device) -> None:
        """Adds a device, or replaces the one with its key. Raises ValueError if another device has its id."""
        if self._find_id(device.id) not in (self._by_key.find(device.public_key), -ENOENT):
            raise ValueError(f"two devices have the id {device.id}")
        if device.public_key in self:
            self.drop(device.public_key)
        if not device.installed:
            self.new.add(device.public_key)
        row = self._packed.memory.take()
        self._packed.pack(row, device)
        self._by_key.put(row)
        self._by_id.put(row)
        self._first[device.account_id] = self._lists.put(self._first.get(device.account_id, 0), row)

    def drop(self, public_key: bytes) -> Device:
        """Removes a device, and returns it. Raises KeyError if there is none."""
        device, row = self[public_key], self._by_key.find(public_key)
        self._by_key.remove(row)
        self._by_id.remove(row)
        self.new.discard(public_key)
        first = self._lists.remove(self._first[device.account_id], row)
        if first:
            self._first[device.account_id] = first
        else:
            del self._first[device.account_id]
        self._packed.clear(row)
        self._packed.memory.give(row)
        return device

    def _find_id(self, device_id: str) -> int:
        row = self._by_id.find(ids.as_bytes(device_id, ids.DEVICE_PREFIX)[0])
        return row if row < 0 or self._packed.has_id(row, device_id) else -ENOENT
