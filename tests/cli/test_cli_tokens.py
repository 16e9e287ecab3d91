"""wg-appliance token."""

from __future__ import annotations

import re
import sqlite3
from datetime import datetime
from typing import TYPE_CHECKING

import pytest

from appliance.domain import ids

if TYPE_CHECKING:
    import aiosqlite

    from tests.support.cli.command_line import CommandLine


def test_the_token_stands_alone_on_stdout(wga: CommandLine) -> None:
    """A real process prints the token and a line end on stdout; all else is on stderr."""
    done = wga.process("token", "create", "--account", "alice")
    assert done.status == 0
    assert re.fullmatch(r"wga_[0-9a-f]{48}\n", done.out)
    created, made = done.err.splitlines()
    assert created == "account alice created, tier free"
    limits = r"\(5\.0 GiB in 7d, 2h in 1d, 5 sessions at a time, each for up to 30d\)"
    assert re.fullmatch(rf"token tok_[0-9a-f]{{16}} of alice, tier free {limits}, never expires", made)


def test_only_the_hash_is_kept(wga: CommandLine) -> None:
    """The hash of what was printed is in the store; the token is in no file of the state directory."""
    token = wga.do("token", "create", "--account", "alice").out.strip()
    store = sqlite3.connect(wga.state.store)
    try:
        assert store.execute("SELECT hash FROM tokens").fetchall() == [(ids.token_hash(token),)]
    finally:
        store.close()
    assert all(token.encode() not in file.read_bytes() for file in wga.state.path.iterdir())
    assert token not in wga.do("token", "list", "--json").out


def test_json_has_the_token_and_its_facts(wga: CommandLine) -> None:
    """One object; the times are 30 days apart, to the second."""
    made = wga.json("token", "create", "--account", "alice", "--tier", "paid", "--expires", "30d", "--label", "laptop")
    assert set(made) == {"token", "id", "account", "tier", "label", "created_at", "expires_at"}
    assert (made["account"], made["tier"], made["label"]) == ("alice", "paid", "laptop")
    lasts = datetime.fromisoformat(made["expires_at"]) - datetime.fromisoformat(made["created_at"])
    assert lasts.total_seconds() == 30 * 86400
    (listed,) = wga.json("token", "list")["tokens"]
    del made["token"]
    assert listed == made | {"revoked_at": None}


def test_a_token_lasts_for_ever_by_default(wga: CommandLine) -> None:
    """No --expires: expires_at is null, and the table says never."""
    assert wga.json("token", "create", "--account", "alice")["expires_at"] is None
    assert "never" in wga.do("token", "list").out


@pytest.mark.parametrize("text", ["0", "60", "0s", "-1", "1w", "soon", "", "36501d"])
def test_an_impossible_expiry_is_a_usage_error(wga: CommandLine, text: str) -> None:
    """Status 2, what is allowed, and neither token nor account made."""
    refused = wga("token", "create", "--account", "alice", "--expires", text)
    assert refused.status == 2
    assert "a duration from 1s" in refused.err
    assert wga.json("account", "list") == {"accounts": []}


def test_an_existing_account_keeps_its_tier(wga: CommandLine) -> None:
    """Without --tier, or with the tier it has, a further token is made for the same account."""
    made = wga.json("account", "create", "alice", "--tier", "paid")
    for tier in ((), ("--tier", "paid")):
        done = wga.do("token", "create", "--account", "alice", *tier)
        assert done.err.count("\n") == 1
        assert ", tier paid (bytes unmetered, time unmetered, any number of sessions at a time" in done.err
    assert wga.json("account", "list") == {"accounts": [made]}
    assert len(wga.json("account", "show", "alice")["tokens"]) == 2


def test_another_tier_is_a_conflict(wga: CommandLine) -> None:
    """Status 1, naming the account's tier and the command that changes it; no token is made."""
    wga.do("account", "create", "alice")
    refused = wga("token", "create", "--account", "alice", "--tier", "paid")
    assert (refused.status, refused.out) == (1, "")
    assert "tier free" in refused.err
    assert "wg-appliance account set alice --tier paid" in refused.err
    assert wga.json("token", "list") == {"tokens": []}


def test_a_disabled_account_gets_no_token(wga: CommandLine) -> None:
    """It would answer 401: refused, with the command that helps."""
    wga.do("account", "create", "alice")
    wga.do("account", "set", "alice", "--disabled")
    refused = wga("token", "create", "--account", "alice")
    assert (refused.status, refused.out) == (1, "")
    assert "wg-appliance account set alice --enabled" in refused.err


def test_revoke_is_for_good(wga: CommandLine) -> None:
    """The token has a time of revocation, which a second revoke leaves as it is."""
    made = wga.json("token", "create", "--account", "alice")
    wga.do("token", "revoke", made["id"])
    (revoked,) = wga.json("token", "list")["tokens"]
    assert revoked["revoked_at"] is not None
    assert "already" in wga.do("token", "revoke", made["id"]).err
    assert wga.json("token", "list")["tokens"] == [revoked]
    assert "revoked" in wga.do("token", "list").out


def test_a_token_given_as_an_id_is_not_repeated(wga: CommandLine) -> None:
    """The mistake is refused without writing the secret anywhere."""
    token = wga.do("token", "create", "--account", "alice").out.strip()
    refused = wga("token", "revoke", token)
    assert refused.status == 1
    assert token not in refused.err
    assert wga.json("token", "list")["tokens"][0]["revoked_at"] is None


def test_an_id_may_be_shortened(wga: CommandLine) -> None:
    """To what is unique, with its prefix and without; what fits several is refused, and named by their ids."""
    first, second = (wga.json("token", "create", "--account", "alice")["id"] for _ in range(2))
    common = next(n for n in range(5, 21) if first[:n] != second[:n])
    assert f"token {first} of alice revoked\n" in wga.do("token", "revoke", first[:common]).err
    refused = wga("token", "revoke", "tok_")
    assert refused.status == 1
    assert all(each in refused.err for each in (first, second))
    assert f"token {second} of alice revoked\n" in wga.do("token", "revoke", second[4:common]).err
    for none in ("tok_zzz", "_", "%", first[4:common] + "é"):
        assert wga("token", "revoke", none).status == 1


def test_a_terminal_shows_when_they_expire(wga: CommandLine, monkeypatch: pytest.MonkeyPatch) -> None:
    """The account's tier and the age go before a time is cut."""
    made = wga.json("token", "create", "--account", "alice", "--label", "a guest's, December", "--expires", "30d")
    monkeypatch.setattr("appliance.cli.output._width", lambda: 80)
    headings, line = wga.do("token", "list").out.splitlines()
    assert "TIER" not in headings
    assert line.endswith(f"  {made['expires_at']}  a guest's, December")
    assert len(line) <= 80


def test_a_token_may_take_its_sessions_with_it(wga: CommandLine) -> None:
    """Only those that are live and were opened with it; without the option they go on."""
    token = wga.json("token", "create", "--account", "alice")["id"]
    own, others = wga.open_session("alice", 2), wga.open_session("alice", 3)

    async def note(db: aiosqlite.Connection) -> None:
        await db.execute("UPDATE sessions SET token_id = ? WHERE id = ?", (token, own))

    wga.write(note)
    wga.do("token", "revoke", token)
    assert wga.json("session", "show", own)["state"] == "live"
    done = wga.do("token", "revoke", token, "--end-sessions")
    assert f"token {token} was revoked already; sessions ended: 1\n" in done.err
    assert wga.json("session", "show", own)["terminated_reason"] == "admin"
    assert wga.json("session", "show", others)["state"] == "live"
