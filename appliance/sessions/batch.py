"""Serves a batch of requests: at most two messages to the device, one dump and one transaction for all of them."""

from __future__ import annotations

import logging
from collections import Counter
from typing import TYPE_CHECKING, Any

from appliance.domain.errors import NoActiveNodes, StoreUnavailable, TunnelError
from appliance.network.wireguard.batch import PeersRefused
from appliance.sessions.batch_arrivals import Arrival
from appliance.sessions.batch_closes import CloseRequest
from appliance.sessions.batch_opens import OpenRequest

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from appliance.metering.meter import Observation
    from appliance.network.wireguard.tunnel import PeerChange
    from appliance.sessions.address_quarantine import AddressQuarantine
    from appliance.sessions.batch_arrivals import Arriving, BatchArrivals
    from appliance.sessions.batch_closes import BatchCloses
    from appliance.sessions.batch_opens import Admitted, BatchOpens
    from appliance.sessions.peer_access import PeerAccess
    from appliance.sessions.records import Records
    from appliance.sessions.reloading import Reloading
    from appliance.sessions.undo import Undo
    from appliance.sessions.waiting import Waiting

log = logging.getLogger(__name__)


class Batch:
    """Opens and ends sessions, many at once.

    New peers are added before their sessions are stored: a session that is answered is on disk and in the tunnel, and
    a crash leaves peers that nobody was told of, which the next start removes. The last figures of sessions that end
    are stored before their peers, with their counters, are removed.
    """

    def __init__(
        self,
        *,
        records: Records,
        peers: PeerAccess,
        reloading: Reloading,
        opens: BatchOpens,
        arrivals: BatchArrivals,
        closes: BatchCloses,
        undo: Undo,
        quarantine: AddressQuarantine,
    ) -> None:
        self._records = records
        self._peers = peers
        self._reloading = reloading
        self._opens = opens
        self._arrivals = arrivals
        self._closes = closes
        self._undo = undo
        self._quarantine = quarantine

    @property
    def left(self) -> bool:
        """Tells whether something is left for the next batch: ends to be stored, openings to be undone."""
        return bool(self._records.ended or self._undo)

    async def serve(self, cut: Callable[[], Sequence[Waiting[Any]]]) -> bool:
        """Answers the requests that `cut` returns, which are of different keys.

        Before that, undoes what earlier batches have left. Returns whether something is left to be done at once.
        """
        async with self._peers.exit_lock:
            requests: Sequence[Waiting[Any]] = ()
            try:
                await self._reloading.if_stale()
                await self._settle()
                await self._reloading.if_stale()  # who is live instead of an undone replacement, the store knows
                requests = cut()
                await self._serve(requests)
            except StoreUnavailable as error:
                for request in requests or cut():
                    request.fail(error)
                return False
        self._quarantine.begin_release()
        return self.left and bool(requests)  # without requests, what fails waits for the next tick

    async def _settle(self) -> None:
        """Undoes openings, before anything of them is given to another, and stores ends. Raises StoreUnavailable."""
        if not self.left:
            return
        changes = self._undo.peer_changes()
        refused = await self._apply(changes)
        undone = [change.public_key for change in changes if change.public_key not in refused]
        if not undone and not self._records.ended:
            return
        async with self._records.committing() as db:
            await self._records.ended.write(db)
            await self._undo.write(db, undone)
        self._records.ended.written()
        self._undo.undone(undone)

    async def _serve(self, requests: Sequence[Waiting[Any]]) -> None:
        places = Counter[str]()
        opens = [request for request in requests if isinstance(request, OpenRequest)]
        admitted = await self._opens.admit(opens, places)
        arrivals = [request for request in requests if isinstance(request, Arrival)]
        arriving = await self._arrivals.admit(arrivals, places)
        try:
            closing = self._closes.current(request for request in requests if isinstance(request, CloseRequest))
            refused = await self._apply(self._opens.peer_changes(admitted))
            installed = self._opens.applied(admitted, refused)
            seen = await self._observe(installed, closing)
            installed = self._opens.observed(installed, seen)
            if await self._store(installed, arriving, closing, seen) and seen is not None:
                gone = await self._apply(self._closes.peer_changes(closing))
                self._closes.applied(closing, gone, seen)
        except Exception:
            self._opens.give_up(admitted)
            raise

    async def _apply(self, changes: Sequence[PeerChange]) -> Mapping[bytes, TunnelError]:
        """Applies the changes in one message; returns the errors by the keys of the peers that may not be as wanted."""
        if not changes:
            return {}
        try:
            await self._peers.tunnel.apply(changes)
        except PeersRefused as error:
            keys = [change.public_key for change in changes] if error.gave_up else error.public_keys
            return dict.fromkeys(keys, error)
        except TunnelError as error:
            return dict.fromkeys((change.public_key for change in changes), error)
        return {}

    async def _observe(self, admitted: Sequence[Admitted], closing: Sequence[CloseRequest]) -> Observation | None:
        """Reads the counters if a session is to end. None: nothing is to be read, or could be."""
        ending = {a.session.public_key for a in admitted if a.replaced} | {request.public_key for request in closing}
        if not ending:
            return None
        try:
            return await self._records.meter.observe(ending)
        except (TunnelError, StoreUnavailable) as error:
            log.warning("sessions are not ended yet, their counters could not be read: %s", error)
            return None

    async def _store(
        self,
        admitted: Sequence[Admitted],
        arriving: Sequence[Arriving],
        closing: Sequence[CloseRequest],
        seen: Observation | None,
    ) -> bool:
        """Commits everything in one transaction; returns whether it was."""
        if not (admitted or arriving or closing):
            return True
        try:
            async with self._records.committing() as db:
                await self._records.ended.write(db)
                if seen is not None:
                    await self._records.meter.write_observed(db, seen)
                opened = await self._opens.write(db, admitted, seen)
                arrived = await self._arrivals.write(db, arriving, {} if seen is None else seen.count.accounts)
                if closing:
                    await self._closes.write(db, closing)
        except StoreUnavailable as error:
            self._opens.not_committed(admitted, error)
            self._arrivals.fail(arriving, error)
            self._closes.not_committed(closing, error)
            return False
        self._records.ended.written()
        if seen is not None:
            self._records.meter.committed(seen)
        self._opens.committed(opened)
        self._arrivals.committed(arrived)
        self._arrivals.fail(arriving, NoActiveNodes())  # those that were left out
        self._closes.committed(closing, seen)
        return True
