"""What clients hold beyond their limit is found, and looked for where the host's table is nearly full."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import TYPE_CHECKING

import pytest

from appliance.network.firewall.flow_capacity import TableSize
from appliance.network.firewall.flow_excess import excess, sources_over
from appliance.server.flow_watch import FlowWatch

if TYPE_CHECKING:
    from collections.abc import Sequence

HOSTMASK = 0xFF
ONE, ONE6, OTHER = "10.101.0.2", "fd65:7869:7400::2", "10.101.0.3"


@dataclass(frozen=True, slots=True)
class Begun:
    source: IPv4Address | IPv6Address
    closed: bool = False


def begun(address: str, many: int, *, closed: bool = False) -> list[Begun]:
    return [Begun(ip_address(address), closed)] * many


def test_both_addresses_of_a_client_count_together() -> None:
    """A client has more than its limit by both IP versions together; one that has just so many has not."""
    flows = begun(ONE, 3) + begun(ONE6, 2) + begun(OTHER, 4)
    over = sources_over((flow.source.packed for flow in flows), HOSTMASK, 4)
    assert {str(ip_address(each)) for each in over} == {ONE, ONE6}


def test_closed_connections_go_first() -> None:
    """All closed ones go, and of the others what is beyond the limit, over both IP versions."""
    flows = begun(ONE, 3) + begun(ONE, 5, closed=True) + begun(ONE6, 3)
    assert list(excess(flows, HOSTMASK, 4)) == begun(ONE, 5, closed=True) + begun(ONE6, 2)
    assert list(excess(begun(ONE, 4), HOSTMASK, 4)) == []


@pytest.mark.parametrize(
    ("sizes", "asked"),
    [
        pytest.param([TableSize(74, 100, 8)], 0, id="room enough"),
        pytest.param([TableSize(75, 100, 8)], 1, id="nearly full"),
        pytest.param([None, TableSize(75, 0, 8)], 0, id="not tracked, and no limit"),
    ],
)
def test_it_is_looked_for_where_the_table_is_nearly_full(sizes: Sequence[TableSize | None], asked: int) -> None:
    """From three quarters on; the next look comes later where there was nothing to find."""
    times = 0

    async def forget_excess() -> int:
        nonlocal times
        times += 1
        return 0

    async def watch() -> None:
        stopping, looks = asyncio.Event(), list(sizes)

        def read() -> TableSize | None:
            size = looks.pop(0)
            if not looks:
                looks.append(size)
                asyncio.get_running_loop().call_later(0.05, stopping.set)
            return size

        async with asyncio.timeout(60):
            await FlowWatch(read, forget_excess, stopping, interval_s=0.001, fruitless_s=60).run()

    asyncio.run(watch())
    assert times == asked
