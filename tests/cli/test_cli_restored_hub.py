"""A hub whose disk was lost comes back from its backup, and whoever was in its fleet connects again by itself."""

from __future__ import annotations

import asyncio
import json
import shutil
from typing import TYPE_CHECKING

from tests.support.fleet.fleet_host import FleetHost

if TYPE_CHECKING:
    from pathlib import Path

WITHIN_S = 60


def until_connected(host: FleetHost) -> None:
    """Waits until the server there has noted that it reaches the hub."""

    async def wait() -> None:
        async with asyncio.timeout(WITHIN_S):
            while True:
                file = host.state.fleet_status
                if file.exists() and json.loads(file.read_text(encoding="utf-8"))["status"]["cut_off_since"] is None:
                    return
                await asyncio.sleep(0.02)

    asyncio.run(wait())


def test_a_hub_on_a_new_disk(tmp_path: Path) -> None:
    """Configuration and certificate of its nats-server are made anew. A spoke is let in by what its backup has."""
    fra, ams = FleetHost(tmp_path / "fra", "fra1", "fra"), FleetHost(tmp_path / "ams", "ams1", "ams")
    files = tmp_path / "fra.tar", tmp_path / "ams.tar"
    with fra.served():
        fra.do("fleet", "init")
        ams.do("node", "join", fra.do("fleet", "invite").out.strip())
    for host, file in zip((fra, ams), files, strict=True):
        host.do("backup", str(file))
        shutil.rmtree(host.state.path)
    fra.do("restore", str(files[0]))
    assert not (fra.state.path / "fleet" / "hub").exists()
    ams.do("restore", str(files[1]))
    with fra.served(), ams.served():
        until_connected(ams)
        assert {each["name"] for each in fra.json("fleet", "status")["nodes"]} == {"fra1", "ams1"}
