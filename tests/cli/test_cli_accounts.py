"""wg-appliance account."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.support.cli.command_line import CommandLine


def test_a_created_account_is_listed(wga: CommandLine) -> None:
    """What create prints is what list says: id, name, tier, not disabled, a time with a Z."""
    made = wga.json("account", "create", "alice", "--tier", "paid")
    assert re.fullmatch(r"acc_[0-9a-f]{24}", made["id"])
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", made["created_at"])
    assert made | {"id": "", "created_at": ""} == {
        "id": "",
        "name": "alice",
        "tier": "paid",
        "disabled": False,
        "created_at": "",
    }
    assert wga.json("account", "list") == {"accounts": [made]}


def test_the_default_tier_is_free_and_shown(wga: CommandLine) -> None:
    """Without --tier an account is free, and the human answer says so."""
    assert re.search(r"^tier +free$", wga.do("account", "create", "alice").out, re.MULTILINE)


def test_a_taken_name_is_refused(wga: CommandLine) -> None:
    """A second account of the same name: status 1, one line, and the first one stands."""
    made = wga.json("account", "create", "alice")
    refused = wga("account", "create", "alice", "--tier", "paid")
    assert (refused.status, refused.out, refused.err.count("\n")) == (1, "", 1)
    assert "account alice exists already" in refused.err
    assert wga.json("account", "list") == {"accounts": [made]}


@pytest.mark.parametrize("name", ["", " a", "a ", "a\nb", "a\x1b[1m", "x" * 65, "a\udcff", "a\u202eb"])
def test_names_that_a_table_cannot_show_are_refused(wga: CommandLine, name: str) -> None:
    """Such a name is a usage error that says what is allowed; no account is made."""
    refused = wga("account", "create", "--", name)
    assert refused.status == 2
    assert "1 to 64 printable characters" in refused.err
    assert wga.json("account", "list") == {"accounts": []}


@pytest.mark.parametrize("name", ["x" * 64, "Jörg & Söhne", "日本", "-dash", "'; DROP TABLE accounts"])
def test_any_printable_name_does(wga: CommandLine, name: str) -> None:
    """A name of printable characters comes back as it was given."""
    wga.do("account", "create", "--", name)
    assert [a["name"] for a in wga.json("account", "list")["accounts"]] == [name]


def test_set_changes_the_tier_alone(wga: CommandLine) -> None:
    """--tier leaves the rest as it was; so does --disabled."""
    wga.do("account", "create", "alice")
    wga.do("account", "set", "alice", "--disabled")
    wga.do("account", "set", "alice", "--tier", "anonymous")
    shown = wga.json("account", "show", "alice")
    assert (shown["tier"], shown["disabled"]) == ("anonymous", True)
    wga.do("account", "set", "alice", "--enabled")
    shown = wga.json("account", "show", "alice")
    assert (shown["tier"], shown["disabled"]) == ("anonymous", False)


def test_set_without_a_change_is_a_usage_error(wga: CommandLine) -> None:
    """Nothing to set: status 2, and the options that could have been given."""
    wga.do("account", "create", "alice")
    refused = wga("account", "set", "alice")
    assert refused.status == 2
    assert "--tier, --disabled or --enabled" in refused.err


@pytest.mark.parametrize("change", [("set", "alice", "--disabled"), ("delete", "alice")])
def test_disabled_or_deleted_ends_its_sessions_only(wga: CommandLine, change: tuple[str, ...]) -> None:
    """The account's live sessions are closing, reason admin; another account's go on."""
    for offset, name in enumerate(("alice", "bob"), start=2):
        wga.do("account", "create", name)
        wga.open_session(name, offset)
    wga.do("account", *change)
    found = {s["account"]: (s["state"], s["terminated_reason"]) for s in wga.json("session", "list")["sessions"]}
    assert found == {"alice": ("closing", "admin"), "bob": ("live", None)}


def test_another_tier_ends_no_session(wga: CommandLine) -> None:
    """A change of tier alone leaves live sessions live."""
    wga.do("account", "create", "alice")
    wga.open_session("alice", 2)
    wga.do("account", "set", "alice", "--tier", "paid")
    assert wga.json("account", "show", "alice")["live_sessions"] == 1


def test_a_deleted_account_is_gone_and_its_name_free(wga: CommandLine) -> None:
    """Its tokens are revoked, it cannot be shown, and a new account may have its name, with no tokens."""
    wga.do("token", "create", "--account", "alice")
    wga.do("account", "delete", "alice")
    assert wga("account", "show", "alice").status == 1
    assert [t["revoked_at"] is None for t in wga.json("token", "list")["tokens"]] == [False]
    wga.do("account", "create", "alice")
    assert wga.json("account", "show", "alice")["tokens"] == []


def test_show_has_its_tokens_live_sessions_and_devices(wga: CommandLine) -> None:
    """Tokens as token list shapes them, the account's own alone; sessions counted while live; what makes a token."""
    for name in ("alice", "bob"):
        wga.do("token", "create", "--account", name, "--label", f"of {name}")
    wga.open_session("alice", 2)
    shown = wga.json("account", "show", "alice")
    listed = [t for t in wga.json("token", "list")["tokens"] if t["account"] == "alice"]
    assert (shown["tokens"], shown["live_sessions"], shown["devices"]) == (listed, 1, 0)
    human = wga.do("account", "show", "alice").out
    assert "of alice" in human
    assert "of bob" not in human
    wga.do("account", "create", "a b")
    assert "token create --account 'a b' makes one" in wga.do("account", "show", "a b").err


@pytest.mark.parametrize("command", [("show",), ("set", "--enabled"), ("delete",)])
def test_an_unknown_account_is_named(wga: CommandLine, command: tuple[str, ...]) -> None:
    """Status 1, one line that names it and where to look."""
    refused = wga("account", *command, "nobody")
    assert (refused.status, refused.out) == (1, "")
    assert refused.err == "wg-appliance: error: no account nobody; wg-appliance account list shows them\n"


def test_an_empty_list_is_a_remark(wga: CommandLine) -> None:
    """Nothing on stdout, so that a script counts no lines; one line on stderr."""
    done = wga.do("account", "list")
    assert (done.out, done.err.count("\n")) == ("", 1)
