"""Applying the exit's rules to the host: nftables and forwarding."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

from appliance.egress import ruleset
from appliance.errors import EgressError

if TYPE_CHECKING:
    from appliance.egress.forwarding import Forwarding

log = logging.getLogger(__name__)

NFT_TIMEOUT_S = 10


class HostEgress:
    def __init__(self, rules: ruleset.EgressRules, forwarding: Forwarding) -> None:
        self._rules = ruleset.render(rules)
        self._forwarding = forwarding
        self._applied = False

    async def ensure(self) -> None:
        """The table once a process, the sysctls whenever they differ. Raises EgressError."""
        if not self._applied:
            await _nft(self._rules)
            self._applied = True
            log.info("nftables table inet %s applied", ruleset.TABLE)
        # Only now: nothing is forwarded before the blocks stand.
        self._forwarding.ensure()

    async def remove(self) -> None:
        """Leave the host as it was found."""
        self._forwarding.restore()
        self._applied = False
        await _nft(ruleset.remove())


async def _nft(script: str) -> None:
    try:
        process = await asyncio.create_subprocess_exec(
            "nft", "-f", "-", stdin=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
        )
    except FileNotFoundError as error:
        raise EgressError("nft is not installed: apt-get install nftables") from error
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
