"""Decides whose a client's key is, and a device's name, on records that change by compare and set.

Whoever asks again with the same op is answered alike, as the record says by which op it came to be. A claim that is not
renewed lapses, so that nothing is taken for ever by an exit that is gone or whose release was lost.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
from typing import TYPE_CHECKING, TypeVar

import msgspec

from appliance.domain.errors import FleetError
from appliance.fleet.claims.messages import Done, Granted, Taken

if TYPE_CHECKING:
    from collections.abc import Callable

    from appliance.domain.clock import Clock
    from appliance.fleet.claims.messages import (
        ClaimKey,
        ClaimName,
        HeldKey,
        HeldName,
        ReleaseKey,
        ReleaseName,
        SettleKey,
    )
    from appliance.fleet.claims.records import ClaimRecords

T = TypeVar("T")

KEY_LAPSES_MS = 3 * 3_600_000
NAME_LAPSES_MS = 7 * 86_400_000  # a device's name is to be its own also while its exit is away
RENEWED = 4  # a claim is written again when this part of its time is over
# What one exit may claim anew: at once, and in each second. One in the wrong hands leaves room for the others' claims.
NEW_AT_ONCE, NEW_PER_S = 20_000, 5
TRIES = 100  # of a change, while others change the same record


def key_name(fleet_key: bytes, public_key: bytes) -> str:
    """Returns what stands for a client's key: the ledger does not learn the key itself."""
    return hmac.digest(fleet_key, public_key, hashlib.sha256).hex()


def record_of_name(account: str, name: str) -> str:
    """Returns the record of a device's name. Names may have any character, keys of records may not."""
    text = base64.b32encode(name.encode("utf-8", "surrogatepass")).decode().rstrip("=").lower()
    return f"d.{account}.{text}"


class KeyHolder(msgspec.Struct, frozen=True, omit_defaults=True):
    """Tells who has a key: the exit, and its session or device; `id` "": it is not made yet."""

    node: str
    op: str
    device: bool = False
    id: str = ""


class KeyRecord(msgspec.Struct, frozen=True, omit_defaults=True):
    """Holds a key's claim. `old`: who had it before, of the same account; it is to end, or holds again."""

    account: str
    holder: KeyHolder
    at: int
    old: KeyHolder | None = None


class NameRecord(msgspec.Struct, frozen=True):
    """Holds a name's claim."""

    node: str
    op: str
    at: int


R = TypeVar("R", KeyRecord, NameRecord)


class NewClaims:
    """Counts what each exit claims that nobody had. Kept in memory alone."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._left: dict[str, tuple[float, int]] = {}  # how many more, as of when (CLOCK_BOOTTIME, ms)

    def count(self, node: str) -> None:
        """Counts one. Raises FleetError: the exit has claimed too much."""
        now_ms = self._clock.now().boot_ms
        left, at_ms = self._left.get(node, (float(NEW_AT_ONCE), now_ms))
        left = min(float(NEW_AT_ONCE), left + (now_ms - at_ms) * NEW_PER_S / 1000)
        if left < 1:
            raise FleetError(f"{node} claims more than an exit may")
        self._left[node] = left - 1, now_ms


class KeyClaimLedger:
    """Decides about keys. `node` is the asking exit, by the subject of its request. Each method raises FleetError."""

    def __init__(self, records: ClaimRecords, clock: Clock, new: NewClaims) -> None:
        self._records = records
        self._clock = clock
        self._new = new

    async def claim(self, node: str, asked: ClaimKey) -> Granted | Taken:
        """Claims a key. An exit's own sessions and devices are its own to decide about."""

        def decide(record: KeyRecord | None) -> tuple[KeyRecord | None, Granted | Taken]:
            holder = KeyHolder(node, asked.op, asked.device)
            if record is None:
                return KeyRecord(asked.account, holder, self._now()), Granted()
            if (record.holder.node, record.holder.op) == (node, asked.op):
                return record, _granted(record.old)
            if record.account != asked.account:
                return record, Taken("account")
            if record.holder.node != node and (record.holder.device or asked.device):
                return record, Taken("device" if record.holder.device else "session")
            # A claim of which nothing was made says nothing of what came before it.
            old = record.holder if record.holder.id else record.old
            return KeyRecord(asked.account, holder, self._now(), old), _granted(old)

        return await self._change(node, asked.key, decide)

    async def settle(self, node: str, asked: SettleKey) -> Done:
        """Notes what a key was claimed for. It is lost if another exit has it, and does not know of this one."""

        def decide(record: KeyRecord | None) -> tuple[KeyRecord | None, Done]:
            if record is None:
                return KeyRecord(asked.account, KeyHolder(node, asked.op, asked.device, asked.id), self._now()), Done()
            if (record.holder.node, record.holder.op) == (node, asked.op):
                holder = msgspec.structs.replace(record.holder, id=asked.id)
                return msgspec.structs.replace(record, holder=holder, at=self._now()), Done()
            old = record.old
            known = old is not None and (old.node, old.op) == (node, asked.op)  # whoever has the key now ends it
            return record, Done(lost=0 if known or record.holder.node == node else 1)

        return await self._change(node, asked.key, decide)

    async def release(self, node: str, asked: ReleaseKey) -> Done:
        """Gives a key up. Of a claim that came to nothing, who had it before has it again."""

        def decide(record: KeyRecord | None) -> tuple[KeyRecord | None, Done]:
            if record is None:
                return None, Done()
            old = record.old
            if record.holder.node == node and asked.op in ("", record.holder.op):
                back = old is not None and (bool(asked.op) or old.node != node)
                if old is None or not back:
                    return None, Done()
                return KeyRecord(record.account, old, self._now()), Done()
            if old is not None and old.node == node and asked.op in ("", old.op):
                return msgspec.structs.replace(record, old=None), Done()
            return record, Done()

        return await self._change(node, asked.key, decide)

    async def renew(self, node: str, held: HeldKey) -> bool:
        """Renews the claim of a key, or makes it where there is none. Returns whether the exit has it."""

        def decide(record: KeyRecord | None) -> tuple[KeyRecord | None, bool]:
            now = self._now()
            if record is None:
                return KeyRecord(held.account, KeyHolder(node, "", held.device, held.id), now), True
            if record.holder.node != node:
                return record, False
            if record.holder.id == held.id and _fresh(record.at, now, KEY_LAPSES_MS):
                return record, True
            holder = msgspec.structs.replace(record.holder, id=held.id, device=held.device)
            return KeyRecord(held.account, holder, now, record.old), True

        return await self._change(node, held.key, decide)

    def _now(self) -> int:
        return self._clock.now().wall_ms

    async def _change(self, node: str, key: str, decide: Callable[[KeyRecord | None], tuple[KeyRecord | None, T]]) -> T:
        since = self._now() - KEY_LAPSES_MS
        return await change(self._records, key, KeyRecord, decide, since, lambda: self._new.count(node))


class NameClaimLedger:
    """Decides about names of devices, as KeyClaimLedger does about keys."""

    def __init__(self, records: ClaimRecords, clock: Clock, new: NewClaims) -> None:
        self._records = records
        self._clock = clock
        self._new = new

    async def claim(self, node: str, asked: ClaimName) -> Granted | Taken:
        """Claims a name. An exit's own devices are its own to decide about."""

        def decide(record: NameRecord | None) -> tuple[NameRecord | None, Granted | Taken]:
            if record is None:
                return NameRecord(node, asked.op, self._now()), Granted()
            # Not under the new op: if nothing comes of it, the device that has the name keeps it.
            return record, Granted() if record.node == node else Taken("device")

        return await self._change(node, asked.account, asked.name, decide)

    async def release(self, node: str, asked: ReleaseName) -> Done:
        """Gives a name up."""

        def decide(record: NameRecord | None) -> tuple[NameRecord | None, Done]:
            mine = record is not None and record.node == node and asked.op in ("", record.op)
            return None if mine else record, Done()

        return await self._change(node, asked.account, asked.name, decide)

    async def renew(self, node: str, held: HeldName) -> bool:
        """Renews the claim of a name, or makes it where there is none. Returns whether the exit has it."""

        def decide(record: NameRecord | None) -> tuple[NameRecord | None, bool]:
            now = self._now()
            if record is None:
                return NameRecord(node, "", now), True
            if record.node != node:
                return record, False
            fresh = _fresh(record.at, now, NAME_LAPSES_MS)
            return record if fresh else msgspec.structs.replace(record, at=now), True

        return await self._change(node, held.account, held.name, decide)

    def _now(self) -> int:
        return self._clock.now().wall_ms

    async def _change(
        self, node: str, account: str, name: str, decide: Callable[[NameRecord | None], tuple[NameRecord | None, T]]
    ) -> T:
        key, since = record_of_name(account, name), self._now() - NAME_LAPSES_MS
        return await change(self._records, key, NameRecord, decide, since, lambda: self._new.count(node))


def _fresh(at: int, now: int, lapses_ms: int) -> bool:
    return 0 <= now - at < lapses_ms // RENEWED


def _granted(old: KeyHolder | None) -> Granted:
    return Granted() if old is None else Granted(old.node, old.id)


async def change(
    records: ClaimRecords,
    key: str,
    shape: type[R],
    decide: Callable[[R | None], tuple[R | None, T]],
    lapsed_before: int,
    added: Callable[[], None],
) -> T:
    """Changes a record into what `decide` makes of it, None: into nothing; returns what else it says.

    It is given None for a record that is not there, or was not renewed since `lapsed_before`. `added`: is called before
    one is made; may refuse that by a FleetError. Raises FleetError.
    """
    for _ in range(TRIES):
        found = await records.get(key)
        record = None if found.value is None else msgspec.json.decode(found.value, type=shape)
        valid = None if record is None or record.at < lapsed_before else record
        wanted, answer = decide(valid)
        if wanted == record:
            return answer
        if record is None:
            added()
        if wanted is None:
            done = await records.delete(key, found.revision)
        else:
            done = await records.put(key, msgspec.json.encode(wanted), found.revision)
        if done:
            return answer
    raise FleetError("a claim changes faster than it can be made")
