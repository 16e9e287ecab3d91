"""Frees what an exit has claimed that is gone for good, and tells the names of the devices that were on it."""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING, NamedTuple

import msgspec

from appliance.fleet.claims.claims import KeyRecord, NameRecord, change

if TYPE_CHECKING:
    from collections.abc import Sequence

    from appliance.fleet.claims.records import ClaimRecords

AT_ONCE = 500
NAMES = "d."  # what keys of names begin with: d.<account>.<name>
PASSES = 10  # what is claimed while a pass is made, is found by the next


class FreedName(NamedTuple):
    """Holds a name, as names are compared, that a device of an account had."""

    account_id: str
    name: str


class Freed(NamedTuple):
    """Tells what was freed: how many keys, and which names."""

    keys: int
    names: Sequence[FreedName]


def name_of_record(key: str) -> FreedName | None:
    """Returns what `claims.record_of_name` made a record's key of; None: nothing."""
    account_id, _, text = key.removeprefix(NAMES).rpartition(".")
    try:
        name = base64.b32decode(text.upper() + "=" * (-len(text) % 8)).decode("utf-8", "surrogatepass")
    except ValueError:
        return None
    return FreedName(account_id, name) if account_id and key.startswith(NAMES) else None


class ForgottenClaims:
    """Frees them. The exit must not be able to claim any more."""

    def __init__(self, keys: ClaimRecords, names: ClaimRecords) -> None:
        self._keys = keys
        self._names = names

    async def free(self, node: str) -> Freed:
        """Frees all that the exit has claimed. Raises FleetError; what was freed by then stays so."""
        keys, names = 0, dict[FreedName, None]()
        for _ in range(PASSES):
            found = [await self._free_key(node, each) for each in await self._of(self._keys, node)]
            named = [await self._free_name(node, each) for each in await self._of(self._names, node)]
            keys += found.count(True)
            names |= dict.fromkeys(each for each in named if each is not None)
            if not any(found) and not any(named):
                break
        return Freed(keys, sorted(names))

    async def _of(self, records: ClaimRecords, node: str) -> list[str]:
        """Returns the keys of records that name the exit."""
        after, found, named = 0, list[str](), node.encode()
        while page := await records.page(after, AT_ONCE):
            found += [each.key for each in page if named in each.value]
            after = page[-1].revision
        return found

    async def _free_key(self, node: str, key: str) -> bool:
        """Who had the key before has it again, for as long as a claim holds: whoever comes next ends that session."""

        def decide(record: KeyRecord | None) -> tuple[KeyRecord | None, bool]:
            if record is None:
                return None, False
            old = None if record.old is None or record.old.node == node else record.old
            if record.holder.node != node:
                return msgspec.structs.replace(record, old=old), False
            return (None if old is None else KeyRecord(record.account, old, record.at)), True

        return await change(self._keys, key, KeyRecord, decide, 0, _nothing)

    async def _free_name(self, node: str, key: str) -> FreedName | None:
        def decide(record: NameRecord | None) -> tuple[NameRecord | None, bool]:
            mine = record is not None and record.node == node
            return (None if mine else record), mine

        freed = await change(self._names, key, NameRecord, decide, 0, _nothing)
        return name_of_record(key) if freed else None


def _nothing() -> None:
    """Counts no new claim: none is made."""
