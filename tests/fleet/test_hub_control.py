"""A hub's nats-server follows the directory of members, without a restart; what it would refuse changes nothing."""

from __future__ import annotations

import asyncio
import dataclasses
import ssl
from typing import TYPE_CHECKING

import nats.errors
import pytest

from appliance.domain.errors import FleetError
from appliance.fleet.hub.certificates import DAY_MS, make_leaf, validity
from appliance.fleet.hub.config import member_inbox
from appliance.fleet.hub.control import renew_if_due
from appliance.fleet.hub.files import HubFiles, hub_place
from appliance.fleet.link.nkey import NKey
from appliance.fleet.membership.members import FleetMember
from appliance.ops.install.layout import Layout
from tests.support.fleet.real_hub import SERVER_NAME, RealHub, now_ms, real_hub, until

if TYPE_CHECKING:
    from pathlib import Path

AMS = "nod_" + "a" * 24


def member(key: NKey) -> FleetMember:
    return FleetMember(AMS, "ams1", "ams", "spoke", key.public, bytes(32), 1)


def test_a_member_is_let_in_when_it_was_applied_and_cut_off_when_it_left(tmp_path: Path) -> None:
    """With its own rights; connections of others stay."""
    key = NKey.new()

    async def scene() -> None:
        async with real_hub(tmp_path) as hub, hub.signed_on(hub.hub_key, "_INBOX_hub") as others:
            with pytest.raises(nats.errors.Error):
                async with hub.signed_on(key, member_inbox(AMS)):
                    pass
            await hub.apply(member(key))
            async with hub.signed_on(key, member_inbox(AMS)) as link:
                heard = await link.client.subscribe(f"wga.hb.{AMS}")
                await link.publish(f"wga.hb.{AMS}", b"1")
                assert (await heard.next_msg(timeout=10)).data == b"1"
                assert hub.control is not None
                found = {each.user: each for each in await hub.control.connections(SERVER_NAME)}
                assert found.keys() == {key.public, hub.hub_key.public, hub.system_key.public}
                assert (found[key.public].messages, found[key.public].bytes) == (1, 1)
                await hub.apply()
                await until(lambda: not link.connected)
            assert others.connected
            assert hub.server.starts == 1

    asyncio.run(scene())


def test_what_is_in_force_is_not_read_again(tmp_path: Path) -> None:
    """`apply` may be repeated; each reload is a line of the log."""

    async def scene() -> str:
        async with real_hub(tmp_path) as hub:
            for _ in range(3):
                await hub.apply()
        return (tmp_path / "fleet/hub/nats-server.log").read_text(encoding="utf-8")

    assert asyncio.run(scene()).count("Reloaded server configuration") == 1


def test_a_configuration_that_would_not_do_keeps_the_old_one(tmp_path: Path) -> None:
    """Neither one that nats-server refuses on its own, nor one that it refuses to change to while it runs."""

    async def scene() -> None:
        async with real_hub(tmp_path) as hub:
            await hub.apply()
            assert hub.control is not None
            good, before = hub.settings(), hub.files.config()
            with pytest.raises(FleetError, match="is not taken over"):
                await hub.control.apply(dataclasses.replace(good, listen="127.0.0.1:port"))
            assert hub.files.config() == before
            elsewhere = dataclasses.replace(good.files, streams=str(tmp_path / "elsewhere"))
            with pytest.raises(FleetError, match=r"keeps its configuration: .*jetstream storage directory"):
                await hub.control.apply(dataclasses.replace(good, files=elsewhere))
            assert hub.files.config() == before
            async with hub.signed_on(hub.hub_key, "_INBOX_hub"):
                await hub.apply(member(NKey.new()))

    asyncio.run(scene())


def served_dates(hub: RealHub) -> int:
    """From when the certificate that the hub serves is valid."""
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    tls.load_verify_locations(cadata=hub.authority.certificate)

    async def look() -> int:
        reader, writer = await asyncio.open_connection("127.0.0.1", hub.port)
        await reader.readline()  # INFO comes before TLS
        await writer.start_tls(tls, server_hostname=SERVER_NAME)
        der = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
        writer.transport.abort()
        return validity(ssl.DER_cert_to_PEM_cert(der)).begins

    return asyncio.run(look())


def test_a_due_certificate_is_renewed_without_dropping_anyone(tmp_path: Path) -> None:
    """The new one is served to who connects next."""

    async def scene() -> None:
        async with real_hub(tmp_path) as hub, hub.signed_on(hub.hub_key, "_INBOX_hub") as others:
            hub.files.put_leaf(make_leaf(hub.authority, SERVER_NAME, now_ms() - 70 * DAY_MS))
            await hub.apply()
            old = await asyncio.to_thread(served_dates, hub)
            assert hub.control is not None
            assert await hub.control.renew_leaf(hub.settings(), hub.made())
            await hub.apply()
            assert await asyncio.to_thread(served_dates, hub) - old >= 69 * DAY_MS
            assert not await hub.control.renew_leaf(hub.settings(), hub.made())
            assert others.connected

    asyncio.run(scene())


def test_a_certificate_that_does_not_fit_its_key_is_not_put_in_place(tmp_path: Path) -> None:
    """nats-server would not start with it."""
    hub = RealHub(tmp_path)
    before = hub.place.certificate.read_text(encoding="ascii")
    one, other = (make_leaf(hub.authority, SERVER_NAME, now_ms()) for _ in range(2))
    with pytest.raises(FleetError, match="does not fit its key"):
        hub.files.put_leaf(dataclasses.replace(one, key=other.key))
    assert hub.place.certificate.read_text(encoding="ascii") == before


def test_the_files_of_the_unit_are_the_units_group_s_to_read(tmp_path: Path) -> None:
    """Where `install` has made the unit's folder; where it has not, they are in the state directory, and private."""
    state, layout = tmp_path / "state", Layout(tmp_path)
    state.mkdir()
    (tmp_path / "other").mkdir()
    own = hub_place(state, layout)
    assert (own.by_unit, own.folder, own.streams) == (False, state / "fleet/hub", state / "fleet/hub/jetstream")
    layout.hub_config.mkdir(parents=True)
    of_unit = hub_place(state, layout)
    assert (of_unit.by_unit, of_unit.folder) == (True, layout.hub_config)
    assert of_unit.streams == tmp_path / "var/lib/wg-appliance-hub/jetstream"
    assert (own.files.log, of_unit.files.log) == (str(own.folder / "nats-server.log"), "")
    hub = RealHub(tmp_path / "other")
    for place, mode in ((own, 0o600), (of_unit, 0o640)):
        assert renew_if_due(HubFiles(place), hub.made(), hub.settings())
        assert {file.stat().st_mode & 0o777 for file in (place.key, place.certificate)} == {mode}


def test_nothing_of_a_hub_is_left_that_could_start(tmp_path: Path) -> None:
    """Removed twice too, as by a command that is run again."""
    hub = RealHub(tmp_path)
    hub.place.streams.mkdir()
    hub.files.remove()
    hub.files.remove()
    assert list(hub.place.folder.iterdir()) == []
    assert hub.files.config() is None
    assert hub.files.leaf() is None


def test_the_unit_is_asked_for_a_restart_by_a_file(tmp_path: Path) -> None:
    """Where there is one; another file each time, which systemd notices."""
    state, layout = tmp_path / "state", Layout(tmp_path)
    state.mkdir()
    (tmp_path / "other").mkdir()
    HubFiles(hub_place(state, layout)).ask_restart()
    assert list(state.iterdir()) == []
    layout.hub_config.mkdir(parents=True)
    files, restart = HubFiles(hub_place(state, layout)), layout.hub_config / "restart"
    files.ask_restart()
    first = restart.stat().st_ino
    with restart.open("rb"):  # or its number might be given again
        files.remove()
        assert restart.stat().st_ino != first
