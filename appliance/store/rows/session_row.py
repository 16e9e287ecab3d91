"""Packs a session into a row of bytes. What sessions have in common is not in their rows, which name it by numbers."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

from appliance.domain import ids
from appliance.domain.entities import Baseline, Session
from appliance.store.rows.row_lists import LINKS
from appliance.store.rows.row_memory import RowMemory
from appliance.store.rows.shared_values import SharedValues

if TYPE_CHECKING:
    from collections.abc import Sequence
    from collections.abc import Set as AbstractSet

    from appliance.domain.entities import Reason, State
    from appliance.domain.pricing import Rates
    from appliance.domain.tiers import Tier
    from appliance.store.rows.owner import Owner

    # Tiers, region, public address, IPv6, state, rates, reason, note, when terminated, told, and the account's name if
    # it is not the one that the account has.
    Traits = tuple[Tier, Tier, str, str, bool, State, Rates | None, Reason | None, str, int | None, str, str | None]

KEY_SIZE, ID_SIZE = 32, ids.ID_SIZE
# Public key, id, created, expires, address, number of the traits; then the figures.
_IDENTITY = "32s12sqqqI"
# Number of the owner. Bytes in and out, last handshake, handshake seen, quiet since, time counted, up to when it was,
# until when the tunnel can carry; the numbers of the boots of quiet since and of the last two; was there a handshake?
_OWNER, _COUNTED = "I", "qqqqqqqqII?"
_BASELINE = "Iqqq"  # number of the boot, 0: no baseline; ifindex, bytes in and out
_PLACES = "III"  # in the orders by expiry, by when it carries no longer and by quiet since


def _size(*fields: str) -> int:
    return struct.calcsize("=" + "".join(fields))


KEY_AT, ID_AT = 0, KEY_SIZE
EXPIRES_AT, OFFSET_AT = _size("32s12sq"), _size("32s12sqq")
FIGURES_AT = _size(_IDENTITY)
QUIET_SINCE_AT, COUNTED_UNTIL_AT = (FIGURES_AT + _size(fields) for fields in ("Iqqqq", "Iqqqqqq"))
CARRIES_UNTIL_AT = COUNTED_UNTIL_AT + _size("q")
COUNTED_AT = _size(_IDENTITY, _OWNER)
BASELINE_AT = _size(_IDENTITY, _OWNER, _COUNTED)
EXPIRY_PLACE_AT = BASELINE_AT + _size(_BASELINE)
CARRYING_PLACE_AT, QUIET_PLACE_AT = EXPIRY_PLACE_AT + 4, EXPIRY_PLACE_AT + 8
LINKS_AT = EXPIRY_PLACE_AT + _size(_PLACES)
ROW_SIZE = LINKS_AT + LINKS.size

IDENTITY = struct.Struct("=" + _IDENTITY)
FIGURES = struct.Struct("=" + _OWNER + _COUNTED)
COUNTED = struct.Struct("=" + _COUNTED)
BASELINE = struct.Struct("=" + _BASELINE)
OWNER = struct.Struct("=" + _OWNER)
TRAITS = struct.Struct("=I")
NUMBER = struct.Struct("=q")
SPAN = struct.Struct("=qq")
_NOTHING_YET = bytes(ROW_SIZE - BASELINE_AT)


class PackedSessions:
    """Packs sessions into rows, and reads them back. Who owns them is named by the caller's numbers of accounts."""

    def __init__(self) -> None:
        self.memory = RowMemory(ROW_SIZE)
        self.boots: SharedValues[str] = SharedValues()
        self._traits: SharedValues[Traits] = SharedValues()
        self._other_ids: dict[int, str] = {}  # by row: those that do not follow from the row
        self._devices: dict[int, str] = {}  # by row, if it is of one
        self._rows_of_devices: dict[str, int] = {}

    def begin(self) -> int:
        """Returns a row that has no session and no baseline, and is in no order."""
        row = self.memory.take()
        at = row * ROW_SIZE
        self.memory.buffer[at + BASELINE_AT : at + ROW_SIZE] = _NOTHING_YET
        return row

    def pack(self, row: int, s: Session, id_: tuple[bytes, bool], owner: Owner) -> int:
        """Writes a session into a row that has none; its baseline stays. Returns the boot that it was counted in.

        `id_`: what stands for its id.
        """
        if not id_[1]:
            self._other_ids[row] = s.id
        if s.device_id:
            self._devices[row] = s.device_id
            self._rows_of_devices[s.device_id] = row
        name = None if s.account == owner.account.name else s.account
        counted_boot = self.boots.take(s.counted_boot_id)
        traits = (
            *(s.tier, s.account_tier, s.region, s.public_ip, s.ipv6, s.state, s.rates, s.reason, s.note),
            *(s.terminated_at, s.told, name),
        )
        buffer, at = self.memory.buffer, row * ROW_SIZE
        number = self._traits.take(traits)
        IDENTITY.pack_into(buffer, at, s.public_key, id_[0], s.created_at, s.expires_at, s.address_offset, number)
        OWNER.pack_into(buffer, at + FIGURES_AT, owner.number)
        self.set_figures(row, s, self.boots.take(s.quiet_boot_id), counted_boot)
        return counted_boot

    def set_figures(self, row: int, s: Session, quiet_boot: int, counted_boot: int) -> None:
        """Writes what is counted of a session, with the numbers of its boots."""
        COUNTED.pack_into(
            self.memory.buffer,
            row * ROW_SIZE + COUNTED_AT,
            s.bytes_in,
            s.bytes_out,
            s.last_handshake_at or 0,
            s.handshake_seen_ns,
            s.quiet_since_ms,
            s.counted_ms,
            s.counted_until_ms,
            s.carries_until_ms,
            quiet_boot,
            counted_boot,
            s.last_handshake_at is not None,
        )

    def unpack(self, row: int, owners: Sequence[Owner]) -> Session:
        """Returns the session. `owners`: accounts by number."""
        buffer, at, boots = self.memory.buffer, row * ROW_SIZE, self.boots.values
        key, id_, created, expires, offset, number = IDENTITY.unpack_from(buffer, at)
        owner, bytes_in, bytes_out, shook_at, seen, quiet, counted, until, carries, quiet_boot, boot, shook = (
            FIGURES.unpack_from(buffer, at + FIGURES_AT)
        )
        account = owners[owner].account
        tier, now, region, ip, ipv6, state, rates, reason, note, ended, told, name = self._traits.values[number]
        return Session(
            self._other_ids[row] if row in self._other_ids else ids.SESSION_PREFIX + id_.hex(),
            account.id,
            account.name if name is None else name,
            tier,
            now,
            region,
            ip,
            key,
            offset,
            ipv6,
            state,
            created,
            expires,
            bytes_in,
            bytes_out,
            shook_at if shook else None,
            seen,
            quiet,
            boots[quiet_boot],
            counted,
            until,
            boots[boot],
            carries,
            rates,
            reason,
            note,
            ended,
            told,
            self._devices.get(row, ""),
        )

    def clear(self, row: int) -> None:
        """Gives up what the session in a row shares with others; its baseline stays."""
        buffer, at = self.memory.buffer, row * ROW_SIZE
        *_, quiet_boot, counted_boot, _ = FIGURES.unpack_from(buffer, at + FIGURES_AT)
        self.boots.give(quiet_boot)
        self.boots.give(counted_boot)
        self._traits.give(TRAITS.unpack_from(buffer, at + FIGURES_AT - TRAITS.size)[0])
        self._other_ids.pop(row, None)
        device_id = self._devices.pop(row, "")
        if self._rows_of_devices.get(device_id) == row:
            del self._rows_of_devices[device_id]

    def key(self, row: int) -> bytes:
        """Returns the public key of the session."""
        return self.memory.buffer[row * ROW_SIZE : row * ROW_SIZE + KEY_SIZE]

    def quiet_since(self, row: int) -> int:
        """Returns since when the session is quiet."""
        quiet_ms: int = NUMBER.unpack_from(self.memory.buffer, row * ROW_SIZE + QUIET_SINCE_AT)[0]
        return quiet_ms

    def carried(self, row: int) -> tuple[int, int]:
        """Returns up to when the session was counted, and until when its tunnel can carry."""
        at = row * ROW_SIZE + COUNTED_UNTIL_AT
        until_ms, carries_ms = SPAN.unpack_from(self.memory.buffer, at)
        return until_ms, carries_ms

    def address_offset(self, row: int) -> int:
        """Returns the number of the session's address."""
        offset: int = NUMBER.unpack_from(self.memory.buffer, row * ROW_SIZE + OFFSET_AT)[0]
        return offset

    def of_device(self, device_id: str) -> int | None:
        """Returns the row of the session of a device; None: it has none."""
        return self._rows_of_devices.get(device_id)

    def number_of_devices(self, without: AbstractSet[int]) -> int:
        """Counts the rows with sessions of devices, `without` these."""
        return len(self._devices) - len(self._devices.keys() & without)

    def has_id(self, row: int, session_id: str) -> bool:
        """Tells whether this is the id of the session, in whose row there may be only a hash of it."""
        return self._other_ids.get(row, session_id) == session_id

    def traits(self) -> list[tuple[Traits, int]]:
        """Returns what sessions have in common, each with how many have it."""
        return self._traits.uses()

    # Baselines ----------------------------------------------------------------------------------------

    def baseline(self, row: int) -> Baseline | None:
        """Returns the peer's counters as last counted, or None if they were never counted."""
        boot, ifindex, rx_bytes, tx_bytes = BASELINE.unpack_from(self.memory.buffer, row * ROW_SIZE + BASELINE_AT)
        return Baseline(self.boots.values[boot], ifindex, rx_bytes, tx_bytes) if boot else None

    def set_baseline(self, row: int, baseline: Baseline | None) -> None:
        """Replaces the peer's counters as last counted; None: they start at zero again."""
        buffer, at = self.memory.buffer, row * ROW_SIZE + BASELINE_AT
        (before,) = OWNER.unpack_from(buffer, at)
        if baseline is None:
            if before:
                self.boots.give(before)
            BASELINE.pack_into(buffer, at, 0, 0, 0, 0)
            return
        boot = self.boots.exchange(before, baseline.boot_id) if before else self.boots.take(baseline.boot_id)
        BASELINE.pack_into(buffer, at, boot, baseline.ifindex, baseline.rx_bytes, baseline.tx_bytes)
