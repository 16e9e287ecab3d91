"""Counts readings into the windows of their accounts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from msgspec.structs import replace

from appliance.domain import accounting, windows

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from appliance.config.plans import Terms
    from appliance.domain.accounting import Reading
    from appliance.domain.clock import Moment
    from appliance.domain.entities import Account, Session
    from appliance.domain.windows import Use, Window
    from appliance.store.live import LiveSessions


@dataclass(frozen=True, slots=True)
class Count:
    """Holds readings, with the sessions and accounts updated by them; not yet stored."""

    readings: Sequence[Reading]
    sessions: Mapping[bytes, Session]  # by public key
    accounts: Mapping[str, Account]


class Spending:
    """Counts what sessions used into the windows that their accounts have in memory, under the terms in force."""

    def __init__(self, live: LiveSessions, terms: Terms) -> None:
        self._live = live
        self._terms = terms

    def count(self, readings: Sequence[Reading], known_until: Callable[[bytes], Moment]) -> Count:
        """Counts readings into their accounts' windows. `known_until`: up to when a session's peer was there."""
        turning = {r.after.account_id for r in readings if r.amount.time_ms and self._turns(r)}
        begun = {account.id: self._run_on(account, known_until) for account in self._live.owners_among(turning)}
        return self.spend(sorted(readings, key=lambda r: r.start_ms), begun)

    def _turns(self, reading: Reading) -> bool:
        account = self._live.owner(reading.after)
        return windows.turns(account.windows.time, self._window_ms(account), reading.end_ms)

    def _window_ms(self, account: Account) -> int:
        return self._terms.tiers[account.tier].seconds_window * 1000

    def _run_on(self, account: Account, known_until: Callable[[bytes], Moment]) -> Account:
        """Returns the account with its window of session time as of now, use not counted.

        When a window opens depends on all of its sessions, also on those whose time is counted later.
        """
        time, ends = account.windows.time, ((s, known_until(s.public_key)) for s in self._live.of_account(account.id))
        uses = [use for s, end in ends if (use := accounting.use_of_time(s, end)) is not None]
        for use in sorted(uses, key=lambda use: use.start_ms):
            time = windows.run_on(time, self._window_ms(account), use.start_ms, use.end_ms)
        return _with_time(account, time)

    def opened(self, account: Account, at_ms: int) -> Account:
        """Returns the account with its window of session time as of this instant; one ahead of it opens then."""
        return _with_time(account, windows.run_on(account.windows.time, self._window_ms(account), at_ms, at_ms))

    def spend(self, readings: Sequence[Reading], begun: Mapping[str, Account] | None = None) -> Count:
        """Counts readings that are in order. `begun`: accounts whose windows are not to be taken as they stand."""
        uses: dict[str, list[Use]] = {}
        for r in readings:
            uses.setdefault(r.after.account_id, []).append(r.use)
        accounts = {account.id: account for account in self._live.owners_among(uses)} | dict(begun or {})
        for account_id, account in accounts.items():
            used = account.windows.spend(self._terms.tiers[account.tier], uses.get(account_id, ()))
            if used != account.windows:
                accounts[account_id] = replace(account, windows=used)
        return Count(readings, {r.after.public_key: r.after for r in readings}, accounts)


def _with_time(account: Account, time: Window) -> Account:
    return replace(account, windows=replace(account.windows, time=time))
