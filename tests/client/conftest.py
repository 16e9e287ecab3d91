from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from scripted_api import ScriptedApi, serving

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def api() -> Iterator[ScriptedApi]:
    """An API that answers what the test has it answer."""
    with serving() as made:
        yield made
