"""wg-appliance node renumber: devices go along when subnet, key or interface of an exit that does not run change."""

from __future__ import annotations

import asyncio
import sqlite3
from contextlib import closing
from typing import TYPE_CHECKING, Any

import pytest

from appliance.config.load import read_settings
from appliance.domain.errors import ConfigError
from appliance.network.wireguard import keys
from appliance.sessions import identity, renumbering
from appliance.store.database import Store
from appliance.store.queries import devices as rows
from tests.support.cli.command_line import NOW
from tests.support.cli.on_terminal import on_terminal

if TYPE_CHECKING:
    import aiosqlite

    from tests.support.cli.command_line import CommandLine

NODE = 'public_ip = "192.0.2.1"\n[tiers.free]\nmax_devices = 0\n[wireguard]\n'
BEFORE = 'subnet = "10.101.0.0/28"\n'


@pytest.fixture
def wga(wga: CommandLine) -> CommandLine:
    """An exit that has run, and has three devices; alice/phone is at .2, the others behind it."""
    with wga.config.open("a", encoding="utf-8") as config:
        config.write(NODE + BEFORE)
    for name in ("alice/phone", "alice/laptop", "bob/my phone"):
        wga.do("device", "add", name)
    starts(wga)
    return wga


def becomes(wga: CommandLine, wireguard: str) -> None:
    """The section of the configuration is another one."""
    text = wga.config.read_text(encoding="utf-8").partition("[wireguard]\n")
    wga.config.write_text(text[0] + text[1] + wireguard, encoding="utf-8")


def starts(wga: CommandLine) -> None:
    """What the server does first with its store. Raises ConfigError as it does."""

    async def adopt() -> None:
        store = await Store.open(wga.state.store)
        try:
            settings = read_settings(wga.config, {})
            await identity.adopt(store, settings, keys.public_key(wga.state.read_key()), NOW.wall_ms)
        finally:
            await store.close()

    asyncio.run(adopt())


def stored(wga: CommandLine) -> list[Any]:
    tables = ("devices", "node", "sessions")
    with closing(sqlite3.connect(wga.state.store)) as db:
        return [db.execute(f"SELECT * FROM {table}").fetchall() for table in tables]  # noqa: S608 (ours)


def refused(wga: CommandLine) -> str:
    before = stored(wga)
    done = wga("node", "renumber", "--yes")
    assert (done.status, done.out, stored(wga)) == (1, "", before)
    (line,) = done.err.splitlines()
    return line.removeprefix("wg-appliance: error: ")


@pytest.mark.parametrize(
    ("wireguard", "outdated", "address", "address6"),
    [
        ('subnet = "10.9.0.0/24"\n', ["address"], "10.9.0.2", "fd65:7869:7400::2"),
        ('subnet = "10.101.0.0/16"\n', [], "10.101.0.2", "fd65:7869:7400::2"),
        (BEFORE + 'subnet6 = "fd00:1::/112"\n', ["address6"], "10.101.0.2", "fd00:1::2"),
        ('subnet = "10.9.0.0/24"\nsubnet6 = ""\n', ["address", "address6"], "10.9.0.2", None),
        (BEFORE + 'interface = "wga7"\n', [], "10.101.0.2", "fd65:7869:7400::2"),
        (
            BEFORE + 'interface = "wga7"\nendpoint = "vpn.example"\n',
            ["endpoint"],
            "10.101.0.2",
            "fd65:7869:7400::2",
        ),
    ],
)
def test_what_of_the_files_is_no_longer_so(
    wga: CommandLine, wireguard: str, outdated: list[str], address: str, address6: str | None
) -> None:
    """The server refuses to start and names the command; after it the server starts, and the list is of those files."""
    becomes(wga, wireguard)
    with pytest.raises(ConfigError, match=r"while there are 3 devices; .*: wg-appliance node renumber$"):
        starts(wga)
    listed = wga.json("node", "renumber", "--yes")["devices"]
    starts(wga)
    assert [each["outdated"] for each in listed] == 3 * [outdated] if outdated else listed == []
    phone = wga.json("device", "show", "alice/phone")
    assert (phone["address"], phone["address6"]) == (address, address6)
    if listed:
        last = listed[-1]
        assert (last["name"], last["address"], last["address6"]) == ("phone", address, address6)
        assert (last["address_before"], last["address6_before"]) == ("10.101.0.2", "fd65:7869:7400::2")


def test_another_key(wga: CommandLine) -> None:
    """All files name it; the new one of `device rotate` has it, and the address of now."""
    becomes(wga, 'subnet = "10.9.0.0/28"\n')
    wga.state.key.write_text(keys.encode(keys.generate_private_key()), encoding="ascii")
    assert "was changed since the server started" in wga("device", "rotate", "alice/phone").err
    done = wga.do("node", "renumber", "--yes")
    headings, first, *_ = done.out.splitlines()
    assert headings.split() == ["DEVICE", "WAS", "NOW", "CHANGED"]
    assert first.split("  ") == [
        *("bob/my phone", "10.101.0.4, fd65:7869:7400::4", "10.9.0.4, fd65:7869:7400::4"),
        "IPv4 address, the exit's key",
    ]
    assert "3 files are good no more; make each anew, as by: wg-appliance device rotate 'bob/my phone'\n" in done.err
    starts(wga)
    made = wga.do("device", "rotate", "bob/my phone").out
    assert "\nAddress = 10.9.0.4/32, fd65:7869:7400::4/128\n" in made
    assert f"\nPublicKey = {keys.encode(keys.public_key(wga.state.read_key()))}\n" in made


def test_files_are_outdated_until_they_are_made_anew(wga: CommandLine) -> None:
    """Each renumbering adds to what is told of a file, also one that moves the address back; a new file has it all."""
    becomes(wga, 'subnet = "10.9.0.0/28"\n')
    wga.do("node", "renumber", "--yes")
    starts(wga)
    listed = wga.do("device", "list")
    assert listed.out.count("  idle, outdated  ") == 3
    assert listed.err == (
        "outdated: the file has an old address or server key, and does not work, or not in IPv6; make another: "
        "wg-appliance device rotate ACCOUNT/NAME\n"
    )
    wga.do("device", "rotate", "alice/laptop")
    assert wga.json("device", "show", "alice/laptop")["stale"] is None
    becomes(wga, BEFORE + 'subnet6 = "fd00:1::/112"\nendpoint = "vpn.example"\n')
    wga.state.key.write_text(keys.encode(keys.generate_private_key()), encoding="ascii")
    outdated = ["address", "address6", "server_key", "endpoint"]
    assert [each["outdated"] for each in wga.json("node", "renumber", "--yes")["devices"]] == 3 * [outdated]
    becomes(wga, BEFORE + 'subnet6 = "fd00:1::/112"\ninterface = "wga7"\n')
    assert "3 files are good no more" in wga.do("node", "renumber", "--yes").err
    starts(wga)
    assert [each["stale"] for each in wga.json("device", "list")["devices"]] == 3 * [outdated[:3]]
    assert "  no longer so in its file: IPv4 address, IPv6 address, the exit's key; it does not work: " in (
        wga.do("device", "show", "alice/phone").out
    )
    wga.do("device", "rotate", "alice/phone")
    phone, laptop, _ = (wga.json("device", "show", name) for name in ("alice/phone", "alice/laptop", "bob/my phone"))
    assert (phone["stale"], laptop["stale"]) == (None, outdated[:3])


def test_only_ipv6_is_outdated(wga: CommandLine) -> None:
    """The file works in IPv4: so it is told, also where nothing is known of the endpoint."""
    becomes(wga, BEFORE + 'subnet6 = "fd00:1::/112"\n')
    wga.do("node", "renumber", "--yes")
    text = wga.config.read_text(encoding="utf-8")
    wga.config.write_text(text.replace('public_ip = "192.0.2.1"\n', ""), encoding="utf-8")
    shown = wga.do("device", "show", "bob/my phone").out
    assert "  no longer so in its file: IPv6 address; IPv6 does not work: wg-appliance device rotate 'bob/" in shown


def test_a_smaller_subnet(wga: CommandLine) -> None:
    """Who is beyond it gets a free place, the others stay; where there is none for each, nothing is changed."""
    wga.do("device", "remove", "alice/phone")
    becomes(wga, 'subnet = "10.101.0.0/30"\n')
    assert refused(wga) == (
        "wireguard.subnet 10.101.0.0/30 has room for 1, and there are 2 devices: take a larger one, or remove some: "
        "wg-appliance device list"
    )
    wga.do("device", "remove", "alice/laptop")
    (listed,) = wga.json("node", "renumber", "--yes")["devices"]
    assert (listed["address_before"], listed["address"]) == ("10.101.0.4", "10.101.0.2")
    assert listed["outdated"] == ["address", "address6"]


def test_places() -> None:
    """Its own for each that has one in the subnet, and for no two the same."""
    subnet = read_settings(None, {"WG_APPLIANCE_WIREGUARD_SUBNET": "10.0.0.0/29"}).wireguard.subnet
    assert renumbering.offsets([9, 2, 7, 4, 6], subnet) == [3, 2, 5, 4, 6]


def test_ipv6_that_is_new(wga: CommandLine) -> None:
    """A device has it with the exit, and its file stays good without."""
    for name in ("alice/phone", "alice/laptop", "bob/my phone"):
        wga.do("device", "remove", name, "--yes")
    becomes(wga, 'subnet6 = ""\n' + BEFORE)
    starts(wga)
    wga.do("device", "add", "alice/tablet")
    becomes(wga, BEFORE)
    done = wga.do("node", "renumber", "--yes")
    assert done.out == ""
    assert "1 device taken along" in done.err
    assert "their files stay good" in done.err
    assert wga.json("device", "show", "alice/tablet")["address6"] == "fd65:7869:7400::2"


def test_sessions_that_are_unfinished(wga: CommandLine) -> None:
    """Live ones are named; what a closing one of a device has used is the device's, and its peer is known by its
    counters still."""
    session_id = wga.open_session("alice", 2)

    async def of_device(db: aiosqlite.Connection) -> None:
        await db.execute("UPDATE sessions SET device_id = (SELECT id FROM devices WHERE name = 'phone')")
        await db.execute("UPDATE devices SET public_key = (SELECT public_key FROM sessions) WHERE name = 'phone'")
        await db.execute("UPDATE peers SET bytes_in = 5, ifindex = 7, rx_bytes = 5, tx_bytes = 0")
        await db.execute("UPDATE peers SET handshake_seen_ns = 9")

    wga.write(of_device)
    becomes(wga, 'subnet = "10.9.0.0/28"\n')
    assert refused(wga).endswith(f"live ({session_id}); set it back, or end them first: wg-appliance node drain --now")
    wga.do("node", "drain", "--now")
    assert "the exit is drained" in wga.do("node", "renumber", "--yes").err
    starts(wga)
    assert wga.json("session", "show", session_id)["state"] == "terminated"
    assert wga.json("device", "show", "alice/phone")["bytes_in"] == 5

    async def known(db: aiosqlite.Connection) -> None:
        phone = (await rows.newest(db, None, 0))[-1]
        assert phone.baseline is not None
        assert (phone.baseline.ifindex, phone.baseline.rx_bytes, phone.handshake_seen_ns) == (7, 5, 9)

    wga.write(known)


def test_nothing_to_do(wga: CommandLine) -> None:
    """It is said, and is no failure; so is a change that concerns no device."""
    assert wga.do("node", "renumber").err.startswith("nothing to do: interface, subnets and server key are what they")
    for name in ("alice/phone", "alice/laptop", "bob/my phone"):
        wga.do("device", "remove", name)
    becomes(wga, 'subnet = "10.9.0.0/28"\n')
    assert wga.do("node", "renumber").err.startswith("nothing to do: there are no devices; the server takes ")
    assert wga.json("node", "renumber") == {"devices": []}
    starts(wga)


@pytest.mark.parametrize(
    "wireguard", ['subnet = "10.9.0.0/24"\n', BEFORE + 'subnet6 = ""\n', BEFORE + 'subnet6 = "fd00:1::/112"\n']
)
def test_addresses_are_those_that_are_served(wga: CommandLine, wireguard: str) -> None:
    """Another subnet that is configured is not in force before devices are renumbered: their files have the old one."""
    shown, listed = wga.json("device", "show", "alice/phone"), wga.json("device", "list")
    assert (shown["address"], shown["address6"]) == ("10.101.0.2", "fd65:7869:7400::2")
    becomes(wga, wireguard)
    assert (wga.json("device", "show", "alice/phone"), wga.json("device", "list")) == (shown, listed)
    assert "  10.101.0.2  " in wga.do("device", "list").out


def test_while_the_server_runs(wga: CommandLine) -> None:
    """One line, and nothing is changed."""
    becomes(wga, 'subnet = "10.9.0.0/28"\n')
    with wga.state.serving():
        assert refused(wga).endswith("stop it first: systemctl stop wg-appliance")


def test_a_command_that_is_cut_off(wga: CommandLine, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is changed before all is."""
    becomes(wga, 'subnet = "10.9.0.0/28"\n')
    before = stored(wga)

    async def cut_off(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(identity, "put", cut_off)
    assert wga("node", "renumber", "--yes").status == 1
    assert stored(wga) == before


def test_a_device_from_before_the_first_start(wga: CommandLine) -> None:
    """Its file says what the exit is: a change before the first start is one too."""

    async def unserved(db: aiosqlite.Connection) -> None:
        await db.execute("UPDATE node SET interface = NULL, subnet = NULL, subnet6 = NULL, public_key = NULL")

    wga.write(unserved)
    wga.do("device", "add", "alice/tablet")
    becomes(wga, 'subnet = "10.9.0.0/28"\n')
    with pytest.raises(ConfigError, match="while there are 4 devices"):
        starts(wga)


def test_on_a_terminal(wga: CommandLine) -> None:
    """What is to change, and how many files it costs, is asked first."""
    becomes(wga, 'subnet = "10.9.0.0/28"\n')
    shown = on_terminal(wga, "node", "renumber", said="n", columns=200)
    assert (
        "wireguard.subnet (was 10.101.0.0/28, now 10.9.0.0/28): take 3 devices along? "
        "Their files will be good no more. [y/N]"
    ) in shown
    assert wga.json("device", "show", "alice/phone")["endpoint"] == "192.0.2.1:51820"
    with pytest.raises(ConfigError):
        starts(wga)
