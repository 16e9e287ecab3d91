"""Install, upgrade and uninstall keep out of each other's way."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from appliance.domain.errors import HostError
from appliance.ops.install.layout import Layout, one_at_a_time

if TYPE_CHECKING:
    from pathlib import Path


def test_one_at_a_time(tmp_path: Path) -> None:
    """A second one is refused while the first works, and not afterwards; no file is left."""
    layout = Layout(tmp_path)
    folder = layout.programs.parent
    folder.mkdir(parents=True)
    with one_at_a_time(layout), pytest.raises(HostError, match="is running"), one_at_a_time(layout):
        pass
    with one_at_a_time(layout):
        pass
    assert list(folder.iterdir()) == []
