"""A store that holds many live sessions already: rows as the server would have written them, in a moment's time."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from pathlib import Path
    from random import Random

    from appliance.domain.clock import Moment
    from appliance.network.wireguard.tunnel import Peer

SESSIONS_AN_ACCOUNT = 4
FIRST_OFFSET = 2
YEAR_MS = 365 * 86_400_000

_ACCOUNT = """
INSERT INTO accounts (id, name, tier, created_at, bytes_opened_at, time_opened_at)
VALUES (:id, :id, 'free', :now, :now, :now)
"""
_SESSION = """
INSERT INTO sessions (id, account_id, tier, region, public_ip, public_key, address_offset, ipv6, state, created_at,
    expires_at, quiet_since_ms, quiet_boot_id, counted_until_ms, counted_boot_id)
VALUES (:id, :account, 'free', 'test', '192.0.2.1', :key, :offset, 1, 'live', :now, :expires, :boot_ms, :boot,
    :boot_ms, :boot)
"""
_PEER = """
INSERT INTO peers (address_offset, bytes_in, bytes_out, handshake_seen_ns, counted_ms, counted_until_ms,
    counted_boot_id, quiet_since_ms, ifindex, rx_bytes, tx_bytes)
VALUES (?, 0, 0, 0, 0, ?, ?, ?, ?, 0, 0)
"""
_DEVICE = """
INSERT INTO devices (id, account_id, name, name_key, region, public_key, address_offset, ipv6, created_at, endpoint,
    bytes_in, bytes_out, counted_ms, last_handshake_at, handshake_seen_ns, baseline_boot_id, ifindex, rx_bytes,
    tx_bytes)
VALUES (:id, :account, :name, :name, 'test', :key, :offset, 1, :now, '192.0.2.1:51820', 123456789, 123456789, 3600000,
    :now, 0, :boot, :ifindex, 0, 0)
"""
_ENDED = """
INSERT INTO sessions (id, account_id, tier, region, public_ip, public_key, address_offset, ipv6, state, created_at,
    expires_at, quiet_since_ms, quiet_boot_id, reason, terminated_at)
VALUES ('ses_' || lower(hex(randomblob(12))), ?1, 'free', 'test', '192.0.2.1', randomblob(32), 2, 1, 'terminated',
    ?2 - 1000, ?2, 0, 'boot', 'closed', ?2)
"""


def add_ended(db: sqlite3.Connection, many: int, accounts: Sequence[str], ended_ms: int) -> None:
    """Sessions that ended one after another until then, of each account in turn; their ids and keys are random."""
    db.executemany(_ENDED, ((accounts[n % len(accounts)], ended_ms - many + n) for n in range(many)))


def fill(store: Path, peers: Sequence[Peer], now: Moment, ifindex: int, random: Random) -> None:
    """A live session for each peer, in any order, several an account; their counters were read and stood at zero.

    Who is neighbour to whom in the tunnel is not so in the store: peers that move are spread over its pages.
    """
    sessions = _owned("ses", peers, random)
    common = {"now": now.wall_ms, "expires": now.wall_ms + YEAR_MS, "boot_ms": now.boot_ms, "boot": now.boot_id}
    with closing(sqlite3.connect(store)) as db, db:
        _add_accounts(db, sessions, now)
        db.executemany(_SESSION, [{**session, **common} for session in sessions])
        marks = (now.boot_ms, now.boot_id, now.boot_ms, ifindex)
        db.executemany(_PEER, [(FIRST_OFFSET + number, *marks) for number in range(len(peers))])


def fill_idle(store: Path, peers: Sequence[Peer], now: Moment, ifindex: int, random: Random) -> None:
    """A device for each peer, as `fill` does it. Each has had sessions, and no handshake since."""
    devices = _owned("dev", peers, random)
    common = {"now": now.wall_ms, "boot": now.boot_id, "ifindex": ifindex}
    with closing(sqlite3.connect(store)) as db, db:
        _add_accounts(db, devices, now)
        db.executemany(_DEVICE, [{**each, **common, "name": f"phone {n}"} for n, each in enumerate(devices)])


def _owned(prefix: str, peers: Sequence[Peer], random: Random) -> list[dict[str, object]]:
    """Something for each peer, in any order: its id, account, key and address."""
    return [
        {
            "id": f"{prefix}_{random.randbytes(12).hex()}",
            "account": f"acc_{place // SESSIONS_AN_ACCOUNT}",
            "key": peers[number].public_key,
            "offset": FIRST_OFFSET + number,
        }
        for place, number in enumerate(random.sample(range(len(peers)), len(peers)))
    ]


def _add_accounts(db: sqlite3.Connection, owned: Iterable[Mapping[str, object]], now: Moment) -> None:
    accounts = dict.fromkeys(each["account"] for each in owned)
    db.executemany(_ACCOUNT, [{"id": account, "now": now.wall_ms} for account in accounts])
