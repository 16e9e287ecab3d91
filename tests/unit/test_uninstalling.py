"""What uninstall knows of the host before it begins."""

from __future__ import annotations

from typing import TYPE_CHECKING

from appliance.ops.install.layout import Layout
from appliance.ops.install.uninstalling import is_in_fleet

if TYPE_CHECKING:
    from pathlib import Path


def test_a_host_in_a_fleet_is_told_from_others(tmp_path: Path) -> None:
    layout = Layout(tmp_path)
    layout.config.parent.mkdir(parents=True)
    layout.config.write_text(f'[node]\nstate_dir = "{tmp_path}/state"\n', encoding="utf-8")
    assert not is_in_fleet(layout)
    (tmp_path / "state/fleet").mkdir(parents=True)
    (tmp_path / "state/fleet/membership.json").touch()
    assert is_in_fleet(layout)
