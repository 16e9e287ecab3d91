"""`doctor` on a host where nothing is wrong."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.support.doctor.host_under_test import Host, new_host
from tests.support.tunnel.namespace import namespace_names

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture
def host(backend: str, tmp_path: Path, clock: Path) -> Iterator[Host]:
    """On both backends, where there are two."""
    with new_host(backend, tmp_path, clock) as made:
        yield made


@pytest.fixture
def served(host: Host) -> Iterator[Host]:
    with host.appliance.serving():
        yield host


def test_a_clean_host_is_ok(served: Host) -> None:
    """All is ok, and the exit status 0. The clock's answer alone is made: a namespace has none of its own."""
    diagnosis = served.doctor()
    assert diagnosis.not_ok() == {}
    assert len(diagnosis.checks) == 24


def test_doctor_changes_nothing(served: Host) -> None:
    """Links, addresses, rules, sysctls and the files of the state are the same after it, served or not."""
    before = _everything(served)
    served.doctor()
    assert _everything(served) == before
    served.appliance.stop()
    before = _everything(served)
    served.doctor()
    assert _everything(served) == before


def test_text_has_a_line_a_check(served: Host) -> None:
    """A line a check: status, name, what; where something is wrong the command that mends it, and status 1."""
    done = served.appliance.attempt("doctor")
    lines = done.stdout.splitlines()
    assert len(lines) == 24
    assert all(line.split()[0] in ("ok", "warning", "failed") for line in lines)
    served.appliance.stop()
    done = served.appliance.attempt("doctor")
    assert done.returncode == 1
    assert done.stderr == "wg-appliance: error: 1 of 24 checks failed: server\n"
    assert "failed   server          it is not running -> systemctl start wg-appliance" in done.stdout


def test_a_host_takes_its_namespaces_along(backend: str, tmp_path: Path, clock: Path) -> None:
    """A host that is done with takes its namespaces along."""
    with new_host(backend, tmp_path, clock) as made:
        spaces = {made.space.name, made.world.internet.name}
    assert not spaces & set(namespace_names())


def _everything(host: Host) -> list[object]:
    """What a diagnosis could change. The server itself writes the store meanwhile, so that its content is left out."""
    commands = (
        ("ip", "-details", "address"),
        ("ip", "route"),
        ("nft", "list", "tables"),
        ("sysctl", "-a", "--pattern", "ip"),
    )
    shown: list[object] = [host.space.run(*command, check=False).stdout for command in commands]
    return [*shown, {(file.name, file.stat().st_mode, file.stat().st_uid) for file in host.appliance.state.iterdir()}]
