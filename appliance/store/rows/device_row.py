"""Packs a device into a row of bytes. What devices have in common is not in their rows, which name it by numbers."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

from appliance.domain import ids
from appliance.domain.device import Device
from appliance.domain.entities import Baseline
from appliance.store.rows.row_lists import LINKS
from appliance.store.rows.row_memory import RowMemory
from appliance.store.rows.shared_values import SharedValues

if TYPE_CHECKING:
    from appliance.domain.device import Outdated
    from appliance.domain.tiers import Tier

    Owner = tuple[str, str, Tier, bool]  # account, its name, its tier, is it disabled?
    Traits = tuple[str, bool, bool, str, Outdated, bool]  # region, IPv6, paused, endpoint, outdated, installed

KEY_SIZE, ID_SIZE, NAME_SIZE = 32, ids.ID_SIZE, 24
# Numbers of owner and traits. Address, created, bytes in and out, time counted, last handshake, handshake seen, bytes
# of unfinished handshakes in and out; was there a handshake? Number of the baseline's boot, 0: no baseline; ifindex,
# bytes in and out. The name in UTF-8 and its length, ELSEWHERE if it has no room.
_FIELDS = struct.Struct(f"=IIqqqqqqqqq?Iqqq{NAME_SIZE}sB")
_IDENTITY = struct.Struct(f"={KEY_SIZE}s{ID_SIZE}s")
ELSEWHERE = 255

KEY_AT, ID_AT, _FIELDS_AT = 0, KEY_SIZE, _IDENTITY.size
LINKS_AT = _FIELDS_AT + _FIELDS.size
_OFFSET, _OFFSET_AT = struct.Struct("=q"), _FIELDS_AT + struct.calcsize("=II")
ROW_SIZE = LINKS_AT + LINKS.size


class PackedDevices:
    """Packs devices into rows, and reads them back. `paused`: how many are, of accounts that are not disabled."""

    def __init__(self) -> None:
        self.memory = RowMemory(ROW_SIZE)
        self._owners: SharedValues[Owner] = SharedValues()
        self._traits: SharedValues[Traits] = SharedValues()
        self._boots: SharedValues[str] = SharedValues()
        self._other_ids: dict[int, str] = {}  # by row: those that do not follow from the row
        self._long_names: dict[int, str] = {}
        self.paused = 0

    def pack(self, row: int, d: Device) -> None:
        """Writes a device into a row that has none."""
        if len(d.public_key) != KEY_SIZE:
            raise ValueError(f"a key has {KEY_SIZE} bytes, not {len(d.public_key)}")
        id_, follows = ids.as_bytes(d.id, ids.DEVICE_PREFIX)
        if not follows:
            self._other_ids[row] = d.id
        name = d.name.encode("utf-8", "surrogatepass")
        if len(name) > NAME_SIZE:
            self._long_names[row], name, length = d.name, b"", ELSEWHERE
        else:
            length = len(name)
        self.paused += d.paused and not d.account_disabled
        b = d.baseline
        _IDENTITY.pack_into(self.memory.buffer, row * ROW_SIZE, d.public_key, id_)
        _FIELDS.pack_into(
            self.memory.buffer,
            row * ROW_SIZE + _FIELDS_AT,
            self._owners.take((d.account_id, d.account, d.account_tier, d.account_disabled)),
            self._traits.take((d.region, d.ipv6, d.paused, d.endpoint, d.outdated, d.installed)),
            *(d.address_offset, d.created_at, d.bytes_in, d.bytes_out, d.counted_ms),
            *(d.last_handshake_at or 0, d.handshake_seen_ns, d.unfinished_rx, d.unfinished_tx),
            d.last_handshake_at is not None,
            *((0, 0, 0, 0) if b is None else (self._boots.take(b.boot_id), b.ifindex, b.rx_bytes, b.tx_bytes)),
            name,
            length,
        )

    def unpack(self, row: int) -> Device:
        """Returns the device."""
        key, id_ = _IDENTITY.unpack_from(self.memory.buffer, row * ROW_SIZE)
        owner, traits, offset, created, *used, shook, boot, ifindex, rx_bytes, tx_bytes, name, length = (
            _FIELDS.unpack_from(self.memory.buffer, row * ROW_SIZE + _FIELDS_AT)
        )
        bytes_in, bytes_out, counted, shook_at, seen, unfinished_rx, unfinished_tx = used
        account_id, account, tier, disabled = self._owners.values[owner]
        region, ipv6, paused, endpoint, outdated, installed = self._traits.values[traits]
        return Device(
            self._other_ids[row] if row in self._other_ids else ids.DEVICE_PREFIX + id_.hex(),
            account_id,
            account,
            tier,
            disabled,
            self._long_names[row] if length == ELSEWHERE else name[:length].decode("utf-8", "surrogatepass"),
            region,
            key,
            offset,
            ipv6,
            created,
            paused,
            endpoint,
            bytes_in,
            bytes_out,
            counted,
            shook_at if shook else None,
            seen,
            unfinished_rx,
            unfinished_tx,
            outdated,
            installed,
            Baseline(self._boots.values[boot], ifindex, rx_bytes, tx_bytes) if boot else None,
        )

    def clear(self, row: int) -> None:
        """Gives up what the device in a row shares with others."""
        found = _FIELDS.unpack_from(self.memory.buffer, row * ROW_SIZE + _FIELDS_AT)
        owner, traits, boot = found[0], found[1], found[12]
        self.paused -= self._traits.values[traits][2] and not self._owners.values[owner][3]
        self._owners.give(owner)
        self._traits.give(traits)
        if boot:
            self._boots.give(boot)
        self._other_ids.pop(row, None)
        self._long_names.pop(row, None)

    def key(self, row: int) -> bytes:
        """Returns the public key of the device."""
        return self.memory.buffer[row * ROW_SIZE : row * ROW_SIZE + KEY_SIZE]

    def address_offset(self, row: int) -> int:
        """Returns the number of the device's address."""
        offset: int = _OFFSET.unpack_from(self.memory.buffer, row * ROW_SIZE + _OFFSET_AT)[0]
        return offset

    def has_id(self, row: int, device_id: str) -> bool:
        """Tells whether this is the id of the device, in whose row there may be only a hash of it."""
        return self._other_ids.get(row, device_id) == device_id
