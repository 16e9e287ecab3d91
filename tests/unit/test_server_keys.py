"""The keys under which the interface is this state directory's."""

from __future__ import annotations

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
    state.interface_keys.write_text('{"boot_id": "boot", "public_keys": ["no key", 5]}', encoding="utf-8")
    assert ServerKeys(state, "boot").public_keys() == {present, before}
