"""Answers `claim`, `release` and `locate` of the exits, from the records of claims."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import msgspec

from appliance.domain.errors import FleetError
from appliance.fleet.accounts import ledger
from appliance.fleet.claims.claims import KeyClaimLedger, NameClaimLedger, NewClaims
from appliance.fleet.claims.forgotten import ForgottenClaims
from appliance.fleet.claims.messages import (
    Claim,
    ClaimKey,
    ClaimName,
    Done,
    Locate,
    Located,
    Release,
    ReleaseKey,
    SettleKey,
)
from appliance.fleet.link.reading import read

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from appliance.domain.clock import Clock
    from appliance.fleet.claims.forgotten import Freed
    from appliance.fleet.claims.messages import Renew
    from appliance.fleet.claims.records import ClaimRecords
    from appliance.fleet.link.wire import HubLink


class ClaimLedger:
    """Answers the exits. `locate`: returns which exit has a session or device by this id, None if it is not known.

    `is_member`: whether an exit is in the fleet. What one that was forgotten claims would be nobody's to free.
    `beside`: what else the ledger remembers, and exits tell it again when it is lost. `gen`: the fleet's generation, in
    which all is told anew: a hub that is promoted again has what it remembered when it was replaced.
    """

    def __init__(
        self,
        keys: ClaimRecords,
        names: ClaimRecords,
        clock: Clock,
        locate: Callable[[str], Awaitable[str | None]],
        is_member: Callable[[str], bool] = lambda _node: True,
        *,
        beside: Sequence[ClaimRecords] = (),
        gen: int = 0,
    ) -> None:
        self._gen = gen
        self._is_member = is_member
        self._records = keys, names
        self._remembered = (*self._records, *beside)
        new = NewClaims(clock)
        self._keys = KeyClaimLedger(keys, clock, new)
        self._names = NameClaimLedger(names, clock, new)
        self._locate = locate

    async def name(self) -> str:
        """Returns what names the ledger's memory, for SyncLedger. Raises FleetError."""
        return "-".join([str(self._gen), *await asyncio.gather(*(each.name() for each in self._remembered))])

    async def listen(self, link: HubLink) -> None:
        """Begins to answer. Raises what `subscribe` does."""
        await ledger.serve(link, "claim", self.claim)
        await ledger.serve(link, "release", self.release)
        await ledger.serve(link, "locate", self.locate)

    async def forget(self, node: str) -> Freed:
        """Frees what an exit has claimed that is a member no more. Raises FleetError."""
        return await ForgottenClaims(*self._records).free(node)

    async def claim(self, sender: str, data: bytes) -> bytes:
        """Answers one request. Raises FleetError: also if it is of no member; or Unreadable: it is none."""
        if not self._is_member(sender):
            raise FleetError(f"{sender} is not in the fleet")
        asked = read(data, Claim)
        if isinstance(asked, ClaimKey):
            return msgspec.json.encode(await self._keys.claim(sender, asked))
        if isinstance(asked, ClaimName):
            return msgspec.json.encode(await self._names.claim(sender, asked))
        if isinstance(asked, SettleKey):
            return msgspec.json.encode(await self._keys.settle(sender, asked))
        return msgspec.json.encode(await self._renew(sender, asked))

    async def _renew(self, sender: str, asked: Renew) -> Done:
        had = [await self._keys.renew(sender, each) for each in asked.keys]
        had += [await self._names.renew(sender, each) for each in asked.names]
        lost = [at for at, has in enumerate(had) if not has]
        return Done(lost=len(lost), lost_at=lost)

    async def release(self, sender: str, data: bytes) -> bytes:
        """Answers one request. Raises FleetError, or Unreadable: it is none."""
        asked = read(data, Release)
        if isinstance(asked, ReleaseKey):
            return msgspec.json.encode(await self._keys.release(sender, asked))
        return msgspec.json.encode(await self._names.release(sender, asked))

    async def locate(self, _sender: str, data: bytes) -> bytes:
        """Answers one request. Raises FleetError, or Unreadable: it is none."""
        asked = read(data, Locate)
        return msgspec.json.encode(Located(await self._locate(asked.id) or ""))
