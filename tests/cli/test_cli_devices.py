"""wg-appliance device: what it prints, stores and refuses, without a server."""

from __future__ import annotations

import re
import sqlite3
import stat
import threading
from contextlib import closing
from typing import TYPE_CHECKING, Any

import pytest

from appliance.domain.clock import HostClock
from appliance.domain.device import Device
from appliance.domain.entities import Reason
from appliance.network.wireguard import keys
from appliance.store.queries import devices as rows
from appliance.store.queries import sessions as session_rows
from tests.support.cli.on_terminal import on_terminal

if TYPE_CHECKING:
    from pathlib import Path

    import aiosqlite

    from tests.support.cli.command_line import CommandLine, Done

KEY = keys.encode(bytes([9]) * 32)
IN_USE = "key in use: a device or live session of the account has it; give another --public-key"
COMPOSED, DECOMPOSED = "Zo\u00eb", "Zoe\u0308"


@pytest.fixture
def wga(wga: CommandLine) -> CommandLine:
    """An exit whose address is configured."""
    with wga.config.open("a", encoding="utf-8") as config:
        config.write('public_ip = "192.0.2.1"\n')
    return wga


def add(wga: CommandLine, name: str, *more: str) -> Done:
    return wga.do("device", "add", name, *more)


def refused(wga: CommandLine, *arguments: str, status: int = 1) -> str:
    """What the last line says; nothing is on stdout, and no device has come or changed."""
    before = stored(wga)
    done = wga("device", *arguments)
    assert (done.status, done.out) == (status, ""), done
    assert stored(wga) == before
    return done.err.splitlines()[-1].partition("rror: ")[2]


def stored(wga: CommandLine) -> list[Any]:
    with closing(sqlite3.connect(wga.state.store)) as db:
        return [db.execute(f"SELECT * FROM {table}").fetchall() for table in ("devices", "accounts")]  # noqa: S608


def with_session(wga: CommandLine, name: str, moved: tuple[int, int] = (0, 0)) -> str:
    """A session of alice's device, as a handshake opens it; its id."""
    wga.open_session("alice", 9)
    session_id = f"ses_{9:024x}"

    async def of_device(db: aiosqlite.Connection) -> None:
        await db.execute("UPDATE sessions SET device_id = (SELECT id FROM devices WHERE name = ?)", (name,))
        await db.execute("UPDATE peers SET bytes_in = ?, bytes_out = ?", moved)

    wga.write(of_device)
    return session_id


def test_the_file_stands_alone_on_stdout(wga: CommandLine) -> None:
    """It is a wg-quick file of this exit; what was made is on stderr, with its limits; the key is stored nowhere."""
    done = wga.process("device", "add", "alice/phone")
    assert done.status == 0
    interface = (
        r"\[Interface\]\nPrivateKey = (\S{44})\n# PublicKey = (\S{44})\nAddress = 10.101.0.2/32, fd65:7869:7400::2/128"
    )
    server = keys.encode(keys.public_key(wga.state.read_key()))
    peer = rf"\[Peer\]\nPublicKey = {re.escape(server)}\nEndpoint = 192\.0\.2\.1:51820\nAllowedIPs = 0\.0\.0\.0/0, ::/0"
    whole = re.fullmatch(rf"{interface}\n\n{peer}\nPersistentKeepalive = 25\n", done.out)
    assert whole is not None, done.out
    late, account, made = done.err.splitlines()
    assert late.startswith("the server is not running")
    assert account == "account alice created, tier free"
    assert made.startswith(
        "device alice/phone added: 10.101.0.2, fd65:7869:7400::2, dials 192.0.2.1:51820, tier free (5"
    )
    assert made.endswith(", device 1 of 3")
    private, public = whole.groups()
    assert wga.json("device", "show", "alice/phone")["public_key"] == public
    assert private not in done.err
    assert all(private.encode() not in file.read_bytes() for file in wga.state.path.iterdir())


def test_a_file_of_the_callers(wga: CommandLine, tmp_path: Path) -> None:
    """--file: for its owner's eyes alone; one that is there stays as it is, and no device is made."""
    path = tmp_path / "phone.conf"
    done = add(wga, "alice/phone", "--file", str(path))
    assert done.out == ""
    assert done.err.endswith(f"written: {path}\n")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert path.read_text(encoding="utf-8").startswith("[Interface]\nPrivateKey = ")
    before = path.read_bytes()
    assert refused(wga, "add", "alice/laptop", "--file", str(path)).endswith(
        "is there already; name another, or remove it"
    )
    assert path.read_bytes() == before
    assert refused(wga, "add", "alice/laptop", "--file", str(tmp_path / "no" / "where")).endswith(
        "No such file or directory"
    )


def test_a_refused_device_leaves_no_file(wga: CommandLine, tmp_path: Path) -> None:
    """The place that was taken for the file is given back."""
    add(wga, "alice/phone")
    refused(wga, "add", "alice/phone", "--file", str(tmp_path / "phone.conf"))
    assert not (tmp_path / "phone.conf").exists()


def test_a_code_for_an_app_has_a_dns_line(wga: CommandLine, monkeypatch: pytest.MonkeyPatch) -> None:
    """--qr draws the file, which then has the operator's resolvers, or those for apps; --dns outweighs both.

    Resolvers that are given twice are there once, and none for `none`.
    """
    drawn: list[str] = []
    monkeypatch.setattr("appliance.client.ui.qr.draw", lambda text, **_: drawn.append(text) or "code")
    assert add(wga, "alice/phone", "--qr").out == "code\n"
    ours, theirs = ("--dns", "1.1.1.1"), ("--dns", "2606:4700:4700::1111")
    add(wga, "alice/tablet", "--qr", *ours, *theirs, *ours)
    plain = add(wga, "alice/laptop").out
    with wga.config.open("a", encoding="utf-8") as config:
        config.write('[wireguard]\ndns = ["8.8.8.8"]\n')
    wga.do("device", "rotate", "alice/phone", "--qr")
    wga.do("device", "rotate", "alice/phone", "--qr", "--dns", "none")
    lines = [re.findall(r"^DNS = (.*)$", text, re.MULTILINE) for text in (*filter(None, drawn), plain)]
    assert lines == [["9.9.9.9, 2620:fe::fe"], ["1.1.1.1, 2606:4700:4700::1111"], ["8.8.8.8"], [], []]


def test_a_code_that_is_larger_than_the_terminal(wga: CommandLine) -> None:
    """How much it takes is said below it, where it is seen: the code cannot be drawn again without another key."""
    shown = on_terminal(wga, "device", "add", "alice/phone", "--qr", columns=80)
    assert re.search(
        r"the code takes \d\d columns and \d\d lines, this terminal has 80 and 24: enlarge the window", shown
    )


def test_an_exit_without_ipv6(wga: CommandLine) -> None:
    """Its clients have no IPv6 address."""
    with wga.config.open("a", encoding="utf-8") as config:
        config.write('[wireguard]\nsubnet6 = ""\nendpoint = "vpn.example.org"\nendpoint_port = 443\n')
    made = wga.json("device", "add", "alice/phone")
    assert (made["address"], made["address6"], made["endpoint"]) == ("10.101.0.2", None, "vpn.example.org:443")
    assert "\nAddress = 10.101.0.2/32\n" in made["wg_config"]
    assert "\nEndpoint = vpn.example.org:443\n" in made["wg_config"]


def test_a_key_of_the_clients(wga: CommandLine) -> None:
    """No private key is in the file, and none is made."""
    assert "PrivateKey" not in add(wga, "alice/phone", "--public-key", KEY).out
    assert wga.json("device", "show", "alice/phone")["public_key"] == KEY


def test_a_key_that_cannot_be(wga: CommandLine) -> None:
    """Another account's, one's own already, a live session's, the exit's, a weak one, none at all: a line each."""
    add(wga, "alice/phone", "--public-key", KEY)
    wga.open_session("alice", 5)
    own = keys.encode(keys.public_key(wga.state.read_key()))
    for account, key, words in (
        ("bob", KEY, "client_public_key is in use by another account"),
        ("alice", KEY, IN_USE),
        ("alice", keys.encode(bytes([5]) * 32), IN_USE),
        ("bob", keys.encode(bytes([5]) * 32), "client_public_key is in use by another account"),
        ("alice", own, "--public-key is the server's own key"),
        ("alice", keys.encode(bytes(32)), "--public-key is all zero"),
        ("alice", keys.encode(b"\1" + bytes(31)), "--public-key is a low-order point"),
        ("alice", "key", "--public-key must be a WireGuard public key: base64 of 32 bytes, 44 characters"),
    ):
        assert refused(wga, "add", f"{account}/laptop", "--public-key", key) == words


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("alice/", "name must be 1 to 64 characters, not 0"),
        ("alice/" + 65 * "x", "name must be 1 to 64 characters, not 65"),
        ("alice/a\u200bb", "name must be printable: it contains U+200B ZERO WIDTH SPACE"),
        ("alice/a\x1bb", "name must be printable: it contains U+001B"),
    ],
)
def test_a_name_that_cannot_be(wga: CommandLine, name: str, words: str) -> None:
    """Empty, too long, invisible, a control character: one line, and no account made."""
    assert refused(wga, "add", name) == words


@pytest.mark.parametrize("name", ["phone", "/phone", "", "a\x1bb/phone"])
def test_what_names_no_account(wga: CommandLine, name: str) -> None:
    """A usage error."""
    assert "ACCOUNT/NAME" in refused(wga, "add", name, status=2)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--qr", "--file", "x"), "--qr does not go with --file"),
        (("--qr", "--public-key", KEY), "--qr does not go with --public-key"),
        (("--qr", "--json"), "--qr does not go with --json"),
        (
            ("--dns", "127.0.0.1"),
            '--dns "127.0.0.1": must be a list of at most 8 IP addresses that mean the same to each client',
        ),
        (9 * ("--dns", "9.9.9.9"), '--dns "9.9.9.9" "9.9.9.9" "9'),
        (("--dns", "9.9.9.9", "--dns", "none"), "--dns none goes with no other --dns"),
    ],
)
def test_options_that_cannot_be(wga: CommandLine, options: tuple[str, ...], words: str) -> None:
    """A usage error that names them."""
    assert refused(wga, "add", "alice/phone", *options, status=2).startswith(words)


def test_split_at_the_last_slash(wga: CommandLine) -> None:
    """An account may have slashes in its name."""
    add(wga, "acme/alice/phone")
    assert wga.json("device", "show", "acme/alice/phone")["account"] == "acme/alice"


def test_a_name_is_taken_however_its_accents_are_written(wga: CommandLine) -> None:
    """NFC and NFD are one name, to add, to find and to rename; another account may have it too."""
    add(wga, f"alice/{COMPOSED}")
    assert refused(wga, "add", f"alice/{DECOMPOSED}") == f"device name taken: alice has a device {DECOMPOSED}"
    assert wga.json("device", "show", f"alice/{DECOMPOSED}")["name"] == COMPOSED
    add(wga, f"bob/{COMPOSED}")
    add(wga, "alice/phone")
    assert refused(wga, "rename", "alice/phone", DECOMPOSED).startswith("device name taken")
    assert "give the name alone, without /" in wga("device", "rename", "alice/phone", "bob/phone").err
    wga.do("device", "rename", f"alice/{COMPOSED}", DECOMPOSED)
    assert wga.json("device", "show", f"alice/{COMPOSED}")["name"] == DECOMPOSED


def test_of_two_that_are_added_at_once_one_is(wga: CommandLine) -> None:
    """The other is told that the name is taken; there is one device."""
    done: list[Done] = []
    racing = [threading.Thread(target=lambda: done.append(wga.process("device", "add", "alice/phone"))) for _ in "ab"]
    for each in racing:
        each.start()
    for each in racing:
        each.join()
    won, lost = sorted(done, key=lambda each: each.status)
    assert (won.status, lost.status, lost.out) == (0, 1, "")
    assert lost.err == "wg-appliance: error: device name taken: alice has a device phone\n"
    assert len(wga.json("device", "list")["devices"]) == 1


def test_a_limit_of_devices(wga: CommandLine) -> None:
    """Three of tier free, none of tier anonymous, any number of tier paid; a removed one does not count."""
    for name in "abc":
        add(wga, f"alice/{name}")
    full = refused(wga, "add", "alice/d")
    assert full.startswith("device limit reached: account alice is of tier free, it has 3, and may have no more; ")
    assert full.endswith("remove one (wg-appliance device remove), or raise max_devices of [tiers.free]")
    wga.do("device", "remove", "alice/a")
    assert add(wga, "alice/d").err.endswith("device 3 of 3\n")
    wga.do("account", "create", "guest", "--tier", "anonymous")
    assert (
        refused(wga, "add", "guest/d") == "device limit reached: account guest is of tier anonymous, it may have none"
    )
    wga.do("account", "create", "payer", "--tier", "paid")
    assert add(wga, "payer/d").err.endswith("device 1 of any number\n")


def test_addresses_are_those_that_nobody_has(wga: CommandLine) -> None:
    """The lowest that no session and no device has; full, it is said; a removed one's is free again."""
    with wga.config.open("a", encoding="utf-8") as config:
        config.write('[wireguard]\nsubnet = "10.101.0.0/29"\n[tiers.free]\nmax_devices = 0\n')
    wga.do("account", "create", "alice")
    wga.open_session("alice", 3)
    made = [wga.json("device", "add", f"alice/{name}")["address"] for name in "abcd"]
    assert made == [f"10.101.0.{n}" for n in (2, 4, 5, 6)]
    assert refused(wga, "add", "alice/e") == "subnet exhausted"
    wga.do("device", "remove", "alice/b")
    assert wga.json("device", "add", "alice/e")["address"] == "10.101.0.4"


def test_an_address_that_is_not_known(bare: CommandLine) -> None:
    """Nothing says where clients dial, until the server has noted it."""
    bare.do("init")
    done = bare("device", "add", "alice/phone")
    assert done.err == (
        "wg-appliance: error: the address that clients dial is not known yet: start the server, or set "
        "wireguard.endpoint or node.public_ip\n"
    )
    noted = '{"public_ip": "198.51.100.7", "owned": true, "translation": [], "ways": {}}'
    bare.state.addresses.write_text(noted, encoding="utf-8")
    assert bare.json("device", "add", "alice/phone")["endpoint"] == "198.51.100.7:51820"


def test_a_disabled_account_gets_no_device(wga: CommandLine) -> None:
    """It is said how to enable it; those that it has are held."""
    add(wga, "alice/phone")
    assert wga.do("account", "set", "alice", "--disabled").err.endswith("; devices held: 1\n")
    assert "is disabled, its devices may not connect" in refused(wga, "add", "alice/laptop")
    shown = wga.json("device", "show", "alice/phone")
    assert (shown["state"], shown["held_reason"]) == ("held", "account_disabled")


def test_a_subnet_that_the_server_has_not_taken_over(wga: CommandLine) -> None:
    """A device of it would keep the server from starting."""

    async def served(db: aiosqlite.Connection) -> None:
        await db.execute("UPDATE node SET interface = 'wga0', subnet = '10.9.0.0/24', subnet6 = ''")

    wga.write(served)
    assert refused(wga, "add", "alice/phone").endswith("was changed since the server started: start it with that first")


def test_states_and_totals(wga: CommandLine) -> None:
    """Idle, connected, paused, held: as the store tells; what the session uses is in the totals."""
    add(wga, "alice/phone")
    assert wga.json("device", "show", "alice/phone")["state"] == "idle"

    async def used(db: aiosqlite.Connection) -> None:
        await db.execute(
            "UPDATE devices SET bytes_in = 100, bytes_out = 200, counted_ms = 61000, last_handshake_at = 5000"
        )

    wga.write(used)
    session_id = with_session(wga, "phone", (1, 2))
    shown = wga.json("device", "show", "alice/phone")
    assert shown["session_id"] == session_id
    of_session = wga.json("session", "show", session_id)
    assert (of_session["device_id"], of_session["device_name"]) == (shown["id"], "phone")
    assert (shown["state"], shown["bytes_in"], shown["bytes_out"], shown["seconds"]) == ("connected", 101, 202, 61)
    assert shown["last_handshake_at"] == "1970-01-01T00:00:05Z"
    wga.do("node", "drain")
    assert wga.json("device", "show", "alice/phone")["state"] == "connected"
    add(wga, "alice/laptop")
    assert "held (drained)" in wga.do("device", "list").out
    wga.do("node", "resume")
    assert wga.do("device", "pause", "alice/phone").err.endswith("until device resume; its session has ended\n")
    assert wga.json("session", "show", session_id)["terminated_reason"] == "paused"
    assert wga.json("device", "show", "alice/phone")["state"] == "paused"
    assert wga.do("device", "pause", "alice/phone").err.endswith("was paused already\n")
    assert wga.do("device", "resume", "alice/phone").err.endswith("alice/phone resumed\n")
    assert wga.do("device", "resume", "alice/phone").err.endswith("alice/phone was not paused\n")


def test_held_by_its_accounts_quota_and_by_its_sessions(wga: CommandLine) -> None:
    """held_until is there where it is known."""
    with wga.config.open("a", encoding="utf-8") as config:
        config.write("[tiers.free]\nbytes_limit = 10\nmax_live_sessions = 1\n")
    add(wga, "alice/phone")
    wga.open_session("alice", 5)
    shown = wga.json("device", "show", "alice/phone")
    assert (shown["held_reason"], shown["held_until"]) == ("live_session_limit", None)

    async def used(db: aiosqlite.Connection) -> None:
        await db.execute("UPDATE accounts SET bytes_opened_at = ?, bytes_used = 10", (HostClock().now().wall_ms,))

    wga.write(used)
    shown = wga.json("device", "show", "alice/phone")
    assert shown["held_reason"] == "quota_exceeded"
    assert shown["held_until"]


def test_another_key(wga: CommandLine) -> None:
    """rotate: the address stays, the session ends (rotated), the file has the new key; the old one is free with it."""
    first = wga.json("device", "add", "alice/phone", "--public-key", KEY)
    session_id = with_session(wga, "phone")
    assert refused(wga, "rotate", "alice/phone", "--public-key", KEY) == IN_USE
    done = wga.do("device", "rotate", "alice/phone")
    assert done.out.startswith("[Interface]\nPrivateKey = ")
    assert done.err.endswith("device alice/phone has another key: its old file is good no more\n")
    assert wga.json("session", "show", session_id)["terminated_reason"] == "rotated"
    now = wga.json("device", "show", "alice/phone")
    assert now["address"] == first["address"]
    assert f"# PublicKey = {now['public_key']}\n" in done.out
    assert refused(wga, "add", "bob/phone", "--public-key", KEY).endswith("in use by another account")

    async def ends(db: aiosqlite.Connection) -> None:
        await session_rows.mark_terminated(db, [(session_id, Reason.ROTATED, 1)])

    wga.write(ends)
    add(wga, "bob/phone", "--public-key", KEY)


def test_a_session_that_an_admin_ends(wga: CommandLine) -> None:
    """It is said how to keep its device out: the next handshake begins another session."""
    add(wga, "alice/my phone")
    session_id = with_session(wga, "my phone")
    said = "its device may connect again; to keep it out: wg-appliance device pause 'alice/my phone'\n"
    assert wga.do("session", "terminate", session_id).err.endswith(said)
    wga.do("device", "remove", "alice/my phone")
    assert "device" not in wga.do("session", "terminate", session_id).err


def test_a_file_that_names_another_endpoint(wga: CommandLine) -> None:
    """`stale` says so, and what to do; after that it is gone. Where nothing is known of it nothing is said."""
    add(wga, "alice/phone")
    assert wga.json("device", "show", "alice/phone")["stale"] is None
    text = wga.config.read_text(encoding="utf-8")
    wga.config.write_text(text.replace("192.0.2.1", "198.51.100.7"), encoding="utf-8")
    assert wga.json("device", "show", "alice/phone")["stale"] == ["endpoint"]
    shown = wga.do("device", "show", "alice/phone").out
    assert "  its file dials 192.0.2.1:51820, a new one 198.51.100.7:51820; if the old does not lead here: " in shown
    assert ": wg-appliance device rotate alice/phone\n" in shown
    listed = wga.do("device", "list")
    assert "  idle, stale  " in listed.out
    assert listed.err.startswith(
        "stale: a new file dials 198.51.100.7:51820; where the old endpoint does not lead here, "
    )
    wga.do("device", "rotate", "alice/phone")
    assert "stale" not in wga.do("device", "list").out
    wga.config.write_text(text.replace('public_ip = "192.0.2.1"\n', ""), encoding="utf-8")
    assert wga.json("device", "show", "alice/phone")["stale"] is None


def test_a_removed_device(wga: CommandLine) -> None:
    """Its session ends (closed), it is found no more, and its name is free."""
    add(wga, "alice/phone")
    session_id = with_session(wga, "phone")
    assert wga.do("device", "remove", "alice/phone").err.endswith("alice/phone removed; its session has ended\n")
    assert wga.json("session", "show", session_id)["terminated_reason"] == "closed"
    for command in ("show", "pause", "resume", "rotate", "remove"):
        assert refused(wga, command, "alice/phone") == "no device alice/phone; wg-appliance device list shows them"
    assert refused(wga, "rename", "bob/phone", "x") == "no device bob/phone; wg-appliance device list shows them"
    add(wga, "alice/phone")


def test_an_account_goes_with_its_devices(wga: CommandLine) -> None:
    """How many were removed is said."""
    add(wga, "alice/phone")
    add(wga, "alice/laptop")
    add(wga, "bob/phone")
    assert wga.do("node", "status").out.count("addresses of devices  3") == 1
    assert wga.do("account", "delete", "alice").err.endswith("account alice deleted; devices removed: 2\n")
    assert [each["account"] for each in wga.json("device", "list")["devices"]] == ["bob"]


def test_the_list(wga: CommandLine) -> None:
    """Newest first; of one account, or the newest only; without devices, how to make one."""
    assert wga.do("device", "list").err == "no devices; wg-appliance device add ACCOUNT/NAME makes one\n"
    assert wga.json("device", "list") == {"devices": []}
    for name in ("alice/phone", "bob/phone", "alice/laptop"):
        add(wga, name)
    listed = wga.json("device", "list")["devices"]
    assert [f"{each['account']}/{each['name']}" for each in listed] == ["alice/laptop", "bob/phone", "alice/phone"]
    assert listed[0] == wga.json("device", "show", "alice/laptop")
    of_alice = wga.json("device", "list", "--account", "alice")["devices"]
    assert [each["name"] for each in of_alice] == ["laptop", "phone"]
    cut = wga.do("device", "list", "--limit", "2")
    assert cut.err == "the newest 2 devices; --limit 0 lists all\n"
    assert cut.out.count("\n") == 3
    assert refused(wga, "list", "--account", "eve").startswith("no account eve")


def test_a_narrow_terminal(wga: CommandLine, monkeypatch: pytest.MonkeyPatch) -> None:
    """No line is wider, whatever a device is called."""
    add(wga, "alice/" + 60 * "x")
    add(wga, "alice/\u6771\u4eac")
    monkeypatch.setattr("appliance.cli.output._width", lambda: 60)
    assert all(len(line) <= 60 for line in wga.do("device", "list").out.splitlines())


def test_a_device_of_a_session_that_is_unfinished_keeps_its_row(wga: CommandLine) -> None:
    """What the session still uses has a device to be added to."""
    add(wga, "alice/phone")
    with_session(wga, "phone")
    wga.do("device", "remove", "alice/phone")

    async def ends(db: aiosqlite.Connection) -> None:
        (session,) = await session_rows.unfinished(db)
        assert session.device_id
        assert await rows.by_id(db, session.account_id, session.device_id) is None

    wga.write(ends)


def test_fields(wga: CommandLine) -> None:
    """The JSON of `add` names what stays, that of `show` what changes too, in the words of the API."""
    made, shown = wga.json("device", "add", "alice/phone"), wga.json("device", "show", "alice/phone")
    same = ("id", "name", "account", "tier", "region", "endpoint", "public_key", "address", "address6", "created_at")
    assert set(made) == {*same, "wg_config"}
    use = ("state", "held_reason", "held_until", "stale", "session_id", "last_handshake_at")
    use += ("bytes_in", "bytes_out", "seconds")
    assert set(shown) == {*same, *use}
    assert {name: made[name] for name in same} == {name: shown[name] for name in same}
    assert set(shown) - {"account", "tier", "endpoint", "address", "address6"} <= set(Device.__struct_fields__) | set(
        use
    )
