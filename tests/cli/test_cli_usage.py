"""wg-appliance usage."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from msgspec import structs

from appliance.domain import accounting
from appliance.domain.accounting import Reading
from appliance.domain.charges import Amount
from appliance.domain.clock import HostClock
from appliance.domain.windows import MOST, Window, Windows
from appliance.store.database import Store
from appliance.store.queries import accounts, peers
from appliance.store.queries import sessions as rows
from tests.support.cli.command_line import NOW

if TYPE_CHECKING:
    import aiosqlite

    from appliance.domain.clock import Moment
    from appliance.domain.entities import Session
    from tests.support.cli.command_line import CommandLine

DAY = 86_400_000
IN_A_WEEK, TOMORROW = "2026-09-28T14:13:20Z", "2026-09-22T14:13:20Z"  # from NOW


def set_clock(monkeypatch: pytest.MonkeyPatch, now: Moment) -> None:
    monkeypatch.setattr(HostClock, "now", lambda _: now)


@pytest.fixture
def alice(wga: CommandLine, monkeypatch: pytest.MonkeyPatch) -> CommandLine:
    """With an account alice of tier free, at NOW: 2026-09-21T14:13:20Z."""
    set_clock(monkeypatch, NOW)
    wga.do("account", "create", "alice")
    return wga


def used(wga: CommandLine, windows: Windows) -> None:
    """What the server would have counted for alice."""

    async def put(db: aiosqlite.Connection) -> None:
        found = await accounts.by_name(db, "alice")
        assert found is not None
        await accounts.put_windows(db, [structs.replace(found, windows=windows)])

    wga.write(put)


def of_windows(shown: dict[str, Any]) -> tuple[object, ...]:
    return (
        *(shown["bytes_used"], shown["bytes_window_resets_at"]),
        *(shown["session_seconds"], shown["seconds_window_resets_at"]),
    )


@pytest.mark.parametrize(
    ("tier", "size", "seconds"), [("anonymous", 2**30, 1800), ("free", 5 * 2**30, 7200), ("paid", 0, 0)]
)
def test_unused_windows_show_their_limits(
    wga: CommandLine, monkeypatch: pytest.MonkeyPatch, tier: str, size: int, seconds: int
) -> None:
    """The fields of GET /v1/usage with the tier's limits, 0 for none; each window would end its length from now."""
    set_clock(monkeypatch, NOW)
    wga.do("account", "create", "alice", "--tier", tier)
    assert wga.json("usage", "alice") == {
        "account": "alice",
        "tier": tier,
        "bytes_used": 0,
        "bytes_limit": size,
        "session_seconds": 0,
        "session_seconds_limit": seconds,
        "max_session_seconds": 2_592_000,
        "bytes_window_resets_at": IN_A_WEEK,
        "seconds_window_resets_at": TOMORROW,
    }


TEXT = """\
account  alice
tier     free
bytes    1.0 GiB of 5.0 GiB, resets in 3 d
time     1m 30s of 2h, resets in 12 h
"""


def test_text_has_a_field_a_line(alice: CommandLine) -> None:
    """A field a line; sizes and times readable, and when each window ends."""
    opened = NOW.wall_ms - 4 * DAY
    used(alice, Windows(Window(opened, 2**30), Window(NOW.wall_ms - DAY // 2, 90_999)))
    assert (alice.do("usage", "alice").out, alice.do("usage", "alice").err) == (TEXT, "")


def test_unmetered_text(alice: CommandLine) -> None:
    """On a tier without limits what was used is shown, and that nothing limits it."""
    used(alice, Windows(Window(NOW.wall_ms, 512), Window(NOW.wall_ms, 90_000)))
    alice.do("account", "set", "alice", "--tier", "paid")
    lines = dict(re.split(r"  +", line, maxsplit=1) for line in alice.do("usage", "alice").out.splitlines())
    assert (lines["bytes"], lines["time"]) == ("unmetered", "unmetered")
    assert (lines["bytes used"], lines["time used"]) == ("512 B", "1m 30s")


LENGTHS = (7 * DAY, DAY)  # free's windows
ENDS = [
    ("open", (NOW.wall_ms, NOW.wall_ms), (5, IN_A_WEEK, 6, TOMORROW)),
    (
        "both end 1 ms from now",
        (NOW.wall_ms - LENGTHS[0] + 1, NOW.wall_ms - LENGTHS[1] + 1),
        (5, "2026-09-21T14:13:21Z", 6, "2026-09-21T14:13:21Z"),
    ),
    ("the bytes' ends now", (NOW.wall_ms - LENGTHS[0], NOW.wall_ms), (0, IN_A_WEEK, 6, TOMORROW)),
    ("the time's ends now", (NOW.wall_ms, NOW.wall_ms - LENGTHS[1]), (5, IN_A_WEEK, 0, TOMORROW)),
    ("both are over", (0, 0), (0, IN_A_WEEK, 0, TOMORROW)),
]


@pytest.mark.parametrize(("opened", "expected"), [end[1:] for end in ENDS], ids=[end[0] for end in ENDS])
def test_a_window_counts_until_its_end(
    alice: CommandLine, opened: tuple[int, int], expected: tuple[object, ...]
) -> None:
    """A window counts until its end and not at it; then the next one would end its length from now. Whoever comes at
    the second that is shown does not come too early."""
    used(alice, Windows(Window(opened[0], 5), Window(opened[1], 6999)))
    assert of_windows(alice.json("usage", "alice")) == expected


def test_what_runs_counts(alice: CommandLine, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two live sessions use twice the time that passed, though nobody has counted it yet; another account's do not."""
    alice.do("account", "create", "bob")
    for offset, name in enumerate(("alice", "alice", "bob"), start=2):
        alice.open_session(name, offset)
    set_clock(monkeypatch, replace(NOW, wall_ms=NOW.wall_ms + 90_999, boot_ms=NOW.boot_ms + 90_999))
    assert alice.json("usage", "alice")["session_seconds"] == 181
    assert of_windows(alice.json("usage", "bob")) == (0, "2026-09-28T14:14:51Z", 90, TOMORROW)


def test_only_what_a_tunnel_can_carry_counts(alice: CommandLine, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a session that had no handshake nothing counts, and of one whose client is gone, the time until its keys were
    of no use."""
    alice.open_session("alice", 2, carries_until_ms=0)
    alice.open_session("alice", 3, carries_until_ms=NOW.boot_ms + 60_000)
    set_clock(monkeypatch, replace(NOW, wall_ms=NOW.wall_ms + 90_999, boot_ms=NOW.boot_ms + 90_999))
    assert of_windows(alice.json("usage", "alice")) == (0, "2026-09-28T14:14:51Z", 60, TOMORROW)


def test_another_boot_proves_nothing(alice: CommandLine, monkeypatch: pytest.MonkeyPatch) -> None:
    """After a reboot, what a session ran since it was last counted is not known here, and not guessed."""
    alice.open_session("alice", 2)
    set_clock(
        monkeypatch, replace(NOW, wall_ms=NOW.wall_ms + DAY // 2, boot_ms=NOW.boot_ms + 90_000, boot_id="another")
    )
    assert alice.json("usage", "alice")["session_seconds"] == 0


def test_counted_meanwhile(alice: CommandLine, monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that counts between two of the command's queries: what ran is in the windows, or still runs."""
    session = alice.open_session("alice", 2)
    now = replace(NOW, wall_ms=NOW.wall_ms + 90_000, boot_ms=NOW.boot_ms + 90_000)
    set_clock(monkeypatch, now)
    asked = rows.unfinished_of

    async def counted(db: aiosqlite.Connection, account_id: str) -> list[Session]:
        server = await Store.open(alice.state.store)
        async with server.write() as writer:
            before, owner = await rows.by_id(writer, session), await accounts.by_name(writer, "alice")
            assert before is not None
            assert owner is not None
            after = accounting.counted(before, Amount(time_ms=90_000), now)
            await peers.add_readings(writer, [Reading(Amount(90_000), NOW.wall_ms, now.wall_ms, after, None)])
            await accounts.put_windows(
                writer, [structs.replace(owner, windows=Windows(time=Window(NOW.wall_ms, 90_000)))]
            )
        await server.close()
        return await asked(db, account_id)

    monkeypatch.setattr(rows, "unfinished_of", counted)
    assert alice.json("usage", "alice")["session_seconds"] == 90


def test_large_figures_are_exact_in_json(alice: CommandLine) -> None:
    """JSON has them to the last digit; the table does not fail on them."""
    used(alice, Windows(Window(NOW.wall_ms, MOST), Window(NOW.wall_ms, (2**53 + 1) * 1000)))
    shown = alice.json("usage", "alice")
    assert (shown["bytes_used"], shown["session_seconds"]) == (MOST, 2**53 + 1)
    assert "8388608.0 TiB of 5.0 GiB" in alice.do("usage", "alice").out


def test_limits_are_the_configured_ones(alice: CommandLine) -> None:
    """Limits and windows are those of the configuration."""
    text = alice.config.read_text(encoding="utf-8")
    text += '[tiers.free]\nbytes_limit = "1 KB"\nbytes_window = "1h"\nseconds_limit = 7\nseconds_window = "1m"\n'
    alice.config.write_text(text, encoding="utf-8")
    shown = alice.json("usage", "alice")
    assert (shown["bytes_limit"], shown["session_seconds_limit"]) == (1000, 7)
    assert of_windows(shown) == (0, "2026-09-21T15:13:20Z", 0, "2026-09-21T14:14:20Z")


@pytest.mark.parametrize("name", ["nobody", "Alice"])
def test_an_unknown_account_is_named(alice: CommandLine, name: str) -> None:
    """Status 1 and one line that names the account and where to look."""
    refused = alice("usage", name)
    assert (refused.status, refused.out) == (1, "")
    assert refused.err == f"wg-appliance: error: no account {name}; wg-appliance account list shows them\n"


MISTYPED = [
    ([], "Missing argument 'NAME'"),
    (["alice", "bob"], "unexpected extra argument (bob)"),
    (["--account", "alice"], "No such option '--account'"),
    (["alice", "--jsn"], "Did you mean '--json'?"),
    ([" "], "1 to 64 printable characters"),
]


@pytest.mark.parametrize(("arguments", "message"), MISTYPED, ids=[" ".join(each[0]) or "none" for each in MISTYPED])
def test_a_mistyped_option_is_named(alice: CommandLine, arguments: list[str], message: str) -> None:
    """Status 2 and what was not understood."""
    refused = alice("usage", *arguments)
    assert (refused.status, refused.out, message in refused.err) == (2, "", True), refused.err
