"""How many connections the host is made to track, how many a client may have of them, and that it is put back."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from appliance.domain.errors import EgressError
from appliance.network.firewall.conntrack_size import ConntrackSizes, is_changeable, memory, read_size
from appliance.network.firewall.flow_capacity import ENTRY_BYTES, TableSize, flows_of_one, larger, wanted_limit
from tests.support.netns import new_namespace
from tests.support.real_backend import NO_ROOT, backend_here

if TYPE_CHECKING:
    from collections.abc import Callable

MIB = 1 << 20
MAX, BUCKETS = "net/netfilter/nf_conntrack_max", "net/netfilter/nf_conntrack_buckets"


@pytest.mark.parametrize("memory", [256 * MIB, 987 * MIB, 2048 * MIB, 24_000 * MIB, 1_000_000 * MIB])
def test_it_takes_a_twentieth_of_the_memory_at_most(memory: int) -> None:
    """The table takes at most 5 % of the memory when it is full, buckets included."""
    wanted = wanted_limit(memory)
    assert wanted * ENTRY_BYTES <= memory * 0.05
    assert wanted <= 524_288


def test_a_small_machine_has_room_for_sixteen_clients() -> None:
    """With 1 GB there is room for sixteen clients and more, each with all that it may have."""
    wanted = wanted_limit(987 * MIB)
    assert flows_of_one(wanted) == 4096
    assert wanted >= 16 * 4096


@pytest.mark.parametrize(
    ("size", "set_"),
    [
        pytest.param(TableSize(0, 8192, 8192), {BUCKETS: "55296", MAX: "110592"}, id="a small machine's default"),
        pytest.param(TableSize(0, 65_536, 65_536), {MAX: "110592"}, id="with buckets enough"),
        pytest.param(TableSize(0, 110_592, 8192), {}, id="as large as it may be"),
        pytest.param(TableSize(0, 262_144, 262_144), {}, id="larger already"),
        pytest.param(TableSize(0, 0, 8192), {}, id="without a limit"),
    ],
)
def test_it_is_raised_and_never_lowered(size: TableSize, set_: dict[str, str]) -> None:
    """What is larger stays as it is; the buckets come first."""
    wanted = larger(size, 987 * MIB)
    assert wanted == set_
    assert list(wanted) == list(set_)


@pytest.mark.parametrize(
    ("limit", "flows"), [(8192, 512), (65_536, 4096), (262_144, 4096), (10, 1), (0, 4096)], ids=str
)
def test_what_a_client_may_have_by_default(limit: int, flows: int) -> None:
    """4096 connections, and no more than a sixteenth of all."""
    assert flows_of_one(limit) == flows


@pytest.fixture
def proc(tmp_path: Path) -> Path:
    """As /proc of a machine with 1 GB."""
    folder = tmp_path / "proc"
    (folder / "sys/net/netfilter").mkdir(parents=True)
    (folder / "meminfo").write_text("MemTotal:         1011068 kB\nMemFree:           998000 kB\n")
    (folder / "sys/net/netfilter/nf_conntrack_count").write_text("17\n")
    for name in (MAX, BUCKETS):
        (folder / "sys" / name).write_text("8192\n")
    return folder


@pytest.fixture
def started(proc: Path, tmp_path: Path) -> Callable[[str], ConntrackSizes]:
    return lambda boot_id: ConntrackSizes(proc, tmp_path / "conntrack.json", boot_id)


def test_it_is_put_back(proc: Path, started: Callable[[str], ConntrackSizes], tmp_path: Path) -> None:
    """A second start keeps what was there before the first; then it is put back, and nothing is left of the record."""
    started("one").raise_limit()
    size = read_size(proc)
    assert size is not None
    assert (size.limit, size.buckets) == (110_592, 55_296)
    started("one").raise_limit()
    assert set(started("one").restore()) == {MAX, BUCKETS}
    assert read_size(proc) == TableSize(17, 8192, 8192)
    assert not (tmp_path / "conntrack.json").exists()
    assert started("one").restore() == []


def test_another_boot_has_nothing_to_put_back(proc: Path, started: Callable[[str], ConntrackSizes]) -> None:
    """After a reboot the values are the host's own."""
    started("one").raise_limit()
    assert started("two").restore() == []
    size = read_size(proc)
    assert size is not None
    assert size.limit == 110_592


def test_only_the_two_sizes_are_put_back(proc: Path, started: Callable[[str], ConntrackSizes], tmp_path: Path) -> None:
    """Whatever the record says: it belongs to the service's user."""
    (proc / "sys/kernel").mkdir()
    (proc / "sys/kernel/core_pattern").write_text("core")
    (tmp_path / "conntrack.json").write_text('{"boot_id": "one", "values": {"kernel/core_pattern": "|/bin/sh"}}')
    assert started("one").restore() == []
    assert (proc / "sys/kernel/core_pattern").read_text() == "core"


@pytest.mark.parametrize(
    "value",
    ["\u0663", "9" * 10, "9" * 5000, "-1", "", "8193 "],
    ids=["arabic", "large", "long", "less", "none", "space"],
)
def test_a_record_that_is_not_ours_changes_nothing(
    proc: Path, started: Callable[[str], ConntrackSizes], tmp_path: Path, value: str
) -> None:
    """Neither is such a value set, nor does it keep the host from being cleaned up."""
    record = tmp_path / "conntrack.json"
    record.write_text(json.dumps({"boot_id": "one", "values": {MAX: value, BUCKETS: value}}))
    assert started("one").restore() == []
    assert read_size(proc) == TableSize(17, 8192, 8192)
    assert not record.exists()


def test_a_folder_in_place_of_the_record(started: Callable[[str], ConntrackSizes], tmp_path: Path) -> None:
    """There is nothing to put back then."""
    (tmp_path / "conntrack.json").mkdir()
    assert started("one").restore() == []


def test_connection_tracking_that_was_unloaded(
    proc: Path, started: Callable[[str], ConntrackSizes], tmp_path: Path
) -> None:
    """What was noted of it is gone with it."""
    started("one").raise_limit()
    (proc / "sys" / MAX).unlink()
    assert started("one").restore() == []
    assert not (tmp_path / "conntrack.json").exists()


def test_where_nothing_is_tracked(proc: Path, started: Callable[[str], ConntrackSizes], tmp_path: Path) -> None:
    """Without the kernel's part nothing is raised, and nothing is noted."""
    (proc / "sys" / MAX).unlink()
    assert read_size(proc) is None
    started("one").raise_limit()
    assert not (tmp_path / "conntrack.json").exists()


def test_a_container_may_not(tmp_path: Path) -> None:
    """In a network namespace of its own the limit is read-only: one line says it, and nothing is noted."""
    if backend_here() is None:
        pytest.skip(NO_ROOT)
    sizes = ConntrackSizes(Path("/proc"), tmp_path / "conntrack.json", "one")
    with new_namespace() as space, space.entered():
        assert not is_changeable(Path("/proc"))
        size = read_size(Path("/proc"))
        if size is not None and larger(size, memory(Path("/proc"))):
            with pytest.raises(EgressError, match=r"read-only here; on the machine itself: sysctl -w net\.netfilter"):
                sizes.raise_limit()
    assert not (tmp_path / "conntrack.json").exists()
