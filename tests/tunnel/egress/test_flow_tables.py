"""Another program's flow table: packets of flows that it knows meet no chain, and have no mark of the exit's table."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.support.egress.vantage import vantage_on
from tests.support.tunnel.waiting import until
from tests.support.tunnel.world import WEB, WEB6

if TYPE_CHECKING:
    from pathlib import Path

FLOW_TABLE = """
table inet fastpath {
  flowtable known { hook ingress priority 0; devices = { wan }; }
  chain forward {
    type filter hook forward priority 0; policy accept;
    meta l4proto { tcp, udp } flow add @known
  }
}
"""


@pytest.mark.under_kernel
def test_answers_reach_clients(backend: str, tmp_path: Path) -> None:
    """They go on over both IP versions; the egress filter, which would drop them, is back when the flow table has
    gone."""
    with vantage_on(backend, tmp_path) as exit_:
        client, host = exit_.clients[0].member.client, exit_.world.exit
        if host.run("nft", "-f", "-", text_input=FLOW_TABLE, check=False).returncode != 0:
            pytest.skip("this kernel has no flow tables")
        for web in (WEB, WEB6):
            until(lambda web=web: client.get(f"{web}/ip", seconds=2), "an answer comes")  # type: ignore[misc]  # mypy infers no lambda with a default
        host.run("nft", "delete", "table", "inet", "fastpath")
        until(lambda: exit_.exit.fact("filter"), "the filter is back")
