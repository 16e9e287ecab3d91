"""The keys under which the interface is this state directory's."""

from __future__ import annotations

import json
import shutil
from typing import TYPE_CHECKING

from appliance.network.wireguard import keys
from appliance.store.server_keys import ServerKeys
from appliance.store.state_dir import StateDir

if TYPE_CHECKING:
    from pathlib import Path


def test_the_keys_are_the_present_ones_the_recorded_and_those_that_restores_kept(tmp_path: Path) -> None:
    """The record is of one boot; without state, or with a damaged record, there are none of it."""
    state = StateDir(tmp_path)
    assert ServerKeys(state, "boot").public_keys() == frozenset()
    present = keys.public_key(state.private_key())
    kept = StateDir(tmp_path / "before-restore-20261129T000000.000000Z")
    kept.create()
    before = keys.public_key(kept.private_key())
    ServerKeys(state, "boot").note([b"\x07" * 32])
    assert ServerKeys(state, "boot").public_keys() == {present, before, b"\x07" * 32}
    assert ServerKeys(state, "next boot").public_keys() == {present, before}
    for damaged in ('["no key", 5]', "5", "null", "{}"):
        noted = json.loads(state.interface_keys.read_text(encoding="utf-8"))
        state.interface_keys.write_text(json.dumps(noted | {"public_keys": json.loads(damaged)}), encoding="utf-8")
        assert ServerKeys(state, "boot").public_keys() == {present, before}
    state.interface_keys.write_text("[]", encoding="utf-8")
    assert ServerKeys(state, "boot").public_keys() == {present, before}


def test_the_record_in_a_copied_state_directory_is_not_its_own(tmp_path: Path) -> None:
    """A second appliance that is begun with a copy of the first one's state has none of its interface."""
    first, second = StateDir(tmp_path / "first"), StateDir(tmp_path / "second")
    first.create()
    ServerKeys(first, "boot").note([b"\x07" * 32])
    shutil.copytree(first.path, second.path)
    assert ServerKeys(first, "boot").public_keys() == {b"\x07" * 32}
    assert ServerKeys(second, "boot").public_keys() == frozenset()
