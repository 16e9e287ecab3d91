"""Undoes openings that failed or that nobody was told of: peer, row, address, key and place, in that order."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from appliance.network.wireguard.tunnel import PutPeer, RemovePeer
from appliance.store.queries import invoices
from appliance.store.queries import sessions as rows

if TYPE_CHECKING:
    from collections.abc import Container

    import aiosqlite

    from appliance.domain.entities import Session
    from appliance.network.exit_node import Exit
    from appliance.network.wireguard.tunnel import PeerChange
    from appliance.sessions.address_quarantine import AddressQuarantine
    from appliance.sessions.records import Records


@dataclass(slots=True)
class _Failed:
    """Holds an opening to undo. `replaced`: the session that stays as it was, of which it had key and address."""

    session: Session
    replaced: Session | None
    peer_undone: bool = False
    row_undone: bool = False


class Undo:
    """Holds the openings that are to be undone. Until one is, its key, address and place are not another's.

    Its methods must be called with the exit lock held, but for those that only ask.
    """

    def __init__(self, records: Records, exit_: Exit, quarantine: AddressQuarantine) -> None:
        self._records = records
        self._exit = exit_
        self._quarantine = quarantine
        self._failed: dict[bytes, _Failed] = {}  # by public key
        self._writing: list[_Failed] = []  # those whose rows a transaction undoes

    def __bool__(self) -> bool:
        """Tells whether anything is to be undone."""
        return bool(self._failed)

    def holds(self, public_key: bytes) -> bool:
        """Tells whether an opening with this key is to be undone."""
        return public_key in self._failed

    def places(self, account_id: str) -> int:
        """Returns how many more of the account's sessions than are live have to be counted as such."""
        live = self._records.live
        return sum(
            f.session.account_id == account_id and f.replaced is None and f.session.public_key not in live.public_keys()
            for f in self._failed.values()
        )

    def offsets(self) -> set[int]:
        """Returns the addresses that are not free yet."""
        return {f.session.address_offset for f in self._failed.values() if f.replaced is None}

    def add(self, session: Session, replaced: Session | None, *, has_row: bool) -> None:
        """Adds an opening whose peer the tunnel may have. `has_row`: so may the store; an error does not tell."""
        self._failed[session.public_key] = _Failed(session, replaced, row_undone=not has_row)

    def peer_changes(self) -> list[PeerChange]:
        """Returns what is to be changed of the tunnel's peers."""
        return [self._peer_change(f) for f in self._failed.values() if not f.peer_undone]

    def peers_changed(self, refused: Container[bytes]) -> None:
        """Notes that the changes were applied, but for the peers of these keys; forgets what is undone by that."""
        for key, failed in self._failed.items():
            failed.peer_undone |= key not in refused
        self._forget_undone()

    async def write(self, db: aiosqlite.Connection, *, whole: bool = False) -> None:
        """Undoes rows in the caller's transaction; the caller must call `written` once it is committed.

        Leaves the rows whose peers are not undone yet; `whole`: undoes all, for one who reads what is there.
        """
        self._writing = [f for f in self._failed.values() if (f.peer_undone or whole) and not f.row_undone]
        if self._writing:
            ids = [f.session.id for f in self._writing]
            await rows.take_back(db, ids)
            await invoices.take_back(db, ids)
            replaced = [f.replaced.id for f in self._writing if f.replaced is not None]
            await rows.bring_back(db, replaced, self._records.clock.now())
            await invoices.bring_back(db, replaced)

    def written(self) -> None:
        """Notes that the rows are undone, in memory too."""
        live = self._records.live
        for failed in self._writing:
            failed.row_undone = True
            if live.by_id(failed.session.id) is None:
                continue
            if failed.replaced is None:
                live.drop(failed.session.public_key)
            else:
                live.mark_stale()
        self._writing = []
        self._forget_undone()

    def _peer_change(self, failed: _Failed) -> PeerChange:
        if failed.replaced is None:
            return RemovePeer(failed.session.public_key)
        return PutPeer(self._exit.peer(failed.replaced))

    def _forget_undone(self) -> None:
        for key, failed in list(self._failed.items()):
            if failed.peer_undone and failed.row_undone:
                del self._failed[key]
                if failed.replaced is None:
                    self._quarantine.add(failed.session.address_offset)
