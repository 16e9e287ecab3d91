"""Applies the exit's rules to the host: its nftables table, its rules in other tables, and the forwarding sysctls."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from contextlib import suppress
from typing import TYPE_CHECKING

from appliance.domain.errors import EgressError, HostError
from appliance.network import interfaces
from appliance.network.firewall import coexistence, conntrack, nft, nft_json, ruleset
from appliance.network.firewall.state import EgressState

if TYPE_CHECKING:
    from collections.abc import Callable, Collection
    from ipaddress import IPv4Address, IPv6Address

    from appliance.network.admission.admission import Admission
    from appliance.network.firewall.rules import EgressRules
    from appliance.network.firewall.state import EgressChanges
    from appliance.network.firewall.sysctls import Forwarding

    Address = IPv4Address | IPv6Address

log = logging.getLogger(__name__)

NFT_TIMEOUT_S = 10
KILLED_WITHIN_S = 1
LOOK_AGAIN_S = 2.0
OWN_KEPT = 16


class HostEgress:
    """Manages the appliance's nftables table, its rules in other tables, the sysctls, and what admits marked packets.

    Events report changes by other programs. The appliance's table is restored; other tables are read again, at most
    once per LOOK_AGAIN_S.
    """

    def __init__(
        self, rules: EgressRules, listen_port: int, forwarding: Forwarding, admission: Admission | None = None
    ) -> None:
        self._interface = rules.tunnel.interface
        self._listen_port = listen_port
        self._subnets = [subnet for _, subnet in rules.tunnel.by_family if subnet is not None]
        self._rules = ruleset.render(rules)
        self._forwarding = forwarding
        self._admission = admission
        self._stands = False
        self._known = False  # whether the current rules have been applied before
        self._own: deque[int] = deque(maxlen=OWN_KEPT)  # netlink ports of the last nft processes of this firewall
        self._stuck: asyncio.subprocess.Process | None = None  # an nft that was killed
        self._others_seen = False
        self._look_again_at = 0.0
        self._impassable: set[str] = set()  # chains of other tables; logged once

    def take_over(self, rules: EgressRules) -> None:
        """Sets the rules, which the next tick applies."""
        rendered = ruleset.render(rules)
        if rendered != self._rules:
            self._rules = rendered
            self._stands = self._known = False

    def state(self) -> EgressState:
        seen = self._others_seen or time.monotonic() < self._look_again_at
        admission = self._admission
        return EgressState(
            rules_stand=self._stands,
            sysctls=self._forwarding.read(),
            others_seen=seen,
            policy_rules_stand=admission is None or admission.rules_stand(),
            filter_stands=admission is None or admission.filter_stands(),
        )

    async def stand_first(self) -> None:
        """Puts table and ip rules in place where tunnels are already up. Raises EgressError.

        Nothing tells of changes yet, so the first tick applies them once more.
        """
        await self._nft(self._rules)
        if self._admission is not None:
            self._admission.set_rules()
            self._admission.set_filter()

    async def apply(self, changes: EgressChanges) -> None:
        """Applies the changes. Raises EgressError if one fails."""
        if changes.rules:
            # Set before applying: an event reports any later change by another program.
            self._stands = True
            try:
                await self._nft(self._rules)
            except BaseException:
                self._stands = False
                raise
            log.info("nftables table inet %s applied%s", ruleset.TABLE, " again: it was changed" if self._known else "")
            self._known = True
            await self._begin_flows_anew()
        if self._admission is not None:
            if changes.policy_rules:
                self._admission.set_rules()
            if changes.filter:
                self._admission.set_filter()
        if changes.sysctls:
            self._forwarding.set(changes.sysctls)
        if changes.others:
            # Set before, as above. Done last: other tables let clients through only once the blocks apply.
            self._others_seen, self._look_again_at = True, time.monotonic() + LOOK_AGAIN_S
            await self._pass_others()

    def table_changed(self, by: int) -> bool:
        """Notes that netlink port `by` changed the appliance's table. Returns whether that was another program."""
        if by in self._own:
            return False
        self._stands = False
        return True

    def other_changed(self, by: int) -> None:
        """Notes that netlink port `by` changed another table."""
        if by not in self._own:
            self._others_seen = False

    def tables_unknown(self) -> None:
        """Notes that events were lost: any table may have changed."""
        self._stands = self._others_seen = False

    async def remove(self) -> None:
        """Restores the host to its state before the exit."""
        self._forwarding.restore()
        self._stands = False
        await self._nft(ruleset.remove())
        if self._admission is not None:
            self._admission.remove()
        await self._nft(coexistence.delete(await self._listing()))

    async def _pass_others(self) -> None:
        """Lets clients through other tables; logs a failure, since the exit may work without it."""
        try:
            uplinks = await asyncio.to_thread(interfaces.uplinks)
            names = {version: uplink.interface for version, uplink in uplinks.items()}
            traffic = coexistence.ExitTraffic(self._interface, self._listen_port, tuple(self._subnets), names)
            points = coexistence.missing(await self._listing(), traffic)
        except (EgressError, HostError, OSError) as error:
            log.warning("what other firewalls let through is not known: %s", error)
            return
        except (LookupError, TypeError, ValueError) as error:
            # The listing has syntax unknown when this was written.
            log.warning("nft -j list ruleset is not understood: %s", error, exc_info=True)
            return
        for point in points:
            # One by one: a table may refuse changes by others than its owner (flag `owner`).
            try:
                await self._nft(coexistence.insert([point]))
                log.info("clients are let through chain %s", point)
                self._impassable.discard(str(point))
            except EgressError as error:
                if str(point) not in self._impassable:
                    log.warning("chain %s may drop clients' packets, see wg-appliance doctor: %s", point, error)
                self._impassable.add(str(point))

    async def _listing(self) -> str:
        """Lists the ruleset without the elements of sets, which may be many. Raises EgressError."""
        listed = await self._nft("", *nft.LIST_TERSE)
        if not nft_json.is_listing(listed):
            raise EgressError("nft -j list ruleset printed no JSON")
        return listed

    async def forget(self, addresses: Collection[Address]) -> None:
        """Deletes flows of these addresses, whose sessions have ended."""
        await self._forget(lambda: conntrack.forget_of(addresses))

    async def forget_others(self, held: Collection[Address]) -> None:
        """Deletes flows of all addresses in the subnets except these."""
        await self._forget(lambda: conntrack.forget_others(self._subnets, held))

    async def _forget(self, forget: Callable[[], int]) -> None:
        try:
            await asyncio.to_thread(forget)
        except OSError as error:
            log.warning("connections of a session that ended may go on: conntrack: %s", error)

    async def _begin_flows_anew(self) -> None:
        """Deletes flows without source NAT, which began while the table was missing or changed."""
        try:
            many = await asyncio.to_thread(conntrack.forget_untranslated, self._subnets)
        except OSError as error:
            log.warning("connections that began without the table may hang: conntrack: %s", error)
        else:
            if many:
                log.info("connections that had begun without the table: %d, begun anew", many)

    async def _nft(self, script: str, *arguments: str) -> str:
        """Runs nft and returns its output. Without arguments it executes the script.

        Awaited, and not run by `nft.execute` in a thread: a thread would be held for as long as nft is stuck, and the
        process id is needed before nft ends.
        """
        if self._stuck is not None and self._stuck.returncode is None:
            raise EgressError("an nft that was killed has not ended yet")
        pipe = asyncio.subprocess.PIPE
        try:
            process = await asyncio.create_subprocess_exec(
                nft.PROGRAM, *(arguments or nft.EXECUTE), stdin=pipe, stdout=pipe, stderr=pipe
            )
        except FileNotFoundError as error:
            raise EgressError("nft is not installed: apt-get install nftables") from error
        # The netlink port by which kernel events name the author of a change (netlink(7), nl_pid): nft lets the
        # kernel choose it, and the kernel chooses the process id.
        self._own.append(process.pid)
        try:
            async with asyncio.timeout(NFT_TIMEOUT_S):
                stdout, stderr = await process.communicate(script.encode("utf-8"))
        except TimeoutError as error:
            process.kill()
            # With a time limit: while the kernel does not answer nft, nft cannot be killed either.
            self._stuck = process
            with suppress(TimeoutError):
                await asyncio.wait_for(process.wait(), KILLED_WITHIN_S)
            raise EgressError(f"nft did not finish within {NFT_TIMEOUT_S} s") from error
        if process.returncode != 0:
            reason = nft.complaint(stderr.decode("utf-8", "replace").strip())
            raise EgressError(f"nft refused the rules: {reason or process.returncode}")
        return stdout.decode("utf-8", "replace")
