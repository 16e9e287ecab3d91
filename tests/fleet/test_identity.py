"""Who a host is in a fleet: what stands in state_dir/fleet, and survives."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from appliance.domain.errors import HostError
from appliance.fleet.hub.config import NODE_ID, USER_KEY
from appliance.fleet.link.nkey import NKey
from appliance.fleet.membership.identity import (
    FleetFolder,
    HubAddress,
    HubSecrets,
    Membership,
    new_fleet_id,
    new_fleet_key,
    new_keys,
)
from appliance.store.file_owner import acting_as_owner

if TYPE_CHECKING:
    from pathlib import Path

ANOTHER_USER = 12345


def membership() -> Membership:
    hubs = (HubAddress("198.51.100.1:7422", "abc.hub.internal"),)
    return Membership(new_fleet_id(), "fra1", "hub", hubs, "-----BEGIN", new_fleet_key())


def test_what_was_written_is_read(tmp_path: Path) -> None:
    """By another process too: all of it comes from the files."""
    written = membership()
    folder = FleetFolder(tmp_path)
    assert (folder.is_member, folder.membership(), folder.hub_secrets()) == (False, None, None)
    keys = folder.keys()
    folder.save_membership(written)
    folder.save_hub_secrets(of_hub := HubSecrets("SU1", "SU2", "-----BEGIN"))
    later = FleetFolder(tmp_path)
    assert (later.is_member, later.membership(), later.keys(), later.hub_secrets()) == (True, written, keys, of_hub)


def test_the_keys_are_made_once(tmp_path: Path) -> None:
    """A join whose answer was lost is tried again with the same keys, by which the hub knows the host."""
    assert FleetFolder(tmp_path).keys() == FleetFolder(tmp_path).keys()
    keys = FleetFolder(tmp_path).keys()
    assert NODE_ID.fullmatch(keys.node_id)
    assert USER_KEY.fullmatch(keys.nkey)
    assert len(keys.xkey) == len(keys.public_xkey) == 32
    assert new_keys() != new_keys()


def test_only_its_owner_reads_it(tmp_path: Path) -> None:
    """Folder and files, whatever the umask is."""
    umask = os.umask(0)
    try:
        folder = FleetFolder(tmp_path)
        folder.keys()
        folder.save_membership(membership())
    finally:
        os.umask(umask)
    assert folder.path.stat().st_mode & 0o777 == 0o700
    assert {file.name: file.stat().st_mode & 0o777 for file in folder.path.iterdir()} == {
        "keys.json": 0o600,
        "membership.json": 0o600,
    }


@pytest.mark.skipif(os.geteuid() != 0, reason="root alone gives files to others")
def test_the_files_are_the_owner_s_of_the_state_directory(tmp_path: Path) -> None:
    """A command that root runs does not lock the service out."""
    os.chown(tmp_path, ANOTHER_USER, ANOTHER_USER)
    for above in list(tmp_path.parents)[:3]:  # with pytest-xdist it is one more
        above.chmod(0o755)
    folder = FleetFolder(tmp_path)
    with acting_as_owner(tmp_path, new_keys):
        folder.keys()
        folder.save_membership(membership())
    assert {each.stat().st_uid for each in (folder.path, *folder.path.iterdir())} == {ANOTHER_USER}


def test_no_secret_is_shown() -> None:
    """In a log or a traceback."""
    keys, of_fleet = new_keys(), membership()
    of_hub = HubSecrets(NKey.new().seed, NKey.new().seed, "-----BEGIN PRIVATE KEY")
    shown = f"{keys!r} {of_fleet!r} {of_hub!r}"
    for secret in (keys.seed, repr(keys.xkey), repr(of_fleet.fleet_key), of_hub.hub_seed, of_hub.ca_key):
        assert secret not in shown


def test_who_leaves_keeps_its_id_alone(tmp_path: Path) -> None:
    """Its sessions' ids end in the node's; the keys were let in once."""
    folder = FleetFolder(tmp_path)
    before = folder.keys()
    folder.save_membership(membership())
    folder.save_hub_secrets(HubSecrets("SU1", "SU2", "-----BEGIN"))
    folder.leave()
    folder.leave()
    after = folder.keys()
    assert (folder.is_member, folder.hub_secrets(), after.node_id) == (False, None, before.node_id)
    assert after.seed != before.seed
    assert after.xkey != before.xkey


@pytest.mark.parametrize("content", ["", "{", "[]", '{"fleet_id": 5}', "\0"])
def test_a_damaged_file_is_named(tmp_path: Path, content: str) -> None:
    """One line that says what to do; never taken for a host without a fleet."""
    folder = FleetFolder(tmp_path)
    folder.path.mkdir()
    folder.membership_file.write_text(content, encoding="utf-8")
    with pytest.raises(HostError, match=r"membership.json is damaged; put it back from a backup"):
        folder.membership()


def test_a_link_in_its_place_is_not_followed(tmp_path: Path) -> None:
    """Root reads among the service's files."""
    folder = FleetFolder(tmp_path)
    folder.path.mkdir()
    folder.membership_file.symlink_to("/etc/passwd")
    with pytest.raises(HostError, match="cannot read"):
        folder.membership()
