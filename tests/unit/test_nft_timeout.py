"""An nft that the kernel does not answer."""

from __future__ import annotations

import asyncio
from ipaddress import IPv4Network
from typing import TYPE_CHECKING

import pytest

from appliance.domain.errors import EgressError
from appliance.network.firewall import firewall
from appliance.network.firewall.rules import Blocks, EgressRules, Translation, TunnelNetworks
from appliance.network.firewall.state import EgressChanges
from appliance.network.firewall.sysctls import Forwarding

if TYPE_CHECKING:
    from pathlib import Path

RULES = EgressRules(
    tunnel=TunnelNetworks("wga0", IPv4Network("10.101.0.0/24"), None),
    blocks=Blocks(smtp=True, private=True, other_clients=True, extra=()),
    translation=Translation(),
)


class Stuck:
    """A process in an uninterruptible sleep: it neither answers nor ends, not even when it is killed."""

    pid = 4711
    returncode: int | None = None
    killed = False

    async def communicate(self, _: bytes) -> tuple[bytes, bytes]:
        return await asyncio.get_running_loop().create_future()

    async def wait(self) -> int:
        return await asyncio.get_running_loop().create_future()

    def kill(self) -> None:
        self.killed = True


def test_an_nft_that_hangs_is_killed_and_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is killed, and given up all the same where that does not end it: the table does not stand then. While it is
    there no other is begun."""
    process, begun = Stuck(), []

    async def start(*arguments: object, **__: object) -> Stuck:
        begun.append(arguments)
        return process

    async def story() -> None:
        egress = firewall.HostEgress(
            RULES, 51820, Forwarding(tmp_path, tmp_path / "sysctls", "boot"), tmp_path / "nftables"
        )
        async with asyncio.timeout(60):
            with pytest.raises(EgressError, match="nft did not finish"):
                await egress.apply(EgressChanges(rules=True))
            with pytest.raises(EgressError, match="has not ended yet"):
                await egress.apply(EgressChanges(rules=True))
            assert len(begun) == 1
            process.returncode = -9
            with pytest.raises(EgressError, match="nft did not finish"):
                await egress.apply(EgressChanges(rules=True))
        assert not egress.state().rules_stand

    monkeypatch.setattr(asyncio, "create_subprocess_exec", start)
    monkeypatch.setattr(firewall, "NFT_TIMEOUT_S", 0.01)
    monkeypatch.setattr(firewall, "KILLED_WITHIN_S", 0.01)
    asyncio.run(story())
    assert process.killed
