"""Records on the hub which accounts, tokens, members and terms change, and reads what the others of the fleet follow.

Triggers record, so that each way of changing a row is seen; they are there only while this host is a hub. Accounts of
self-tests are each exit's own.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING

from appliance.domain.ids import TEMPORARY_PREFIX

if TYPE_CHECKING:
    from collections.abc import Collection

    import aiosqlite

KEPT = 20_000  # changes: who is further behind reads everything anew
KINDS = ("account", "member", "terms", "token")  # in the order of reading everything: tokens come after their accounts

_ROWS = {
    "account": """
        SELECT json_object('id', id, 'name', name, 'tier', tier, 'disabled', json(iif(disabled, 'true', 'false')),
            'created_at', created_at, 'deleted_at', deleted_at) AS row, id FROM accounts
        """,
    "token": """
        SELECT json_object('id', id, 'account_id', account_id, 'hash', lower(hex(hash)), 'label', label,
            'created_at', created_at, 'expires_at', expires_at, 'revoked_at', revoked_at) AS row, id FROM tokens
        """,
    "member": """
        SELECT json_object('id', id, 'name', name, 'region', region,
            'role', iif(role = 'standby', 'spoke', role), 'nkey', nkey,
            'standby', json(iif(role = 'standby', 'true', 'false')),
            'xkey', lower(hex(xkey)), 'joined_at', joined_at, 'left_at', left_at, 'dialled', dialled,
            'hub_since', hub_since) AS row, id
        FROM fleet_members
        """,
    "terms": "SELECT terms AS row, CAST(only_row AS TEXT) AS id FROM fleet_terms",
}
_TEMPORARY = f"substr({{}}, 1, {len(TEMPORARY_PREFIX)}) = '{TEMPORARY_PREFIX}'"
_OWN = {"account": f"NOT {_TEMPORARY.format('id')}", "token": f"NOT {_TEMPORARY.format('account_id')}"}

# Of each kind: its table, the columns that are followed, its id, and the column by which rows of self-tests are known.
_RECORDED = (
    ("account", "accounts", ("name", "tier", "disabled", "deleted_at"), "id", "id"),
    ("token", "tokens", ("account_id", "hash", "label", "expires_at", "revoked_at"), "id", "account_id"),
    (
        *("member", "fleet_members"),
        ("name", "region", "role", "nkey", "xkey", "joined_at", "left_at", "dialled", "hub_since"),
        *("id", None),
    ),
    ("terms", "fleet_terms", ("terms",), "only_row", None),
)


@dataclass(frozen=True, slots=True)
class Head:
    """Names a change: its number, and the mark that tells it from another of the same number."""

    rev: int
    mark: str


@dataclass(frozen=True, slots=True)
class ChangedRow:
    """Holds a row as it is now, as JSON; None: it is gone. `at`: the change by which it became so."""

    kind: str
    id: str
    row: str | None
    at: Head | None = None


async def record(db: aiosqlite.Connection) -> None:
    """Makes the triggers, as this host is a hub now. Those that read everything now know where to go on."""
    await ignore(db)
    for kind, table, columns, id_, of in _RECORDED:
        for event, row in (("INSERT", "NEW"), ("UPDATE", "NEW"), ("DELETE", "OLD")):
            when = [f"NOT {_TEMPORARY.format(f'{row}.{of}')}"] if of else []
            columns_of = f" OF {', '.join(columns)}" if event == "UPDATE" else ""
            if event == "UPDATE":
                when.append(f"({' OR '.join(f'OLD.{column} IS NOT NEW.{column}' for column in columns)})")
            await db.execute(
                f"""
                CREATE TRIGGER {_trigger(table, event)} AFTER {event}{columns_of} ON {table}
                {f"WHEN {' AND '.join(when)}" if when else ""}
                BEGIN
                    INSERT INTO fleet_changes (mark, kind, id)
                    VALUES (lower(hex(randomblob(8))), '{kind}', CAST({row}.{id_} AS TEXT));
                    DELETE FROM fleet_changes WHERE rev <= (SELECT max(rev) FROM fleet_changes) - {KEPT};
                END
                """  # noqa: S608 (constants)
            )
    await nudge(db)


async def is_recorded(db: aiosqlite.Connection) -> bool:
    """Tells whether the triggers are there, and follow what this version does."""
    rows = await db.execute_fetchall(
        "SELECT sql FROM sqlite_schema WHERE type = 'trigger' AND name = ?", (_trigger("fleet_members", "UPDATE"),)
    )
    return any("hub_since" in row["sql"] for row in rows)


async def nudge(db: aiosqlite.Connection) -> None:
    """Records a change of nothing, by which all who follow ask at once."""
    await db.execute("INSERT INTO fleet_changes (mark, kind, id) VALUES (lower(hex(randomblob(8))), 'start', '')")


async def forget(db: aiosqlite.Connection) -> None:
    """Erases what was recorded, as this host is no hub any more."""
    await ignore(db)
    await db.execute("DELETE FROM fleet_changes")


async def ignore(db: aiosqlite.Connection) -> None:
    """Drops the triggers, as this host is no hub any more. Does nothing if there are none."""
    for _, table, *_ in _RECORDED:
        for event in ("INSERT", "UPDATE", "DELETE"):
            await db.execute(f"DROP TRIGGER IF EXISTS {_trigger(table, event)}")


def _trigger(table: str, event: str) -> str:
    return f"fleet_{event.lower()}_of_{table}"


async def head(db: aiosqlite.Connection) -> Head:
    """Returns the newest change; number 0 where nothing is recorded."""
    rows = await db.execute_fetchall("SELECT rev, mark FROM fleet_changes ORDER BY rev DESC LIMIT 1")
    row = next(iter(rows), None)
    return Head(0, "") if row is None else Head(row["rev"], row["mark"])


async def known(db: aiosqlite.Connection, change: Head) -> bool:
    """Tells whether this store has recorded that change, and still has it."""
    rows = await db.execute_fetchall(
        "SELECT 1 FROM fleet_changes WHERE rev = ? AND mark = ?", (change.rev, change.mark)
    )
    return bool(list(rows))


async def is_past(db: aiosqlite.Connection, rev: int) -> bool:
    """Tells whether the change of that number was recorded here, and is no longer, as so many came after it."""
    rows = await db.execute_fetchall("SELECT min(rev) > ? AND max(rev) - ? >= ? FROM fleet_changes", (rev, rev, KEPT))
    return any(row[0] for row in rows)


async def after(db: aiosqlite.Connection, rev: int, most: int) -> list[ChangedRow]:
    """Returns the rows that have changed after that change, as they are now, by their last change, oldest first.

    They are of one moment: whoever has all up to the last has the rows as they were then.
    """
    rows = await db.execute_fetchall(
        f"""
        WITH last AS (
            SELECT max(rev) AS rev, kind, id FROM fleet_changes WHERE rev > ? GROUP BY kind, id ORDER BY rev LIMIT ?
        )
        SELECT last.rev, c.mark, last.kind, last.id, CASE last.kind
            WHEN 'account' THEN (SELECT row FROM ({_ROWS["account"]} WHERE id = last.id))
            WHEN 'token' THEN (SELECT row FROM ({_ROWS["token"]} WHERE id = last.id))
            WHEN 'member' THEN (SELECT row FROM ({_ROWS["member"]} WHERE id = last.id))
            WHEN 'terms' THEN (SELECT row FROM ({_ROWS["terms"]}))
        END AS row
        FROM last JOIN fleet_changes c ON c.rev = last.rev ORDER BY last.rev
        """,  # noqa: S608 (constants)
        (rev, most),
    )
    return [ChangedRow(row["kind"], row["id"], row["row"], Head(row["rev"], row["mark"])) for row in rows]


async def named(db: aiosqlite.Connection, kind: str, ids: Collection[str]) -> dict[str, str]:
    """Returns the rows of a kind, but for terms, that have these ids, as JSON."""
    rows = await db.execute_fetchall(
        f"{_ROWS[kind]} WHERE id IN (SELECT value FROM json_each(?))",  # noqa: S608 (a constant)
        (json.dumps(list(ids)),),
    )
    return {row["id"]: row["row"] for row in rows}


async def all_of(db: aiosqlite.Connection, kind: str, after_id: str, most: int) -> list[ChangedRow]:
    """Returns the rows of a kind whose ids come after this one, in the order of their ids."""
    if kind == "terms":
        rows = await db.execute_fetchall(f"SELECT id, row FROM ({_ROWS[kind]}) WHERE id > ?", (after_id,))  # noqa: S608
    else:
        own = _OWN.get(kind, "1")
        rows = await db.execute_fetchall(f"{_ROWS[kind]} WHERE id > ? AND {own} ORDER BY id LIMIT ?", (after_id, most))
    return [ChangedRow(kind, row["id"], row["row"]) for row in rows]
