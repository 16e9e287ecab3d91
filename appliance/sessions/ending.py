"""Ends sessions: removes their peers, bills the rest, and puts their addresses into quarantine."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from msgspec.structs import replace

from appliance.config.log_format import about
from appliance.domain.entities import Reason, State
from appliance.domain.errors import PeerApplyFailed, TunnelError
from appliance.network.wireguard.tunnel import RemovePeer
from appliance.store.queries import invoices
from appliance.store.queries import sessions as rows

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from appliance.domain.entities import Session
    from appliance.sessions.address_quarantine import Addresses
    from appliance.sessions.metrics import Metrics
    from appliance.sessions.peer_access import PeerAccess
    from appliance.sessions.records import Records
    from appliance.sessions.rollback import Rollback
    from appliance.sessions.schedule import Schedule

log = logging.getLogger(__name__)


class Ending:
    """Ends sessions that a client closes, and those that the ticker finds due."""

    def __init__(
        self,
        *,
        records: Records,
        peers: PeerAccess,
        addresses: Addresses,
        rollback: Rollback,
        schedule: Schedule,
        metrics: Metrics,
    ) -> None:
        self._records = records
        self._peers = peers
        self._addresses = addresses
        self._rollback = rollback
        self._schedule = schedule
        self._metrics = metrics

    async def close(self, session: Session) -> None:
        """Ends a session for its client; the peer is gone when this returns. Does nothing if it has ended already.

        Raises PeerApplyFailed: if the peer could not be removed in time; the session is then closing, and the next tick
        ends it. Raises StoreUnavailable.
        """
        async with self._peers.keys.hold(session.public_key):
            try:
                async with self._peers.locked(self._peers.deadline()):
                    if self._current(session) is not None:
                        await self._records.meter.read()
                        # Reading replaced the session in memory by one with its last figures.
                        await self.finish([(self._records.live[session.public_key], Reason.CLOSED)])
            except (TunnelError, TimeoutError) as error:
                log.warning("peer was not removed yet: %s", error or "no answer", extra=about(**ids_of(session)))
                await self._mark_closing(session)
                self._schedule.check_soon()
                raise PeerApplyFailed from error
        self._addresses.quarantine.begin_release()

    async def finish_free(self, ending: Mapping[bytes, Reason]) -> bool:
        """Ends the sessions whose keys no request holds; returns whether those were all.

        A replacement relies on the address of the session that it replaces. Must be called with the exit lock held,
        just after reading the counters. Raises TunnelError or StoreUnavailable.
        """
        live = self._records.live
        async with self._peers.keys.hold_free(ending) as free:
            await self.finish([(live[key], reason) for key, reason in ending.items() if key in free])
        return len(free) == len(ending)

    async def finish(self, ending: Sequence[tuple[Session, Reason]]) -> None:
        """Removes the peers and ends the sessions.

        Must be called with the exit lock held, just after reading the counters. Raises TunnelError or StoreUnavailable.
        """
        if not ending:
            return
        records = self._records
        await self._peers.tunnel.apply([RemovePeer(session.public_key) for session, _ in ending])
        now = records.clock.now().wall_ms
        last = records.meter.count_time([session for session, _ in ending])
        async with records.committing() as db:
            await records.meter.write(db, last)
            await rows.mark_terminated(db, [(s.id, reason) for s, reason in ending], now)
            await invoices.end(db, [s.id for s, _ in ending], now)
            await rows.forget_baselines(db, [s.public_key for s, _ in ending])
        records.meter.apply(last)
        for session, reason in ending:
            records.live.drop(session.public_key)
            self._addresses.quarantine.add(session.address_offset)
            note_end(self._metrics, session, session.reason or reason)

    async def roll_back(self) -> None:
        """Rolls back the rows of failed requests. Raises StoreUnavailable."""
        await self._rollback.run()

    def release_addresses(self) -> None:
        """Begins to release the addresses of ended sessions."""
        self._addresses.quarantine.begin_release()

    def correct_pool(self, unfinished: Iterable[Session]) -> None:
        """Corrects the pool after the store was read: its rows and failed requests hold addresses, and nothing else."""
        held = self._rollback.offsets().union(session.address_offset for session in unfinished)
        for offset in self._addresses.pool.unlike(held):
            if offset in held:
                self._addresses.pool.reserve(offset)
            else:
                self._addresses.quarantine.add(offset)

    async def _mark_closing(self, session: Session) -> None:
        async with self._records.committing() as db:
            await rows.mark_closing(db, [session.id], Reason.CLOSED)
        current = self._current(session)
        if current is not None and current.state is State.LIVE:
            self._records.live.put(replace(current, state=State.CLOSING, reason=Reason.CLOSED))

    def _current(self, session: Session) -> Session | None:
        """Returns the session as it is in memory; None if it has ended or another session has its key."""
        current = self._records.live.get(session.public_key)
        return None if current is None or current.id != session.id else current


def note_end(metrics: Metrics, session: Session, reason: Reason) -> None:
    """Counts and logs the end of a session."""
    metrics.sessions_terminated.labels(reason).inc()
    log.info("session ended", extra=about(**ids_of(session), reason=reason))


def ids_of(session: Session) -> dict[str, str]:
    """Returns the fields that name a session in the log."""
    return {"session": session.id, "account": session.account_id}
