"""Makes this exit's accounts, tokens and members what the fleet's hub says, in one transaction.

Rows stay that sessions and devices refer to, and what is this exit's own of an account: its windows. Accounts of
self-tests are never touched.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Literal

import msgspec

from appliance.domain.fleet_member import FleetMember, Role
from appliance.domain.ids import TEMPORARY_PREFIX
from appliance.store.queries import devices, fleet_members

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    import aiosqlite


class KeptAccount(msgspec.Struct, frozen=True):
    """Describes an account as the hub keeps it."""

    id: str
    name: str
    tier: Literal["anonymous", "free", "paid"]
    disabled: bool
    created_at: int
    deleted_at: int | None = None


class KeptToken(msgspec.Struct, frozen=True):
    """Describes a token as the hub keeps it. `hash`: 64 hexadecimal digits."""

    id: str
    account_id: str
    hash: str
    created_at: int
    label: str = ""
    expires_at: int | None = None
    revoked_at: int | None = None


class KeptMember(msgspec.Struct, frozen=True):
    """Describes a host as the hub keeps it. `xkey`: 64 hexadecimal digits.

    `standby`: it is that, and said to be a spoke to versions that know of none.
    """

    id: str
    name: str
    region: str
    role: Literal["hub", "spoke"]
    nkey: str
    xkey: str
    joined_at: int
    left_at: int | None = None
    dialled: str = ""
    standby: bool = False
    hub_since: int = 0

    def member(self) -> FleetMember:
        """Returns the host. Raises ValueError if its key is none."""
        key = bytes.fromhex(self.xkey)
        role: Role = "standby" if self.standby else self.role
        described = self.id, self.name, self.region, role, self.nkey
        return FleetMember(*described, key, self.joined_at, self.left_at, self.dialled, self.hub_since)


async def put_accounts(db: aiosqlite.Connection, kept: Sequence[KeptAccount], now: int) -> bool:
    """Stores accounts. Returns whether any that was there is another now, so that memory has to be read again.

    Devices of deleted ones are removed. Names change hands in any order; an account that has the name of one of these
    and is not the hub's gives way.
    """
    had = await _accounts(db, [each.id for each in kept])
    changed = [each for each in kept if had.get(each.id) != each]
    altered = [each.id for each in changed if each.id in had]
    names = [each.name for each in changed if each.deleted_at is None]
    strangers = [id_ for id_ in await _called(db, names) if id_ not in {each.id for each in kept}]
    # Out of the way first: a name may be another's in the end.
    await db.executemany("UPDATE accounts SET deleted_at = 0 WHERE id = ?", [(id_,) for id_ in altered])
    await withdraw(db, strangers, now)
    await db.executemany(
        """
        INSERT INTO accounts (id, name, tier, disabled, created_at, deleted_at) VALUES (?, ?, ?, ?, ?, ?)
        ON CONFLICT (id) DO UPDATE SET name = excluded.name, tier = excluded.tier, disabled = excluded.disabled,
            created_at = excluded.created_at, deleted_at = excluded.deleted_at
        """,
        [(a.id, a.name, a.tier, a.disabled, a.created_at, a.deleted_at) for a in changed],
    )
    for each in changed:
        if each.deleted_at is not None and each.id in had:
            await devices.remove_of(db, each.id, now)
    return bool(altered or strangers)


async def _accounts(db: aiosqlite.Connection, ids: Collection[str]) -> dict[str, KeptAccount]:
    rows = await db.execute_fetchall(
        """
        SELECT id, name, tier, disabled, created_at, deleted_at FROM accounts
        WHERE id IN (SELECT value FROM json_each(?))
        """,
        (json.dumps(list(ids)),),
    )
    return {row["id"]: KeptAccount(**(dict(row) | {"disabled": bool(row["disabled"])})) for row in rows}


async def _called(db: aiosqlite.Connection, names: Sequence[str]) -> list[str]:
    rows = await db.execute_fetchall(
        "SELECT id FROM accounts WHERE deleted_at IS NULL AND name IN (SELECT value FROM json_each(?))",
        (json.dumps(names),),
    )
    return [row["id"] for row in rows]


async def withdraw(db: aiosqlite.Connection, ids: Collection[str], now: int) -> None:
    """Takes accounts out of use that the hub does not have: as deleted ones, but for their devices, which are held.

    The hub may have been rolled back, and know them again later.
    """
    await db.executemany(
        "UPDATE accounts SET disabled = 1, deleted_at = coalesce(deleted_at, ?) WHERE id = ?",
        [(now, id_) for id_ in ids],
    )


async def put_tokens(db: aiosqlite.Connection, kept: Sequence[KeptToken]) -> bool:
    """Stores tokens, of accounts that are there. Returns whether any that was there is another now.

    Raises sqlite3.IntegrityError if the account is not there, ValueError if a hash is none.
    """
    rows = await db.execute_fetchall(
        """
        SELECT id, account_id, lower(hex(hash)) AS hash, created_at, label, expires_at, revoked_at FROM tokens
        WHERE id IN (SELECT value FROM json_each(?))
        """,
        (json.dumps([each.id for each in kept]),),
    )
    had = {row["id"]: KeptToken(**dict(row)) for row in rows}
    changed = [each for each in kept if had.get(each.id) != each]
    await db.executemany(
        "DELETE FROM tokens WHERE hash = ? AND id <> ?", [(bytes.fromhex(t.hash), t.id) for t in changed]
    )
    await db.executemany(
        """
        INSERT INTO tokens (id, account_id, hash, label, created_at, expires_at, revoked_at)
        VALUES (?, ?, ?, ?, ?, ?, ?)
        ON CONFLICT (id) DO UPDATE SET account_id = excluded.account_id, hash = excluded.hash,
            label = excluded.label, created_at = excluded.created_at, expires_at = excluded.expires_at,
            revoked_at = excluded.revoked_at
        """,
        [
            (t.id, t.account_id, bytes.fromhex(t.hash), t.label, t.created_at, t.expires_at, t.revoked_at)
            for t in changed
        ],
    )
    return any(each.id in had for each in changed)


async def put_members(db: aiosqlite.Connection, kept: Sequence[KeptMember]) -> None:
    """Stores hosts; names and keys change hands in any order. Raises ValueError if an X25519 key is none."""
    await db.executemany("DELETE FROM fleet_members WHERE id = ?", [(each.id,) for each in kept])
    for each in kept:
        await fleet_members.put(db, each.member())


async def remove(db: aiosqlite.Connection, kind: str, ids: Collection[str], now: int) -> None:
    """Takes rows out of use that are gone on the hub."""
    if kind == "account":
        await withdraw(db, ids, now)
    elif kind == "token":
        await db.executemany("DELETE FROM tokens WHERE id = ?", [(id_,) for id_ in ids])
    elif kind == "member":
        await db.executemany("DELETE FROM fleet_members WHERE id = ?", [(id_,) for id_ in ids])


async def others(db: aiosqlite.Connection, kind: str, ids: Collection[str]) -> list[str]:
    """Returns the rows in use that are none of these, where these are all that the hub has."""
    sql = {
        "account": "SELECT id, id AS account FROM accounts WHERE deleted_at IS NULL",
        "token": "SELECT id, account_id AS account FROM tokens",
        "member": "SELECT id, '' AS account FROM fleet_members",
    }[kind]
    had = set(ids)
    rows = await db.execute_fetchall(sql)
    return [row["id"] for row in rows if row["id"] not in had and not row["account"].startswith(TEMPORARY_PREFIX)]
