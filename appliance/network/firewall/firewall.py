"""Applies the exit's rules to the host: its nftables table, its rules in other tables, and the forwarding sysctls."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING

from appliance.domain.errors import EgressError, HostError
from appliance.network import client_routes, process_names, uplinks
from appliance.network.firewall import coexistence, iptables, nft, nft_json, published_ports
from appliance.network.firewall.client_flows import ClientFlows
from appliance.network.firewall.observed_forwarding import ObservedForwarding
from appliance.network.firewall.own_table import OwnTable
from appliance.network.firewall.rules import Answers, HostRouting
from appliance.network.firewall.state import EgressState

if TYPE_CHECKING:
    from collections.abc import Collection
    from ipaddress import IPv4Address, IPv6Address
    from pathlib import Path

    from appliance.network.admission.admission import Admission
    from appliance.network.firewall.rules import EgressRules, PortRanges
    from appliance.network.firewall.settled_listeners import Port
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
        self,
        rules: EgressRules,
        listen_port: int,
        forwarding: Forwarding,
        table_record: Path,
        admission: Admission | None = None,
        *,
        user_space: bool = False,
    ) -> None:
        """`user_space`: wireguard-go serves the tunnel."""
        self._interface = rules.tunnel.interface
        self._listen_port = listen_port
        self._subnets = [subnet for _, subnet in rules.tunnel.by_family if subnet is not None]
        self._rules = rules
        self._table = OwnTable(self._interface, table_record, self._nft)
        self._user_space = user_space
        self._forwarding = ObservedForwarding(rules, forwarding)
        self._admission = admission
        self._stands = False
        self._known = False  # whether the current rules have been applied before
        self._own: deque[int] = deque(maxlen=OWN_KEPT)  # netlink ports of the last nft processes of this firewall
        self._stuck: asyncio.subprocess.Process | None = None  # an nft that was killed
        self._others_seen = False
        self._look_again_at = 0.0
        self._changed_by = ""
        self._closed = False  # whether the table was removed, to be restored later
        self._impassable: set[str] = set()  # chains of other tables; logged once
        self.restorations = 0  # how many times the table was applied again, after a change by another program
        self.published: frozenset[Port] = frozenset()  # ports that other tables forward
        self.flows = ClientFlows(self._subnets)

    def take_over(self, rules: EgressRules, abandoned: Collection[Address] = ()) -> None:
        """Sets the rules, which the next tick applies. The port ranges stay.

        `abandoned`: flows that leave with these addresses are then deleted.
        """
        self._declare(replace(rules, port_ranges=self._rules.port_ranges, routing=self._rules.routing), abandoned)

    def use_ports(self, ranges: PortRanges) -> bool:
        """Sets the port ranges, which the next tick applies. Returns whether they differ from the last ones."""
        if ranges == self._rules.port_ranges:
            return False
        self._declare(replace(self._rules, port_ranges=ranges))
        return True

    @property
    def is_applied(self) -> bool:
        """Tells whether the rules as last set have been applied."""
        return self._known

    def _declare(self, rules: EgressRules, abandoned: Collection[Address] = ()) -> None:
        self._forwarding.take_over(rules)
        self.flows.abandon(abandoned)
        if rules != self._rules or abandoned:
            self._rules = rules
            self._stands = self._known = False
        # Which chains clients meet depends on the interface by which they leave.
        self._others_seen = False

    async def require_forwarding(self) -> None:
        """Raises EgressError, and changes nothing, if sysctls that clients' traffic needs cannot be set here."""
        await self._forwarding.observe()
        self._forwarding.require()

    def host_changed(self) -> None:
        """Notes that the host's links or routes have changed."""
        self._forwarding.host_changed()

    async def observe(self) -> None:
        """Reads what `state` is to know of the host's routes, if it may have changed."""
        await self._forwarding.observe()

    async def routing_fault(self) -> str | None:
        """Returns why the host's routing lets clients' packets not pass; None: they pass. The tunnel is up."""
        try:
            mark = 0 if self._rules.marking is None else self._rules.marking.bit
            return await asyncio.to_thread(client_routes.routing_fault, self._interface, self._subnets, mark)
        except OSError as error:
            log.warning("whether clients' packets are routed is not known: %s", error)
            return None

    def state(self) -> EgressState:
        seen = self._others_seen or time.monotonic() < self._look_again_at
        host = self._forwarding.host()
        transit = self._forwarding.transit(host)
        answers = Answers(self._listen_port, self._forwarding.answering) if self._user_space else Answers()
        if (routing := HostRouting(transit, answers, self._forwarding.filtered(host))) != self._rules.routing:
            self._rules = replace(self._rules, routing=routing)
            self._stands = self._known = False
        admission = self._admission
        return EgressState(
            self._stands,
            host,
            others_seen=seen,
            changed_by=self._changed_by,
            needed_by_others=self._forwarding.needed_by_others,
            policy_rules_stand=admission is None or admission.rules_stand(),
            filter_stands=admission is None or admission.filter_stands(),
            declared=not self._known,
        )

    async def stand_first(self, *, served: bool) -> None:
        """Puts table and ip rules in place where a tunnel stands already. Raises EgressError.

        `served`: it has been set up by the appliance in this boot.
        Nothing tells of changes yet, so the first tick applies them once more.
        """
        if served:
            self._forwarding.adopt()
        self.state()  # which decides what the host's routing adds
        await self._table.replace(self._rules)
        if self._admission is not None:
            self._admission.set_rules()
            self._admission.set_filter()

    async def apply(self, changes: EgressChanges) -> None:
        """Applies the changes. Raises EgressError if one fails."""
        if changes.close and not self._closed:
            self._closed = True  # before, as an event reports any later change
            await self._table.remove()
        if changes.rules:
            await self._replace_table()
        if changes.disowned:
            self._forwarding.sysctls.disown(changes.disowned)
        if changes.give_back:
            await self._forwarding.give_back(self._listing)
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

    async def _replace_table(self) -> None:
        # Set before applying: an event reports any later change by another program.
        self._stands, rules = True, self._rules
        try:
            await self._table.replace(rules)
        except BaseException:
            self._stands = False
            raise
        again = " again: it was changed" if self._known else ""
        log.info("nftables table inet %s applied%s", self._table.name, again)
        self.restorations += self._known
        self._known, self._closed = rules == self._rules, False  # others may have been set meanwhile
        # The table stands: what began without it is looked for while the tick goes on.
        self.flows.begin_anew()

    def table(self) -> str:
        """Returns the name of the appliance's table."""
        return self._table.name

    def table_changed(self, by: int) -> bool:
        """Notes that netlink port `by` changed the appliance's table. Returns whether that was another program."""
        if by in self._own:
            return False
        self._stands = self._closed = False
        self._table.changed()
        # Now, as an nft ends soon; one that was too quick leaves the name of an earlier one.
        self._changed_by = process_names.describe(by) or self._changed_by
        return True

    def other_changed(self, by: int) -> None:
        """Notes that netlink port `by` changed another table."""
        if by not in self._own:
            self._others_seen = False

    def tables_unknown(self) -> None:
        """Notes that events were lost: any table may have changed."""
        self._stands = self._closed = self._others_seen = False

    async def remove(self) -> None:
        """Restores the host to its state before the exit."""
        self._forwarding.sysctls.restore()
        self._stands = False
        await self._table.remove()
        if self._admission is not None:
            self._admission.remove()
        listing = await self._listing()
        await self._nft(coexistence.delete(listing, self._table.name, self._interface, self._listen_port))

    async def forget(self, addresses: Collection[Address]) -> None:
        """Deletes flows of these addresses, whose sessions have ended."""
        await self.flows.forget(addresses)

    async def forget_others(self, held: Collection[Address]) -> None:
        """Deletes flows of all addresses in the subnets except these."""
        await self.flows.forget_others(held)

    async def forget_on_ports(self, ports: Collection[Port]) -> None:
        """Deletes clients' flows that leave from ports on which a service of the host listens now."""
        await self.flows.forget_on_ports(ports)

    async def forget_excess(self) -> int:
        """Deletes what clients hold beyond the limit, which closed flows do not count towards; returns how many."""
        most = self._rules.flows.open
        return await self.flows.forget_excess(most) if most else 0

    async def _pass_others(self) -> None:
        """Lets clients through other tables; logs a failure, since the exit may work without it."""
        try:
            found = await asyncio.to_thread(uplinks.uplinks)
            names = {version: uplink.interface for version, uplink in found.items()}
            traffic = coexistence.ExitTraffic(self._interface, self._listen_port, tuple(self._subnets), names)
            listing = await self._listing()
            if self._admission is not None:
                passed_by = coexistence.has_flow_table(listing, self._forwarding.uplinks)
                self._admission.see_flow_tables(are_there=passed_by)
            saved = await asyncio.to_thread(iptables.saved)
            self.published = published_ports.published(listing) | published_ports.published_by_iptables(saved)
            points = coexistence.missing(listing, traffic)
        except (EgressError, HostError, OSError) as error:
            log.warning("what other firewalls let through is not known: %s", error)
            return
        except (LookupError, TypeError, ValueError, AttributeError) as error:
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
