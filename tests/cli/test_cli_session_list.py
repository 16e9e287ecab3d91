"""wg-appliance session list, of more sessions than are read at once: what is printed, and what that takes."""

from __future__ import annotations

import base64
import fcntl
import json
import os
import resource
import signal
import sqlite3
import struct
import subprocess
import sys
import termios
import time
from contextlib import closing
from datetime import UTC, datetime
from ipaddress import ip_network
from random import Random
from typing import IO, TYPE_CHECKING, Any

import pytest

from appliance.cli import output
from appliance.cli.session_pages import PAGE
from tests.support.cli.command_line import PROJECT, CommandLine
from tests.support.tunnel.waiting import until

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

MANY = 2 * PAGE + 345
DAY_MS = 86_400_000
SUBNET, SUBNET6 = ip_network("10.101.0.0/21"), ip_network("fd65:7869:7400::/112")
NOTES = ("", "", "paid late", "\u6771\u4eac", "a % of b", 'a "quoted" \\ one', "},\n\x7f\0%s", "e\u0301", "\U0001f600")
REASONS = (("closed", ""), ("idle", ""), ("admin", ""), ("admin", "see ticket 7"), ("admin", "idle"))
INSERT = """
INSERT INTO sessions (id, account_id, tier, region, public_ip, public_key, address_offset, ipv6, state, created_at,
    expires_at, quiet_since_ms, quiet_boot_id, bytes_in, bytes_out, last_handshake_at, reason, note, told,
    terminated_at, device_id)
VALUES (?, ?, ?, ?, '192.0.2.1', ?, ?, ?, ?, ?, ?, 0, '', ?, ?, ?, ?, ?, ?, ?, ?)
"""
DEVICE = """
INSERT INTO devices (id, account_id, name, name_key, region, public_key, address_offset, ipv6, created_at, removed_at,
    endpoint)
VALUES (?1, 'ada', ?2, ?2, 'fsn', randomblob(32), 2, 1, 0, ?3, '192.0.2.1:51820')
"""
MORE = """
INSERT INTO sessions (id, account_id, tier, region, public_ip, public_key, address_offset, ipv6, state, created_at,
    expires_at, quiet_since_ms, quiet_boot_id, terminated_at, reason, note)
WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < ?)
SELECT 'ses_' || i, 'ada', 'free', 'fsn', '192.0.2.1', randomblob(32), 2, 1, 'terminated', i * 1000, 2, 0, '', 7,
    'closed', hex(randomblob(50)) FROM n
"""
# VmHWM counts from the exec() on, unlike what wait4(2) says.
PEAK = """
import re, sys
from appliance.cli import main
try:
    main()
finally:
    print(re.search("VmHWM.*", open("/proc/self/status").read())[0], file=sys.stderr)
"""
MOVE_TO_PEERS = """
INSERT INTO peers (address_offset, bytes_in, bytes_out, last_handshake_at, handshake_seen_ns, counted_ms,
    counted_until_ms, counted_boot_id, quiet_since_ms)
SELECT address_offset, bytes_in, bytes_out, last_handshake_at, 0, 0, 0, '', 0 FROM sessions
WHERE state IN ('live', 'closing');
UPDATE sessions SET bytes_in = 1, bytes_out = 1, last_handshake_at = 1 WHERE state IN ('live', 'closing')
"""
COLUMNS = """
SELECT s.id, a.name AS account, s.device_id, d.name AS device_name, s.tier, s.region, s.public_ip,
    s.public_key, s.address_offset, s.ipv6, s.state, s.note, s.created_at, s.expires_at, s.terminated_at, s.reason,
    s.told, coalesce(p.bytes_in, s.bytes_in) AS bytes_in,
    coalesce(p.bytes_out, s.bytes_out) AS bytes_out,
    iif(p.counted_ms IS NULL, s.last_handshake_at, p.last_handshake_at) AS last_handshake_at
FROM sessions s JOIN accounts a ON a.id = s.account_id LEFT JOIN devices d ON d.id = s.device_id
LEFT JOIN peers p ON p.address_offset = s.address_offset AND s.state IN ('live', 'closing')
WHERE s.state <> 'pending' ORDER BY s.number DESC
"""


def fill(store: Path, many: int, random: Random) -> None:
    """Sessions of all kinds in random order, of days ago and some hours: their ages stay the same for a while."""
    noon_ms = int(time.time() * 1000) - DAY_MS // 2
    with closing(sqlite3.connect(store)) as db, db:
        for name in ("ada", "bob", "\u6771\u4eac"):
            db.execute("INSERT INTO accounts (id, name, tier, created_at) VALUES (?, ?, 'free', 0)", (name, name))
        for device in (("dev_1", "phone", None), ("dev_2", "\u6771\u4eac", 7)):
            db.execute(DEVICE, device)
        for number in range(2, 2 + many):
            state = random.choice(["live", "live", "live", "closing", "terminated", "pending"])
            reason, told = random.choice(REASONS) if state in ("closing", "terminated") else (None, "")
            created = noon_ms - random.randrange(900) * DAY_MS
            session = f"ses_{random.randbytes(12).hex()}"
            of = (random.choice(["ada", "ada", "bob", "\u6771\u4eac"]), random.choice(["free", "paid"]))
            peer = ("fsn" if number % 97 else "far-away", random.randbytes(32), number, number % 3 > 0, state)
            moved = (random.randrange(2**50), random.choice([0, 1, 2**63 - 1]), random.choice([None, created]))
            end = (reason, random.choice(NOTES), told, created + 7 if state == "terminated" else None)
            device = ("dev_1", "dev_2", None)[number % 3] if of[0] == "ada" else None
            db.execute(INSERT, (session, *of, *peer, created, created + 1, *moved, *end, device))
        for statement in MOVE_TO_PEERS.split(";"):
            db.execute(statement)


@pytest.fixture(scope="module")
def full(tmp_path_factory: pytest.TempPathFactory) -> CommandLine:
    """A store with many sessions; the offsets of some are outside of the subnet that there is now."""
    line = CommandLine(tmp_path_factory.mktemp("full"))
    line.do("init")
    with line.config.open("a", encoding="utf-8") as config:
        config.write(f'[wireguard]\nsubnet = "{SUBNET}"\nsubnet6 = "{SUBNET6}"\n')
    fill(line.state.store, MANY, Random(18))  # noqa: S311 (a store that repeats)
    return line


def stored(line: CommandLine, options: tuple[str, ...]) -> list[sqlite3.Row]:
    """The sessions that are to be listed, from plain SQL."""
    with closing(sqlite3.connect(line.state.store)) as db:
        db.row_factory = sqlite3.Row
        found = db.execute(COLUMNS).fetchall()
    if "--live" in options:
        found = [row for row in found if row["state"] == "live"]
    if "--account" in options:
        found = [row for row in found if row["account"] == options[options.index("--account") + 1]]
    limit = int(options[options.index("--limit") + 1]) if "--limit" in options else 0
    return found[: limit or None]


def ending(row: sqlite3.Row) -> str | None:
    own_words = row["reason"] == "admin" and row["told"] and row["told"] != "idle"
    return row["told"] if own_words else row["reason"]


def address(row: sqlite3.Row) -> str | None:
    return str(SUBNET[row["address_offset"]]) if row["address_offset"] < SUBNET.num_addresses else None


def at(ms: int | None) -> str | None:
    return None if ms is None else datetime.fromtimestamp(ms // 1000, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def shaped(row: sqlite3.Row) -> dict[str, Any]:
    copied = ("id", "account", "device_id", "device_name", "tier", "state", "region", "public_ip")
    return {name: row[name] for name in copied} | {
        "public_key": base64.b64encode(row["public_key"]).decode(),
        "address": address(row),
        "address6": str(SUBNET6[row["address_offset"]]) if row["ipv6"] else None,
        "created_at": at(row["created_at"]),
        "expires_at": at(row["expires_at"]),
        "last_handshake_at": at(row["last_handshake_at"]),
        "bytes_in": row["bytes_in"],
        "bytes_out": row["bytes_out"],
        "terminated_at": at(row["terminated_at"]),
        "terminated_reason": ending(row),
        "note": row["note"],
    }


def cells(row: sqlite3.Row, now: int) -> list[str]:
    state = row["state"] if ending(row) is None else f"{row['state']} ({ending(row)})"
    times = (output.ago(row["created_at"], now), output.ago(row["last_handshake_at"], now))
    sizes = (output.size(row["bytes_in"]), output.size(row["bytes_out"]))
    whose = (row["id"], row["account"], row["device_name"] or "-", row["tier"])
    return [*whose, state, row["region"], address(row) or "-", *times, *sizes]


def columns(text: str) -> int:
    return sum(2 if letter in "\u6771\u4eac" else 1 for letter in text)


SELECTIONS = [
    (),
    ("--live",),
    ("--account", "ada"),
    ("--account", "bob", "--live"),
    ("--limit", str(PAGE - 1)),
    ("--limit", str(PAGE)),
    ("--limit", str(PAGE + 1)),
    ("--limit", str(MANY)),
    ("--limit", str(2**64)),  # more than SQLite counts
    ("--limit", "7", "--live"),
]


@pytest.mark.parametrize("options", SELECTIONS, ids=" ".join)
def test_the_json_is_one_text(full: CommandLine, options: tuple[str, ...]) -> None:
    """It is byte for byte what the encoder makes of all sessions at once, newest first."""
    expected = json.dumps({"sessions": [shaped(row) for row in stored(full, options)]}, indent=2)
    assert full.do("session", "list", "--json", *options).out == expected + "\n"


@pytest.mark.parametrize("options", SELECTIONS, ids=" ".join)
def test_the_table_is_as_wide_as_its_widest_cells(full: CommandLine, options: tuple[str, ...]) -> None:
    """Each column is as wide as its widest cell, on whatever page that is; nothing is cut."""
    now = int(time.time() * 1000)
    headings = ["ID", "ACCOUNT", "DEVICE", "TIER", "STATE", "REGION", "ADDRESS", "CREATED", "HANDSHAKE", "IN", "OUT"]
    lines = [headings, *(cells(row, now) for row in stored(full, options))]
    widths = [max(map(columns, column)) for column in zip(*lines, strict=True)]
    padded = ([c + " " * (w - columns(c)) for c, w in zip(line, widths, strict=True)] for line in lines)
    expected = "".join("  ".join(line).rstrip() + "\n" for line in padded)
    done = full.do("session", "list", *options)
    assert done.out == expected
    limit = options[1] if "--limit" in options else ""
    cut = limit and len(stored(full, tuple(o for o in options if o not in ("--limit", limit)))) > int(limit)
    assert done.err == (f"the newest {limit} sessions; --limit 0 lists all\n" if cut else "")


@pytest.mark.parametrize("options", [("--json",), ()])
def test_no_sessions(wga: CommandLine, options: tuple[str, ...]) -> None:
    """An empty list, or a remark."""
    done = wga.do("session", "list", *options)
    assert (done.out, done.err) == (('{\n  "sessions": []\n}\n', "") if options else ("", "no sessions\n"))


@pytest.mark.parametrize("options", [("--json",), ()])
def test_memory_does_not_grow_with_the_sessions(
    wga: CommandLine, show: Callable[[str], None], options: tuple[str, ...]
) -> None:
    """Ten thousand sessions take as much memory as a few pages of them."""
    fill(wga.state.store, 3 * PAGE, Random(1))  # noqa: S311 (a store that repeats)
    few = peak(wga, *options)
    with closing(sqlite3.connect(wga.state.store)) as db, db:
        db.execute(MORE, (10_000,))
    many = peak(wga, *options)
    show(f"{few / 1e6:.1f} MB with {3 * PAGE} sessions, {many / 1e6:.1f} MB with ten thousand more")
    assert many - few < 4_000_000


def peak(line: CommandLine, *options: str) -> int:
    """The most memory that the command had, as a process of its own."""
    command = ["-c", PEAK, "--config", str(line.config), "session", "list", *options]
    done = subprocess.run([sys.executable, *command], cwd=PROJECT, check=True, capture_output=True, timeout=60)
    return int(done.stderr.split()[-2]) * 1024


def listing(line: CommandLine, *options: str) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "appliance", "--config", str(line.config), "session", "list", *options]
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    return subprocess.Popen(command, cwd=PROJECT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


@pytest.mark.parametrize("options", [("--json",), ()])
def test_a_reader_that_goes_away(full: CommandLine, options: tuple[str, ...]) -> None:
    """The command ends without a word."""
    with listing(full, *options) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.readline()
        process.stdout.close()
        assert process.stderr.read() == b""
        assert process.wait(60) == 1


@pytest.mark.parametrize("options", [("--json",), ()])
def test_ctrl_c_while_the_reader_waits(full: CommandLine, options: tuple[str, ...]) -> None:
    """The command ends at once, with status 1, although its output is full and not read."""
    with listing(full, *options) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.readline()
        until(lambda: is_full(process.stdout), "it waits for its reader")
        process.send_signal(signal.SIGINT)
        assert process.wait(10) == 1
        assert process.stderr.read() == b"\nAborted!\n"


def is_full(pipe: IO[bytes] | None) -> bool:
    assert pipe is not None
    (waiting,) = struct.unpack("=i", fcntl.ioctl(pipe, termios.FIONREAD, bytes(4)))
    return waiting > fcntl.fcntl(pipe, fcntl.F_GETPIPE_SZ) - resource.getpagesize()


def test_the_server_can_use_its_log_again_while_a_list_is_read(full: CommandLine) -> None:
    """A list that waits for its reader holds no snapshot: the store's WAL can be emptied meanwhile."""
    with listing(full) as process:
        assert process.stdout is not None
        assert process.stdout.readline()
        with closing(sqlite3.connect(full.state.store)) as db:
            with db:
                db.execute("UPDATE accounts SET created_at = created_at + 1")

            def emptied() -> bool:
                busy, *_ = db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
                return busy == 0

            until(emptied, "no reader holds the WAL")
        assert process.poll() is None
        process.stdout.close()
        process.wait(60)
