"""Applying the exit's rules to the host: nftables and forwarding."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

from appliance.egress import flows, ruleset
from appliance.egress.state import EgressState
from appliance.errors import EgressError

if TYPE_CHECKING:
    from collections.abc import Collection
    from ipaddress import IPv4Address, IPv6Address

    from appliance.egress.forwarding import Forwarding
    from appliance.egress.state import EgressChanges

    Address = IPv4Address | IPv6Address

log = logging.getLogger(__name__)

NFT_TIMEOUT_S = 10


class HostEgress:
    """Our nftables table, and the sysctls. Nobody else may change the table: events tell when somebody did."""

    def __init__(self, rules: ruleset.EgressRules, forwarding: Forwarding) -> None:
        self._subnets = [subnet for subnet in (rules.subnet, rules.subnet6) if subnet is not None]
        self._rules = ruleset.render(rules)
        self._forwarding = forwarding
        self._stands = False
        self._known = False  # that it stood
        self._own: int | None = None  # the last nft of ours

    def take_over(self, rules: ruleset.EgressRules) -> None:
        """These rules from now on: the next tick applies them."""
        rendered = ruleset.render(rules)
        if rendered != self._rules:
            self._rules = rendered
            self._stands = self._known = False

    def state(self) -> EgressState:
        return EgressState(self._stands, self._forwarding.read())

    async def apply(self, changes: EgressChanges) -> None:
        """Raises EgressError."""
        if changes.rules:
            # Before: what somebody else changes from here on is told by an event.
            self._stands = True
            try:
                await self._nft(self._rules)
            except BaseException:
                self._stands = False
                raise
            log.info("nftables table inet %s applied%s", ruleset.TABLE, " again: it was changed" if self._known else "")
            self._known = True
            await self._begin_flows_anew()
        if changes.sysctls:
            self._forwarding.set(changes.sysctls)

    def table_changed(self, by: int) -> bool:
        """The netlink port `by` changed our table. Whether that was somebody else."""
        if by != self._own:
            self._stands = False
        return by != self._own

    def table_unknown(self) -> None:
        """Events were lost: somebody may have changed it."""
        self._stands = False

    async def remove(self) -> None:
        """Leave the host as it was found."""
        self._forwarding.restore()
        self._stands = False
        await self._nft(ruleset.remove())

    async def forget(self, addresses: Collection[Address]) -> None:
        """No flow goes on that one of these has part in: its session has ended."""
        try:
            await asyncio.to_thread(flows.forget_of, addresses)
        except OSError as error:
            log.warning("connections of a session that ended may go on: conntrack cannot be changed: %s", error)

    async def _begin_flows_anew(self) -> None:
        """Those that began while the table was not as it should be."""
        try:
            many = await asyncio.to_thread(flows.forget_untranslated, self._subnets)
        except OSError as error:
            log.warning("connections that began without the table may hang: conntrack cannot be read: %s", error)
        else:
            if many:
                log.info("connections that had begun without the table: %d, begun anew", many)

    async def _nft(self, script: str) -> None:
        try:
            process = await asyncio.create_subprocess_exec(
                "nft", "-f", "-", stdin=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
            )
        except FileNotFoundError as error:
            raise EgressError("nft is not installed: apt-get install nftables") from error
        # Its netlink port, by which the kernel's events name who made a change (netlink(7), nl_pid): nft lets the
        # kernel choose it, which takes the process id.
        self._own = process.pid
        try:
            async with asyncio.timeout(NFT_TIMEOUT_S):
                _, stderr = await process.communicate(script.encode("utf-8"))
        except TimeoutError as error:
            process.kill()
            await process.wait()
            raise EgressError(f"nft did not finish within {NFT_TIMEOUT_S} s") from error
        if process.returncode != 0:
            reason = stderr.decode("utf-8", "replace").strip().splitlines()
            raise EgressError(f"nft refused the rules: {reason[0] if reason else process.returncode}")
