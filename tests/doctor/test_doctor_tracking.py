"""What `doctor` says of the connections that the host tracks."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from appliance.network.firewall.flow_capacity import TableSize
from appliance.ops.doctor.facts import Tracking
from appliance.ops.doctor.finding import START
from appliance.ops.doctor.tracking import connections
from tests.doctor.test_doctor_checks import of_machine, of_state

if TYPE_CHECKING:
    from appliance.ops.doctor.facts import Facts

RAISE = "sysctl -w net.netfilter.nf_conntrack_max=65536"


def tracking(count: int, limit: int, *, changeable: bool | None = True) -> Facts:
    return of_machine(tracking=Tracking(TableSize(count, limit, 8192), wanted=110_592, changeable=changeable))


@pytest.mark.parametrize(
    ("facts", "status", "what", "mend"),
    [
        pytest.param(tracking(1000, 65_536), "ok", "1000 of 65536 tracked", "", id="room"),
        pytest.param(tracking(1000, 0), "ok", "1000 tracked", "", id="no limit"),
        pytest.param(tracking(52_428, 65_536), "ok", "52428 of 65536 tracked", "", id="just under four fifths"),
        pytest.param(tracking(52_429, 65_536), "warning", "new ones fail", "session list --flows", id="four fifths"),
        pytest.param(tracking(9, 8192), "warning", "few for many clients", RAISE, id="few"),
        pytest.param(tracking(9, 8192, changeable=None), "warning", "few for many clients", RAISE, id="a plain user"),
        pytest.param(
            tracking(9, 8192, changeable=False), "warning", "read-only here", f"container: {RAISE}", id="a container"
        ),
        pytest.param(of_machine(tracking=None), "ok", "none are tracked yet", "", id="none"),
    ],
)
def test_what_is_said(facts: Facts, status: str, what: str, mend: str) -> None:
    """It warns from four fifths on, and where clients' limits are lower than elsewhere because there is little room."""
    finding = connections(facts)
    assert finding.status == status
    assert what in finding.what
    assert finding.mend.endswith(mend) or mend in finding.mend


def test_a_server_that_starts_raises_it() -> None:
    """While no server runs there is nothing to do but to start it."""
    facts = replace(tracking(9, 8192), state=of_state(served=False).state)
    assert connections(facts).mend == START
