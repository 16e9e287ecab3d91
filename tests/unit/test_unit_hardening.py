"""What `systemd-analyze security` makes of the units, without running them, and whether the rest is justified."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable

SYSTEMD = Path(__file__).parents[2] / "systemd"
SERVICE, TUNNEL, HUB = "wg-appliance.service", "wg-appliance-tunnel.service", "wg-appliance-hub.service"
HUB_PATH, HUB_RESTART = "wg-appliance-hub-restart.path", "wg-appliance-hub-restart.service"
COLUMNS = {SERVICE: 1, TUNNEL: 2, HUB: 3}  # of the table in README.md

pytestmark = pytest.mark.skipif(
    shutil.which("systemd-analyze") is None, reason="NOT TESTED: apt-get install systemd, for systemd-analyze"
)


def security(unit: Path, *options: str) -> str:
    command = ["systemd-analyze", "security", "--offline=true", "--no-pager", *options, str(unit)]
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout


@pytest.fixture(params=["kernel", "userspace"])
def units(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A directory with the units, and on userspace with the drop-in that goes with it."""
    for unit in (SERVICE, TUNNEL, HUB, HUB_RESTART):
        shutil.copy(SYSTEMD / unit, tmp_path)
    if request.param == "userspace":
        shutil.copytree(SYSTEMD / f"{SERVICE}.d", tmp_path / f"{SERVICE}.d")
    return tmp_path


@pytest.mark.parametrize(("unit", "limit"), [(SERVICE, 1.7), (TUNNEL, 2.0), (HUB, 2.0), (HUB_RESTART, 2.0)])
def test_the_exposure_of_a_unit_is_within_its_limit(
    units: Path, unit: str, limit: float, show: Callable[[str], None]
) -> None:
    """The figure is within its limit, with the drop-in of the userspace backend and without."""
    found = re.search(r"Overall exposure level for \S+: ([\d.]+)", security(units / unit))
    assert found is not None
    show(f"{unit}: {found[1]} of {limit}")
    assert float(found[1]) <= limit


@pytest.mark.parametrize("unit", [SERVICE, TUNNEL, HUB])
def test_all_that_is_left_is_justified(unit: str) -> None:
    """README.md names every item that adds to the figure, for this unit, and no other."""
    items = json.loads(security(SYSTEMD / unit, "--json=short"))
    left = {item["name"] for item in items if not item["set"] and float(item["exposure"] or 0)}
    rows = (SYSTEMD / "README.md").read_text(encoding="utf-8").partition("## Exposure")[2].splitlines()
    cells = [[cell.strip() for cell in re.split(r"(?<!\\)\|", row)[1:-1]] for row in rows if row.startswith("| `")]
    assert {name.strip("`").replace("\\|", "|") for name, *used, _ in cells if used[COLUMNS[unit] - 1] == "x"} == left


@pytest.mark.parametrize("unit", [SERVICE, TUNNEL, HUB, HUB_PATH, HUB_RESTART])
def test_systemd_knows_every_line_of_a_unit(unit: str) -> None:
    """systemd knows every line; an early one not the steps between restarts."""
    command = ["systemd-analyze", "verify", "--man=no", str(SYSTEMD / unit)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    remarks = [line for line in done.stderr.splitlines() if f"/{unit}:" in line]
    assert [line for line in remarks if "RestartSteps" not in line and "RestartMaxDelaySec" not in line] == []
