"""Queries devices. Those that were removed are not found; their rows stay for the sessions that name them.

A `Device` has what its ended sessions have used. What it uses in a session is in that session's row of `peers`.
"""

from __future__ import annotations

import json
from sys import intern
from typing import TYPE_CHECKING

from appliance.domain import device_name
from appliance.domain.device import Device, Outdated
from appliance.domain.entities import Baseline
from appliance.domain.tiers import Tier

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import AsyncIterator, Iterable, Sequence

    import aiosqlite

ABOVE_ALL = 2**63 - 1  # the number of no device

# The columns are the fields of Device in their order, and in the place of `baseline` its own at the end.
_SELECT = """
SELECT d.id, d.account_id, a.name, a.tier, a.disabled, d.name, d.region, d.public_key, d.address_offset, d.ipv6,
    d.created_at, d.paused, d.endpoint, d.bytes_in, d.bytes_out, d.counted_ms, d.last_handshake_at,
    d.handshake_seen_ns, d.unfinished_rx, d.unfinished_tx, d.outdated, d.installed,
    d.baseline_boot_id, d.ifindex, d.rx_bytes, d.tx_bytes
FROM devices d JOIN accounts a ON a.id = d.account_id
WHERE d.removed_at IS NULL
"""
_INSERT = """
INSERT INTO devices (id, account_id, name, name_key, region, public_key, address_offset, ipv6, created_at, endpoint,
    installed)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
"""
# An address is one device's alone: what is in peers there is of its session. One whose key was rotated meanwhile has
# another peer.
_ADD_ENDED = """
UPDATE devices SET
    bytes_in = devices.bytes_in + min(s.bytes_in, 9223372036854775807 - devices.bytes_in),
    bytes_out = devices.bytes_out + min(s.bytes_out, 9223372036854775807 - devices.bytes_out),
    counted_ms = devices.counted_ms + s.counted_ms,
    last_handshake_at = coalesce(s.last_handshake_at, devices.last_handshake_at),
    handshake_seen_ns = iif(s.public_key = devices.public_key, s.handshake_seen_ns, devices.handshake_seen_ns),
    ifindex = iif(s.public_key = devices.public_key, p.ifindex, devices.ifindex),
    rx_bytes = iif(s.public_key = devices.public_key, p.rx_bytes, devices.rx_bytes),
    tx_bytes = iif(s.public_key = devices.public_key, p.tx_bytes, devices.tx_bytes),
    baseline_boot_id = CASE
        WHEN s.public_key <> devices.public_key THEN devices.baseline_boot_id
        WHEN p.ifindex IS NOT NULL THEN coalesce(p.baseline_boot_id, p.counted_boot_id) END
FROM sessions s JOIN peers p ON p.address_offset = s.address_offset
WHERE s.id = ? AND s.state = 'terminated' AND devices.id = s.device_id
"""
_REMOVE = """
UPDATE devices SET removed_at = ? WHERE id IN (SELECT value FROM json_each(?)) AND removed_at IS NULL
"""
_REMOVED_BEFORE = """
SELECT id FROM devices WHERE removed_at < ? AND NOT EXISTS (SELECT 1 FROM sessions s WHERE s.device_id = devices.id)
ORDER BY removed_at LIMIT ?
"""
_FORGET = """
DELETE FROM devices WHERE id IN (SELECT value FROM json_each(?)) AND removed_at IS NOT NULL
AND NOT EXISTS (SELECT 1 FROM sessions s WHERE s.device_id = devices.id)
"""
_NO_COUNTERS = "handshake_seen_ns = 0, ifindex = NULL, rx_bytes = NULL, tx_bytes = NULL, baseline_boot_id = NULL"

_AT = {name: at for at, name in enumerate(Device.__struct_fields__)}
_SHARED = [_AT[name] for name in ("account_id", "account", "region", "endpoint")]
_FLAGS = [_AT[name] for name in ("account_disabled", "ipv6", "paused", "installed")]
_TIERS = {tier.value: tier for tier in Tier}


def _device(row: sqlite3.Row) -> Device:
    """Builds a device from a row. Interns strings that many devices share: each row brings its own copy of them."""
    *values, boot_id, ifindex, received, sent = row
    for at in _SHARED:
        values[at] = intern(values[at])
    for at in _FLAGS:
        values[at] = bool(values[at])
    values[_AT["account_tier"]] = _TIERS[values[_AT["account_tier"]]]
    values[_AT["outdated"]] = Outdated(values[_AT["outdated"]])
    values.append(None if ifindex is None else Baseline(intern(boot_id), ifindex, received, sent))
    return Device(*values)


# Reading -------------------------------------------------------------------------------------------


async def _fetch(db: aiosqlite.Connection, where: str, *parameters: object) -> list[Device]:
    return [_device(row) for row in await db.execute_fetchall(f"{_SELECT} {where}", parameters)]


async def by_id(db: aiosqlite.Connection, account_id: str, device_id: str) -> Device | None:
    """Returns the device, if it is this account's."""
    return next(iter(await _fetch(db, "AND d.id = ? AND d.account_id = ?", device_id, account_id)), None)


async def by_name(db: aiosqlite.Connection, account_id: str, name: str) -> Device | None:
    """Returns the account's device of this name, in whatever form its accents are."""
    found = await _fetch(db, "AND d.account_id = ? AND d.name_key = ?", account_id, device_name.key(name))
    return next(iter(found), None)


async def by_key(db: aiosqlite.Connection, public_key: bytes) -> Device | None:
    return next(iter(await _fetch(db, "AND d.public_key = ?", public_key)), None)


async def page(db: aiosqlite.Connection, account_id: str, limit: int, before: str | None = None) -> list[Device]:
    """Returns up to `limit` devices of the account, newest first. `before`: the last id of the previous page."""
    # One that was removed since is still a place in the order, as long as sessions name it.
    number = "?" if before is None else "(SELECT number FROM devices WHERE id = ?)"
    where = f"AND d.account_id = ? AND d.number < {number} ORDER BY d.number DESC LIMIT ?"
    return await _fetch(db, where, account_id, ABOVE_ALL if before is None else before, limit)


async def has_place(db: aiosqlite.Connection, account_id: str, device_id: str) -> bool:
    """Tells whether a page of the account's devices can begin after this one."""
    sql = "SELECT 1 FROM devices WHERE id = ? AND account_id = ?"
    return bool(await db.execute_fetchall(sql, (device_id, account_id)))


async def account_of(db: aiosqlite.Connection, device_id: str) -> str | None:
    """Returns the id of the account whose device it is; None: there is no such device."""
    sql = "SELECT account_id FROM devices WHERE id = ? AND removed_at IS NULL"
    return next((row[0] for row in await db.execute_fetchall(sql, (device_id,))), None)


async def place_of(db: aiosqlite.Connection, account_id: str, device_id: str) -> tuple[int, str] | None:
    """Returns (created_at, id) of one of the account's devices, also of a removed one; None: there is none."""
    sql = "SELECT created_at, id FROM devices WHERE id = ? AND account_id = ?"
    return next((tuple(row) for row in await db.execute_fetchall(sql, (device_id, account_id))), None)


async def page_by_time(
    db: aiosqlite.Connection, account_id: str, before: tuple[int, str] | None, limit: int
) -> list[Device]:
    """Returns up to `limit` devices of an account, the largest (created_at, id) first, of those below `before`."""
    at, id_ = (ABOVE_ALL, "") if before is None else before
    where = "AND d.account_id = ? AND (d.created_at, d.id) < (?, ?) ORDER BY d.created_at DESC, d.id DESC LIMIT ?"
    return await _fetch(db, where, account_id, at, id_, limit)


async def names(db: aiosqlite.Connection, device_ids: Iterable[str]) -> dict[str, str]:
    """Returns the names of these devices by id, of removed ones too as long as their rows are there."""
    sql = "SELECT id, name FROM devices WHERE id IN (SELECT value FROM json_each(?))"
    return {row["id"]: row["name"] for row in await db.execute_fetchall(sql, (json.dumps(list(device_ids)),))}


async def newest(db: aiosqlite.Connection, account_id: str | None, limit: int) -> list[Device]:
    """Returns the newest `limit` devices, of one account or of all, newest first; 0: all of them."""
    where, owner = ("", ()) if account_id is None else ("AND d.account_id = ?", (account_id,))
    return await _fetch(db, f"{where} ORDER BY d.number DESC LIMIT ?", *owner, min(limit, ABOVE_ALL) or -1)


async def each(db: aiosqlite.Connection) -> AsyncIterator[Device]:
    """Yields each device, row by row, as `sessions.each_unfinished` does."""
    async with await db.execute(_SELECT) as cursor:
        async for row in cursor:
            yield _device(row)


async def left_to_next(db: aiosqlite.Connection) -> frozenset[bytes]:
    """Returns the keys of the devices whose last session `max_session` has ended: the next follows at once, where the
    tunnel can still carry."""
    rows = await db.execute_fetchall(
        """
        SELECT public_key FROM devices d WHERE removed_at IS NULL AND 'expired' =
            (SELECT reason FROM sessions s WHERE s.device_id = d.id ORDER BY s.number DESC LIMIT 1)
        """
    )
    return frozenset(row[0] for row in rows)


async def count_of(db: aiosqlite.Connection, account_id: str) -> int:
    sql = "SELECT count(*) FROM devices WHERE account_id = ? AND removed_at IS NULL"
    return int(next(iter(await db.execute_fetchall(sql, (account_id,))))[0])


async def count(db: aiosqlite.Connection) -> int:
    rows = await db.execute_fetchall("SELECT count(*) FROM devices WHERE removed_at IS NULL")
    return int(next(iter(rows))[0])


async def having(
    db: aiosqlite.Connection, address_offsets: Sequence[int], public_keys: Sequence[bytes]
) -> set[int | bytes]:
    """Returns those of the addresses, by number, and of the keys that are devices'."""
    some, others = (", ".join("?" * len(each)) for each in (address_offsets, public_keys))
    sql = f"""
    SELECT address_offset FROM devices WHERE removed_at IS NULL AND address_offset IN ({some})
    UNION ALL SELECT public_key FROM devices WHERE removed_at IS NULL AND public_key IN ({others})
    """  # noqa: S608 (a placeholder for each)
    return {row[0] for row in await db.execute_fetchall(sql, (*address_offsets, *public_keys))}


async def standing(db: aiosqlite.Connection, device_ids: Iterable[str]) -> dict[str, tuple[bytes, bool]]:
    """Returns the key of each of the devices that has not been removed, and whether it is paused."""
    rows = await db.execute_fetchall(
        """
        SELECT id, public_key, paused FROM devices
        WHERE id IN (SELECT value FROM json_each(?)) AND removed_at IS NULL
        """,
        (json.dumps(list(device_ids)),),
    )
    return {row["id"]: (row["public_key"], bool(row["paused"])) for row in rows}


async def places(db: aiosqlite.Connection) -> dict[int, bool]:
    """Returns the number of each device's address, and whether it has IPv6."""
    async with await db.execute("SELECT address_offset, ipv6 FROM devices WHERE removed_at IS NULL") as cursor:
        return {offset: bool(ipv6) async for offset, ipv6 in cursor}


# Writing -------------------------------------------------------------------------------------------


async def insert(db: aiosqlite.Connection, devices: Iterable[Device]) -> None:
    """Inserts new devices. Raises sqlite3.IntegrityError if a name, key or address is another's: ask first."""
    rows = [
        (
            *(d.id, d.account_id, d.name, device_name.key(d.name), d.region, d.public_key, d.address_offset, d.ipv6),
            *(d.created_at, d.endpoint, d.installed),
        )
        for d in devices
    ]
    await db.executemany(_INSERT, rows)


async def rename(db: aiosqlite.Connection, device_id: str, name: str) -> None:
    """Raises sqlite3.IntegrityError if the account has another device of this name."""
    await db.execute(
        "UPDATE devices SET name = ?, name_key = ? WHERE id = ? AND removed_at IS NULL",
        (name, device_name.key(name), device_id),
    )


async def pause(db: aiosqlite.Connection, device_id: str, *, paused: bool) -> None:
    await db.execute("UPDATE devices SET paused = ? WHERE id = ? AND removed_at IS NULL", (paused, device_id))


async def rotate(
    db: aiosqlite.Connection, device_id: str, public_key: bytes, endpoint: str, *, installed: bool = False
) -> None:
    """Gives the device another key: its peer is a new one, and its file says where the exit is now.

    `installed`: that peer is in the tunnel already. Raises sqlite3.IntegrityError if another device has the key.
    """
    sql = f"""
    UPDATE devices SET public_key = ?, endpoint = ?, installed = ?, outdated = 0, {_NO_COUNTERS}, unfinished_rx = 0,
        unfinished_tx = 0
    WHERE id = ? AND removed_at IS NULL
    """  # noqa: S608 (constants)
    await db.execute(sql, (public_key, endpoint, installed, device_id))


async def mark_installed(db: aiosqlite.Connection, device_ids: Iterable[str]) -> None:
    """Notes that the peers of new devices have been put into the tunnel."""
    await db.executemany("UPDATE devices SET installed = 1 WHERE id = ?", [(device_id,) for device_id in device_ids])


async def move(db: aiosqlite.Connection, devices: Iterable[Device]) -> None:
    """Stores where in the subnets devices are now, and what of their files is outdated by that.

    What their peers were last billed stays: it names its interface.
    """
    await db.executemany(
        "UPDATE devices SET address_offset = ?, ipv6 = ?, outdated = ? WHERE id = ?",
        [(device.address_offset, device.ipv6, device.outdated, device.id) for device in devices],
    )


async def forget_baselines(db: aiosqlite.Connection, peers: Iterable[tuple[str, bytes]]) -> None:
    """Forgets what was last seen of peers (a device's id and key) that are gone: their counters start at zero."""
    sql = f"UPDATE devices SET {_NO_COUNTERS} WHERE id = ? AND public_key = ?"  # noqa: S608 (constants)
    await db.executemany(sql, peers)


async def put_unfinished(db: aiosqlite.Connection, devices: Iterable[Device]) -> None:
    """Writes what handshakes have moved that came to nothing, and how far the peers are counted with that.

    Leaves out devices that another process has removed or given another key meanwhile.
    """
    await db.executemany(
        """
        UPDATE devices SET unfinished_rx = ?, unfinished_tx = ?, ifindex = ?, rx_bytes = ?, tx_bytes = ?,
            baseline_boot_id = ?
        WHERE id = ? AND public_key = ? AND removed_at IS NULL
        """,
        [(d.unfinished_rx, d.unfinished_tx, *_columns(d.baseline), d.id, d.public_key) for d in devices],
    )


def _columns(b: Baseline | None) -> tuple[object, ...]:
    return (None,) * 4 if b is None else (b.ifindex, b.rx_bytes, b.tx_bytes, b.boot_id)


async def forget_unfinished(db: aiosqlite.Connection, device_ids: Iterable[str]) -> None:
    """Forgets bytes of handshakes that sessions have now."""
    sql = "UPDATE devices SET unfinished_rx = 0, unfinished_tx = 0 WHERE id = ?"
    await db.executemany(sql, [(device_id,) for device_id in device_ids])


async def add_ended(db: aiosqlite.Connection, session_ids: Iterable[str]) -> None:
    """Adds to their devices what sessions have used that have just ended, and notes how far their peers were counted.

    After it is marked terminated, and before its peer's row is dropped, in the same transaction. One without that row
    was added before: a commit that failed may have been made all the same, and is made again.
    """
    await db.executemany(_ADD_ENDED, [(session_id,) for session_id in session_ids])


async def remove(db: aiosqlite.Connection, device_ids: Iterable[str], now: int) -> None:
    """Removes devices: their names, keys and addresses are free, and their rows stay where a session names them."""
    ids = json.dumps(list(device_ids))
    await db.execute(_REMOVE, (now, ids))
    await db.execute(_FORGET, (ids,))


async def removed_before(db: aiosqlite.Connection, before: int, most: int) -> list[str]:
    """Returns the ids of up to `most` devices that were removed before this instant and that no session names."""
    rows = await db.execute_fetchall(_REMOVED_BEFORE, (before, most))
    return [row[0] for row in rows]


async def forget(db: aiosqlite.Connection, device_ids: Iterable[str]) -> None:
    """Deletes the rows of devices that were removed and that no session names."""
    await db.execute(_FORGET, (json.dumps(list(device_ids)),))


async def remove_of(db: aiosqlite.Connection, account_id: str, now: int) -> None:
    """Removes all devices of an account."""
    rows = await db.execute_fetchall(
        "SELECT id FROM devices WHERE account_id = ? AND removed_at IS NULL", (account_id,)
    )
    await remove(db, [row[0] for row in rows], now)
