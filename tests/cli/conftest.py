from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from command_line import CommandLine

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def bare(tmp_path: Path) -> CommandLine:
    """A configuration, and no state yet."""
    return CommandLine(tmp_path)


@pytest.fixture
def wga(bare: CommandLine) -> CommandLine:
    """A configuration and an initialised state directory; no server is running."""
    bare.do("init")
    return bare
