from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.support.client.scripted_api import TOKEN, ScriptedApi, serving
from tests.support.netns import Namespace, new_namespace

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

PROJECT = Path(__file__).resolve().parents[2]


@pytest.fixture
def api() -> Iterator[ScriptedApi]:
    """An API that answers what the test has it answer."""
    with serving() as made:
        yield made


@pytest.fixture
def space() -> Iterator[Namespace]:
    """A network namespace that the test is in."""
    if os.geteuid() != 0:
        pytest.skip("NOT TESTED: a network namespace needs root")
    with new_namespace() as made, made.entered():
        yield made


@pytest.fixture
def run(api: ScriptedApi, tmp_path: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """The command in an empty home, told of the scripted API by its environment."""

    def command(*arguments: str, cwd: Path = PROJECT, **environ: str) -> subprocess.CompletedProcess[str]:
        ours = {
            name: value for name, value in os.environ.items() if not name.startswith(("WG_APPLIANCE_", "XDG_", "SUDO_"))
        }
        told = {"HOME": str(tmp_path), "WG_APPLIANCE_API": api.url, "WG_APPLIANCE_TOKEN": TOKEN, "LC_ALL": "C.UTF-8"}
        return subprocess.run(
            [sys.executable, "-m", "appliance", *arguments],
            capture_output=True,
            text=True,
            cwd=cwd,
            env={name: value for name, value in (ours | told | environ).items() if value},
            timeout=60,
            check=False,
        )

    return command
