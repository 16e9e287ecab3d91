"""Accounts and tokens that are made and changed on whichever host is the hub, and what has to become of them."""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from random import Random

    from tests.support.fleet.hosts_running import RunningHost

Kind = Literal["made", "revoked", "disabled"]


@dataclass(frozen=True)
class ChangeMade:
    """One command that said it was done. `name`: of the account; `token`: its id."""

    kind: Kind
    name: str
    token: str
    host: str
    generation: int


class ChangesMade:
    """Makes changes; `made`: all that were, oldest first. One account has one token, which is changed once at most.

    `one_at_a_time`: held by whoever compares, so that none is made meanwhile.
    """

    def __init__(self, random: Random) -> None:
        self.made: list[ChangeMade] = []
        self._random = random
        self.one_at_a_time = asyncio.Lock()  # commands in this process have one standard output
        self._numbers = 0
        self._unsure: set[str] = set()  # accounts of a command that failed: done or not

    async def make(self, host: RunningHost) -> bool:
        """Makes a token with its account there, or changes one. Tells whether it was said to be done."""
        async with self.one_at_a_time:
            await asyncio.sleep(0)
            if self._random.random() < 0.7:
                self._numbers += 1
                return await self._token(host, f"made{self._numbers}")
            return await self._change(host)

    async def _token(self, host: RunningHost, name: str) -> bool:
        done = await asyncio.to_thread(host, "token", "create", "--account", name, "--json")
        if done.status:
            return False
        token = json.loads(done.out)["id"]
        self.made.append(ChangeMade("made", name, token, host.name, _generation(host)))
        return True

    async def _change(self, host: RunningHost) -> bool:
        there = {row[0] for row in host.rows("SELECT id FROM tokens")}
        changed = {each.name for each in self.made if each.kind != "made"} | self._unsure
        left = [each for each in self.made if each.name not in changed and each.token in there]
        if not left:
            return False
        of = self._random.choice(left)
        kind: Kind = self._random.choice(("revoked", "disabled"))
        words = ("token", "revoke", of.token) if kind == "revoked" else ("account", "set", of.name, "--disabled")
        done = await asyncio.to_thread(host, *words)
        if done.status:
            self._unsure.add(of.name)
            return False
        self.made.append(ChangeMade(kind, of.name, of.token, host.name, _generation(host)))
        return True

    def lost(self, hosts: list[RunningHost]) -> list[ChangeMade]:
        """Returns changes that neither all hosts have nor one of them lists as a conflict."""
        listed = {each["id"] for host in hosts for each in host.conflicts()}
        listed |= {(each["row"] or {}).get("name") for host in hosts for each in host.conflicts()}
        had = [
            {
                token: (name, revoked is not None, bool(disabled))
                for token, name, revoked, disabled in host.rows(
                    """SELECT t.id, a.name, t.revoked_at, a.disabled FROM tokens t
                    JOIN accounts a ON a.id = t.account_id WHERE a.deleted_at IS NULL"""
                )
            }
            for host in hosts
        ]

        def holds(change: ChangeMade) -> bool:
            of = [each.get(change.token) for each in had]
            if any(each is None for each in of):
                return False
            return change.kind == "made" or all(each[1 if change.kind == "revoked" else 2] for each in of if each)

        return [each for each in self.made if not holds(each) and not {each.token, each.name} & listed]

    def conflicting(self, hosts: list[RunningHost]) -> int:
        """Returns how many rows are listed as conflicts."""
        return sum(len(host.conflicts()) for host in hosts)

    def needless(self, hosts: list[RunningHost]) -> list[str]:
        """Returns what is listed as a conflict though the host has the row as it is listed."""
        return [
            f"{host.name}: {kind} {row}"
            for host in hosts
            for kind, id_, row in host.rows("SELECT kind, id, row FROM fleet_conflicts")
            if row is not None and _as_stored(host, kind, id_) == _told(kind, json.loads(row))
        ]


def _as_stored(host: RunningHost, kind: str, id_: str) -> dict[str, object] | None:
    table, columns = OF_KIND[kind]
    rows = host.rows(f"SELECT {', '.join(columns)} FROM {table} WHERE id = ?", id_)  # noqa: S608 (constants)
    return next((dict(zip(columns, row, strict=True)) for row in rows), None)


def _told(kind: str, row: dict[str, object]) -> dict[str, object]:
    return {key: value for key, value in row.items() if key in OF_KIND[kind][1]}


OF_KIND = {
    "account": ("accounts", ("id", "name", "tier", "disabled", "deleted_at")),
    "token": ("tokens", ("id", "account_id", "label", "expires_at", "revoked_at")),
    "member": ("fleet_members", ("id", "name", "region", "nkey", "left_at")),
}


def _generation(host: RunningHost) -> int:
    standing = host.standing
    return 0 if standing is None else standing.gen
