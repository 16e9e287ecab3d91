"""Which nftables table is an appliance's own."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from appliance.network.firewall.own_table import read
from appliance.network.firewall.table_choice import Recorded, choose, is_an_appliances
from appliance.network.record_place import place_of


def of(interface: str) -> str:
    """As nft lists it."""
    sources = f'\tchain sources {{\n\t\tiifname "{interface}" ip saddr != 10.0.0.0/8 drop\n'
    sources += f'\t\tiifname != {{ "lo", "{interface}" }} ip saddr 10.0.0.0/8 drop\n\t}}\n'
    return f'table inet x {{\n{sources}\tchain nat {{\n\t\toifname != "eth0" masquerade\n\t}}\n}}\n'


FLUSHED = "table inet x {\n\tchain sources {\n\t}\n}\n"
FIRST, SECOND = "wg_appliance", "wg_appliance_wgb0"


@pytest.mark.parametrize(
    ("recorded", "listed", "chosen"),
    [
        pytest.param(None, {}, FIRST, id="nobody has one"),
        pytest.param(None, {FIRST: of("wgb0")}, FIRST, id="an earlier version of ours wrote it"),
        pytest.param(None, {FIRST: of("wga0")}, SECOND, id="another appliance has the first"),
        pytest.param(None, {FIRST: FLUSHED}, SECOND, id="it does not say that it is ours"),
        pytest.param(None, {FIRST: of("wga0"), SECOND: of("wga0")}, None, id="both are another's"),
        pytest.param(Recorded(SECOND, "wgb0"), {}, SECOND, id="ours is known"),
        pytest.param(Recorded(FIRST, "wgb0"), {FIRST: FLUSHED}, FIRST, id="ours was flushed"),
        pytest.param(Recorded(FIRST, "wgb0"), {FIRST: of("wga0")}, SECOND, id="another appliance took it"),
        pytest.param(Recorded(FIRST, "old0"), {FIRST: of("old0")}, FIRST, id="our interface was renamed"),
    ],
)
def test_a_table_is_ours_if_it_names_our_interface(
    recorded: Recorded | None, listed: dict[str, str], chosen: str | None
) -> None:
    """By record or by what it says; a name that nobody has is taken."""
    assert choose("wgb0", recorded, listed) == chosen


def test_tables_of_appliances_are_known_by_their_names() -> None:
    assert is_an_appliances("inet", FIRST)
    assert is_an_appliances("inet", SECOND)
    assert not is_an_appliances("inet", "wg_appliance2")
    assert not is_an_appliances("ip", FIRST)
    assert not is_an_appliances("inet", f"{FIRST}_x; flush ruleset")


def record(file: Path, table: object, directory: object) -> Recorded | None:
    file.write_text(json.dumps({"table": table, "interface": "wga0", "directory": directory}), encoding="utf-8")
    return read(file)


def test_a_record_is_of_its_own_directory_and_of_an_appliances_table(tmp_path: Path) -> None:
    """That in a copy of another appliance's state, and one that names another program's table, are as none."""
    file = tmp_path / "nftables.json"
    here = place_of(file)
    assert record(file, FIRST, here) == Recorded(FIRST, "wga0")
    assert record(file, "filter", here) is None
    assert record(file, None, here) is None
    assert record(file, FIRST, None) is None
    record(file, FIRST, here)
    copied = Path(shutil.copytree(tmp_path, tmp_path / "copy")) / file.name
    assert read(copied) is None
