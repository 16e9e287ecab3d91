"""Streams of hubs or fleets that are no more are removed once others are in force; nothing else is."""

from __future__ import annotations

import asyncio
import dataclasses
import re
import shlex
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from appliance.domain.errors import NotAnswered
from appliance.fleet.hub.config import render
from appliance.fleet.hub.control import HubControl
from appliance.fleet.hub.files import HubFiles, HubPlace, hub_place
from appliance.ops.install.layout import Layout
from tests.support.fleet.nats_program import NATS_SERVER
from tests.support.fleet.real_hub import RealHub, real_hub, until

if TYPE_CHECKING:
    from appliance.fleet.hub.config import HubSettings

UNIT = Path(__file__).parents[2] / "systemd/wg-appliance-hub.service"
FORMER = ("flt_1", "flt_1-5", "flt_1-5-alone", "flt_1-70-alone", "flt_2-7")
USED = "flt_1-7"
OTHERS = ("lost+found", "flt_1-7.copy", "flt_x_y")


def fill(streams: Path) -> None:
    """Has it hold folders of streams, of former ones too, and what is something else's."""
    for name in (*FORMER, USED, *OTHERS):
        (streams / name).mkdir(parents=True)
        (streams / name / "records").write_bytes(b"records")


def settings_in(hub: RealHub, streams: str) -> HubSettings:
    files = dataclasses.replace(hub.place.files, streams=str(hub.place.streams / streams))
    return dataclasses.replace(hub.settings(), files=files)


def test_a_server_that_goes_by_others_has_former_streams_removed(tmp_path: Path) -> None:
    """Not before it does; those in use, and what is not streams of a fleet, stay."""

    async def scene() -> None:
        async with real_hub(tmp_path) as hub:
            streams = hub.place.streams
            fill(streams)
            (streams / "flt_9").symlink_to(tmp_path)
            (streams / "flt_8").write_bytes(b"")
            known, first = {each.name for each in streams.iterdir()}, hub.server.pid
            await hub.apply()
            async with hub.signed_on(hub.system_key, "_INBOX_sys") as system:
                control = HubControl(hub.files, lambda: NATS_SERVER, system, hub.server.restart)
                with pytest.raises(NotAnswered, match="started anew"):
                    await control.apply(settings_in(hub, USED), hub.made())
            assert {each.name for each in streams.iterdir()} >= known
            await until(lambda: hub.server.pid not in (first, None))
            async with hub.signed_on(hub.system_key, "_INBOX_sys") as system:
                control = HubControl(hub.files, lambda: NATS_SERVER, system)
                await control.apply(settings_in(hub, USED), hub.made())
            assert {each.name for each in streams.iterdir()} & known == known - {*FORMER}
            assert (streams / USED / "records").read_bytes() == b"records"

    asyncio.run(scene())


def of_unit(tmp_path: Path) -> HubPlace:
    layout, state = Layout(tmp_path), tmp_path / "state"
    state.mkdir()
    layout.hub_config.mkdir(parents=True)
    return hub_place(state, layout)


def end_unit(place: HubPlace) -> None:
    """Does what the unit does as its server has ended."""
    said = re.search(r"^ExecStopPost=-((?:.*\\\n)*.*)$", UNIT.read_text(encoding="utf-8"), re.MULTILINE)
    assert said is not None
    note = place.folder / "streams.env"
    kept = note.read_text(encoding="ascii").strip().removeprefix("STREAMS=") if note.exists() else "*"
    command = said[1].replace("\\\n", " ").replace("/var/lib/wg-appliance-hub", str(place.streams.parent))
    subprocess.run([word.replace("${STREAMS}", kept) for word in shlex.split(command)], check=True, timeout=30)


def test_the_unit_removes_former_streams_as_its_server_ends(tmp_path: Path) -> None:
    """All but those that are noted; a configuration notes its own, whoever wrote it; a hub that is given up, none."""
    place, hub = of_unit(tmp_path), RealHub(tmp_path / "other")
    files = HubFiles(place)
    assert place.by_unit
    fill(place.streams)
    end_unit(place)
    assert {each.name for each in place.streams.iterdir()} == {*FORMER, USED, *OTHERS}, "there is no note"
    used = dataclasses.replace(hub.place.files, streams=str(place.streams / USED))
    text = render(dataclasses.replace(hub.settings(), files=used))
    files.put_config(text, NATS_SERVER)
    (place.folder / "streams.env").unlink()  # as an older version wrote it
    files.remove_former_streams()
    assert {*FORMER} <= {each.name for each in place.streams.iterdir()}
    end_unit(place)
    assert {each.name for each in place.streams.iterdir()} == {USED, *OTHERS}
    assert (place.streams / USED / "records").read_bytes() == b"records"
    files.put_config(text.replace(USED, "flt_1-8-alone"), NATS_SERVER)
    (place.streams / "flt_1-8-alone").mkdir()
    end_unit(place)
    assert {each.name for each in place.streams.iterdir()} == {"flt_1-8-alone", *OTHERS}
    files.remove()
    end_unit(place)
    assert {each.name for each in place.streams.iterdir()} == {*OTHERS}
