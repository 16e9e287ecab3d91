"""Borrows from the ledger what this exit's sessions use of accounts' limits, and gives back what is left over."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from contextlib import suppress
from typing import TYPE_CHECKING

from msgspec.structs import replace

from appliance.domain.errors import FleetError, StoreUnavailable
from appliance.domain.tiers import is_limited
from appliance.fleet.quota import due, holder
from appliance.fleet.quota.holder import Borrowed, Own, Sharing
from appliance.fleet.quota.opening_place import PATIENCE_S, OpeningPlace
from appliance.sessions.stopping import wait

if TYPE_CHECKING:
    from collections.abc import Callable

    from appliance.domain.clock import Clock
    from appliance.domain.entities import Account
    from appliance.domain.grant import Grant
    from appliance.domain.tiers import TierLimits
    from appliance.domain.windows import Windows
    from appliance.fleet.quota.kept_leases import KeptLeases
    from appliance.fleet.quota.lease_requests import LeaseRequests
    from appliance.fleet.quota.messages import LeaseAsk
    from appliance.fleet.quota.own_use import OwnUse
    from appliance.metering.lending import GrantSource

log = logging.getLogger(__name__)

ANSWER_S = 0.7  # to each of two tries of an opening
LOOK_S = 0.5
TRIES = 3
AT_ONCE = 32  # requests that await their answers, without those of openings


class Leasing:
    """Implements Grants over the ledger. `sharing`: how many exits there are, and what one may do that is cut off.

    `wake`: has the ticker tick earlier. A hub of an older version does not lend: until one has, limits are each exit's.
    """

    def __init__(
        self,
        requests: LeaseRequests,
        use: OwnUse,
        kept: KeptLeases,
        clock: Clock,
        lending: GrantSource,
        *,
        sharing: Callable[[], Sharing],
        wake: Callable[[], None],
    ) -> None:
        self._requests = requests
        self._use = use
        self._kept = kept
        self._clock = clock
        self._lending = lending
        self._ask_sharing = sharing
        self._sharing = Sharing(1)
        self._wake = wake
        self._borrowed: dict[str, Borrowed] = {}
        self._opening: Counter[str] = Counter()
        self._replacing: Counter[str] = Counter()
        self._alone: set[str] = set()  # accounts that are cut off before the time: an opening got no answer
        self._held: set[str] = set()
        self._flights: dict[str, asyncio.Task[bool]] = {}
        self._due = due.DueAccounts()
        self._event = asyncio.Event()
        self._gone: dict[str, tuple[bool, bool, int]] = {}  # by account, as last told the exit
        self.lends = False  # the hub has lent something once
        self._lends_not_until_ms = 0
        self.denied = 0  # openings that got no room

    # What the exit asks --------------------------------------------------------------------------------

    def lent(self, account: Account, tier: TierLimits, used: Windows) -> Grant | None:
        """Returns what this exit has of an account's limits; None: it has none, or the hub does not lend."""
        if not self.lends or not is_limited(tier):
            return None
        now_ms, borrowed = self._clock.now().boot_ms, self._borrowed.get(account.id)
        live = self._use.live(account.id)
        own = Own(account.id, used, live, live + self._opening[account.id])
        cut_off = self._is_cut_off(account.id, borrowed, now_ms)
        grant = holder.allowance(borrowed or Borrowed(), own, tier, self._sharing, cut_off=cut_off)
        if live:
            self._use.note_seen(account.id, used)
        if live and (borrowed is None or due.is_near(borrowed, used, tier, now_ms)):
            self._look_at(account.id)
        if (extra := self._replacing[account.id]) > 0:
            grant = replace(grant, live=grant.live + extra)
        if cut_off and tier.max_live_sessions:  # what is free now is of no use
            return replace(grant, others_live=max(grant.others_live, tier.max_live_sessions - grant.live))
        if not cut_off and (borrowed is None or not borrowed.known):  # it has yet to say what it used before
            more_bytes = used.traffic.used < tier.bytes_limit
            return replace(grant, more_bytes=more_bytes, more_ms=used.time.used < tier.seconds_limit * 1000)
        return grant

    def _is_cut_off(self, account_id: str, borrowed: Borrowed | None, now_ms: int) -> bool:
        if account_id in self._alone:
            return True
        return borrowed is not None and holder.is_cut_off(borrowed, self._sharing, now_ms)

    def place(self, account: Account) -> OpeningPlace:
        """Returns room for one more session of the account."""
        return OpeningPlace(self, account)

    def turned_over(self, account_ids: set[str]) -> None:
        """Looks soon at accounts whose sessions have begun or ended."""
        for account_id in account_ids:
            self._look_at(account_id)

    def note_held(self, account_id: str, *, held: bool) -> None:
        """Asks now and then whether there is more for an account whose devices are held."""
        if held and account_id not in self._held:
            self._held.add(account_id)
            self._look_at(account_id)
        elif not held:
            self._held.discard(account_id)

    def _look_at(self, account_id: str) -> None:
        self._due.put(account_id, 0)
        self._event.set()

    # Openings ------------------------------------------------------------------------------------------

    def begin_opening(self, account_id: str) -> None:
        self._opening[account_id] += 1

    def end_opening(self, account_id: str, replacing: int) -> None:
        for counter, number in ((self._opening, 1), (self._replacing, replacing)):
            counter[account_id] -= number
            if counter[account_id] <= 0:
                del counter[account_id]
        self._look_at(account_id)

    def replace_elsewhere(self, account_id: str) -> None:
        self._replacing[account_id] += 1

    async def ask_for(self, account: Account) -> bool:
        """Returns whether the ledger has no room for what is being opened. Without an answer, the share counts."""
        waits = not self.lends and self._clock.now().boot_ms < self._lends_not_until_ms
        if waits or not is_limited(self._use.tier(account)):
            return False
        answered = False
        with suppress(TimeoutError):
            async with asyncio.timeout(PATIENCE_S):
                answered = await self._ask_for(account)
        if not answered and self.lends:
            self._alone.add(account.id)
            self._lending.changed(account.id)
        return answered and not self._has_room(account)

    def may_come_free(self, account: Account) -> bool:
        """Tells whether other exits have sessions of the account: one may have ended, and not be given back yet."""
        return self._borrowed.get(account.id, Borrowed()).slots.others > 0

    async def _ask_for(self, account: Account) -> bool:
        for _ in range(TRIES):
            flight = self._flights.get(account.id)
            own = flight is None
            if flight is None:
                flight = self._begin(account.id, urgent=True)
            await asyncio.wait([flight])
            answered = not flight.cancelled() and flight.exception() is None and flight.result()
            if answered and (own or self._is_told(account)):
                return True
        return False

    def _is_told(self, account: Account) -> bool:
        """Tells whether another's request has brought what this opening needs."""
        borrowed = self._borrowed.get(account.id)
        if borrowed is None or not due.is_fresh(borrowed, self._clock.now().boot_ms):
            return False
        return self._has_room(account) or not borrowed.slots.free

    def _has_room(self, account: Account) -> bool:
        borrowed, most = self._borrowed.get(account.id), self._use.tier(account).max_live_sessions
        wanted = self._use.live(account.id) + self._opening[account.id]
        return not most or (borrowed is not None and borrowed.slots.held >= wanted)

    # Running -------------------------------------------------------------------------------------------

    async def load(self) -> None:
        """Reads what was borrowed before. Raises StoreUnavailable."""
        self._sharing = self._ask_sharing()
        self._borrowed = await self._kept.load(self._clock.now().wall_ms)
        self.lends = any(borrowed.known for borrowed in self._borrowed.values())
        self.turned_over({*self._borrowed, *self._use.with_sessions()})

    async def run(self) -> None:
        """Asks for what is due, until it is cancelled."""
        loop, saved_s = asyncio.get_running_loop(), 0.0
        try:
            while True:
                self._event.clear()
                self._sharing = self._ask_sharing()
                self.look()
                if loop.time() - saved_s >= 0.8 * LOOK_S:  # many accounts in one transaction
                    await self.save()
                    saved_s = loop.time()
                await wait(self._event, LOOK_S)
        finally:
            for flight in self._flights.values():
                flight.cancel()
            await self.save()

    async def save(self) -> None:
        """Stores what was borrowed or given back."""
        try:
            await self._kept.save()
        except StoreUnavailable as error:
            log.info("what is lent to this exit is not stored yet: %s", error)

    def look(self) -> None:
        """Begins to ask for what is due."""
        now_ms = self._clock.now().boot_ms
        for account_id in self._due.take(now_ms, max(0, AT_ONCE - len(self._flights))):
            if account_id not in self._flights:  # else it is looked at once more at its end
                self._begin(account_id)

    async def settled(self) -> None:
        """Waits until nothing that was asked is without its answer."""
        while self._flights:
            await asyncio.wait(list(self._flights.values()))

    def _begin(self, account_id: str, *, urgent: bool = False) -> asyncio.Task[bool]:
        task = asyncio.create_task(self._fly(account_id, urgent=urgent))
        self._flights[account_id] = task
        return task

    async def _fly(self, account_id: str, *, urgent: bool) -> bool:
        """Returns whether the ledger has answered, or had nothing to be asked."""
        answered = False
        try:
            account = await self._use.account(account_id)
            if account is None or not is_limited(self._use.tier(account)):
                self._borrowed.pop(account_id, None)
                return True
            answered = await self._ask(account, urgent=urgent)
            self._schedule(account)
            if not self._use.sessions(account_id):
                self._use.forget_seen(account_id)
        except StoreUnavailable as error:
            log.info("what an account may use was not asked: %s", error)
            self._due.put(account_id, self._clock.now().boot_ms + holder.AGAIN_MS)
        finally:
            self._flights.pop(account_id, None)
            if self._due.is_any(self._clock.now().boot_ms):
                self._event.set()  # it was waiting for one to end
        return answered

    def _schedule(self, account: Account) -> None:
        now_ms, borrowed = self._clock.now().boot_ms, self._borrowed.get(account.id)
        if borrowed is None:
            return
        sessions, held = self._use.sessions(account.id), account.id in self._held
        own = self._use.own(account, self._opening[account.id])
        at_ms = due.next_look(borrowed, own, self._use.tier(account), now_ms, sessions=sessions, held=held)
        if at_ms is not None:
            self._due.put(account.id, max(at_ms, now_ms + due.SOONEST_MS))

    # Asking --------------------------------------------------------------------------------------------

    async def _ask(self, account: Account, *, urgent: bool) -> bool:
        now, tier = self._clock.now(), self._use.tier(account)
        before = self._borrowed.get(account.id) or Borrowed(q=now.wall_ms)
        own = self._use.own(account, self._opening[account.id])
        held = account.id in self._held
        if own.live_wanted or self._use.sessions(account.id) or held:
            at_once = urgent or due.is_live_other(before, own, tier) or (held and due.may_ask_held(before, now.boot_ms))
            after, asked = holder.ask(before, own, tier, self._sharing, now.boot_ms, urgent=at_once)
        elif (urgent and due.has_used(own)) or due.is_left_over(before, now.boot_ms):
            after, asked = holder.give_back(before, own, now.boot_ms)
        else:
            return True
        self._borrowed[account.id] = after
        if asked is None:
            self._tell(account)
            return True
        if due.is_lowered(before, after):
            self._kept.note(account.id, after)
            await self._kept.save()
        return await self._asked(account, asked, ANSWER_S if urgent else holder.AGAIN_MS / 1000)

    async def _asked(self, account: Account, asked: LeaseAsk, timeout_s: float) -> bool:
        try:
            answer = await self._requests.lease(asked, timeout_s)
        except FleetError as error:
            if not self.lends:
                self._borrowed.pop(account.id, None)
                self._lends_not_until_ms = self._clock.now().boot_ms + due.OLDER_HUB_MS
                self._due.put(account.id, self._lends_not_until_ms)
            elif self._sharing.strict:
                self._alone.add(account.id)
            log.debug("the ledger has not said what an account may use: %s", error)
            self._tell(account)
            return False
        borrowed, now_ms = self._borrowed[account.id], self._clock.now().boot_ms
        counts = holder.counts(borrowed, answer)
        if counts:
            await self._use.adopt(account.id, asked, answer)
            account = await self._use.account(account.id) or account
        own = self._use.own(account, self._opening[account.id])
        self._borrowed[account.id] = borrowed = holder.told(borrowed, answer, own, now_ms)
        self._kept.note(account.id, borrowed)
        if not counts:
            self._look_at(account.id)
            return False
        self._alone.discard(account.id)
        self.note_lends()
        self._tell(account)
        return True

    def note_lends(self) -> None:
        """Has limits hold over all exits from now on, as the hub lends."""
        if not self.lends:
            self.lends = True
            self.turned_over(set(self._use.with_sessions()))

    def _tell(self, account: Account) -> None:
        """Has the exit look at the account by what is lent now; at once if that decides what it may."""
        tier = self._use.tier(account)
        grant = self.lent(account, tier, self._use.own(account, 0).windows)
        gone = (False, False, 0) if grant is None else (grant.bytes_gone, grant.time_gone, grant.live)
        differs = self._gone.get(account.id) != gone
        self._gone[account.id] = gone
        self._lending.changed(account.id, soon=differs)
        if differs:
            self._wake()

    # When the ledger has lost its memory ---------------------------------------------------------------

    def accounts(self) -> list[str]:
        """Returns the accounts of which the ledger was asked."""
        return list(self._borrowed)

    async def ask_again(self, account_id: str) -> bool:
        """Tells the ledger of an account, and returns whether it has answered."""
        while (flight := self._flights.get(account_id)) is not None:
            await asyncio.wait([flight])
        flight = self._begin(account_id, urgent=True)
        await asyncio.wait([flight])
        return not flight.cancelled() and flight.exception() is None and flight.result()
