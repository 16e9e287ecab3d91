"""A backup of the running server, brought back after its state is lost: clients go on with the configs they have."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

import pytest

from tests.support.tunnel.sessions import client_key, settled_figures
from tests.support.tunnel.world import EXIT_IP

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.tunnel.appliance_process import Appliance
    from tests.support.tunnel.client import Client


def test_a_restored_session_goes_on(appliance: Appliance, client: Client, tmp_path: Path) -> None:
    """While it serves, restore is refused. Then the session is live on the same peer, and its bytes go on."""
    token = appliance.token()
    session = appliance.open(token)
    key = client_key(session["wg_config"])
    client.wg_quick(session["wg_config"])
    client.address_seen()
    before = settled_figures(appliance, session["id"], token, key)
    file = tmp_path / "backup.tar"
    appliance.admin("backup", str(file))
    with pytest.raises(AssertionError, match=r"already serving .*; stop it first"):
        appliance.admin("restore", str(file))
    appliance.stop()
    shutil.rmtree(appliance.store.parent)
    appliance.admin("restore", str(file))
    appliance.start()
    assert appliance.peers() == {key}
    client.shake_hands()
    assert client.address_seen() == EXIT_IP
    client.down()
    shown = appliance.close(session["id"], token)
    assert shown["bytes_in"] > before.received
    assert shown["bytes_out"] > before.sent
