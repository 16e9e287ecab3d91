"""Sends this exit's beats, and takes those of the others."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from appliance.domain.clock import Moment
from appliance.domain.errors import CutOff, FleetError
from appliance.fleet.presence import beats
from appliance.fleet.presence.directory import SKEW_WARNED_MS
from appliance.sessions.stopping import wait

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable

    from appliance.domain.clock import Clock
    from appliance.fleet.link.wire import HubLink, Message
    from appliance.fleet.membership.members import FleetMember
    from appliance.fleet.presence.beats import Beat, OwnBeats
    from appliance.fleet.presence.directory import Directory

log = logging.getLogger(__name__)

LOOK_S = 0.25  # how soon a change of `ready` or `drained` is seen


class Beating:
    """Sends a beat each second, and at once when the exit takes sessions again, or no longer; a hub's, too, when the
    accounts have changed. `of_hub`: called with the (gen, acc_rev) of each beat of another exit that is a hub, or of a
    newer generation than this one."""

    def __init__(
        self,
        link: HubLink,
        own: OwnBeats,
        directory: Directory,
        clock: Clock,
        of_hub: Callable[[int, int], None] = lambda _gen, _acc_rev: None,
    ) -> None:
        self._link = link
        self._own = own
        self._directory = directory
        self._clock = clock
        self._of_hub = of_hub
        self._sent: Beat | None = None
        self._told: tuple[object, ...] = ()  # see _news
        self._next_ms = 0  # CLOCK_BOOTTIME
        self._fault: str | None = None  # as last logged
        self._refusal: str | None = None  # as last logged
        self._skewed: set[str] = set()

    async def listen(self) -> None:
        """Subscribes to all exits' beats, for as long as the link lives; call it once. Raises what `subscribe` does."""
        await self._link.subscribe(beats.OF_ALL, self.take)

    async def run(self, stopping: asyncio.Event) -> None:
        """Sends beats until `stopping`, then one that has the others ask this exit no more: before it is silent."""
        while not stopping.is_set():
            await self.look()
            await wait(stopping, LOOK_S)
        if self._link.connected:
            await self._send(leaving=True)

    async def look(self) -> None:
        """Sends a beat if one is due."""
        now = self._clock.now()
        if not self._link.connected:
            self._sent = None  # the first thing that is sent then is a beat
            self._directory.disconnected()
            return
        changed = self._sent is None or self._news() != self._told
        if changed or now.boot_ms >= self._next_ms - beats.EARLY_MS:
            self._next_ms = now.boot_ms + beats.EVERY_MS
            await self._send()
            self._log_faults(now)

    def _news(self) -> tuple[object, ...]:
        """Returns what the others are to know at once: all spokes follow a hub's accounts."""
        accounts = self._own.accounts if self._directory.member.role == "hub" else ()
        return self._own.ready, self._own.drained, accounts

    async def _send(self, *, leaving: bool = False) -> None:
        self._told, beat = self._news(), self._own.next(leaving=leaving)
        self._directory.sent(beat, self._clock.now())
        self._sent = beat
        try:
            await self._link.publish(beats.SUBJECT + beat.node, beats.encoded(beat))
        except CutOff:
            self._sent = None
        except FleetError as error:
            if self._fault != str(error):
                log.error("this exit cannot tell the fleet that it is there: %s", error)
            self._fault = str(error)
        else:
            self._fault = None

    async def take(self, message: Message) -> None:
        """Takes a beat of an exit. What is none, or names another exit than its subject, is dropped and counted."""
        try:
            beat = beats.parse(message.subject, message.data)
        except ValueError:
            self._directory.dropped["malformed"] += 1
            return
        now = self._clock.now()
        waited_ms = now.boot_ms - message.arrived_ms
        arrived = Moment(now.wall_ms - waited_ms, message.arrived_ms, now.boot_id)
        member = self._directory.hear(beat, arrived)
        if member is not None and (member.role == "hub" or self._has_taken_over(member, beat)):
            self._of_hub(beat.gen, beat.acc_rev)

    def _has_taken_over(self, member: FleetMember, beat: Beat) -> bool:
        """Tells whether a standby is of a newer generation: it leads that, or follows who does."""
        return member.role == "standby" and self._sent is not None and beat.gen > self._sent.gen

    def _log_faults(self, now: Moment) -> None:
        """Logs what an operator has to mend, as it begins."""
        clash, refusal = self._directory.own_fault(now), self._directory.refusal(now)
        if clash is not None and clash != self._refusal:
            log.error("%s: this exit refuses work for the fleet; stop one, or join it anew", clash)
        elif refusal is not None and refusal != self._refusal:
            log.warning("connected to a hub, but %s: this exit goes on alone", refusal)
        self._refusal = refusal
        skewed = set()
        for each in self._directory.presences(self._own.now(), now, connected=True):
            if each.alive and abs(each.skew_ms or 0) > SKEW_WARNED_MS:
                skewed.add(each.member.id)
                if each.member.id not in self._skewed:
                    log.warning("the clock of %s differs from this host's by %d ms", each.member.name, each.skew_ms)
        self._skewed = skewed
