"""Whether a host may join: each reason against it is one line that says what to do."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from appliance.domain.fleet_member import FleetMember
from appliance.fleet.joining.messages import JoinFacts, JoinRequest, has_joined, refusal
from appliance.fleet.link.nkey import NKey
from appliance.store.queries.fleet_invites import Invite

NOW = 1_800_000_000_000
MINUTE_MS = 60_000
KEY, OTHER = NKey.new().public, NKey.new().public
FRA = FleetMember("nod_" + "f" * 24, "fra1", "fra", "hub", NKey.new().public, bytes(range(32)), 1)
ASKED = JoinRequest("nod_" + "a" * 24, "ams1", "ams", KEY, bytes(range(32)), (1, 1), NOW)
INVITE = Invite("UINVITE", "spoke", NOW - MINUTE_MS, NOW + MINUTE_MS)


def facts(**changed: Any) -> JoinFacts:
    return JoinFacts(
        **{
            "invite": INVITE,
            "members": [FRA],
            "names": [],
            "spoken": (1, 1),
            "version": "2.0.0",
            "now": NOW,
            **changed,
        }
    )


def asked(**changed: Any) -> JoinRequest:
    return msgspec.structs.replace(ASKED, **changed)


def test_a_host_that_nothing_is_against_may_join() -> None:
    """By an invitation that is open."""
    assert refusal(ASKED, facts()) is None
    assert refusal(asked(accounts=("owner",), t=NOW + 4 * MINUTE_MS), facts(names=["ada"])) is None


USED = msgspec.structs.replace(INVITE, used_by=OTHER, used_at=NOW)
BY_FRA = msgspec.structs.replace(INVITE, used_by=FRA.nkey, used_at=NOW)


@pytest.mark.parametrize(
    ("request_", "known", "says"),
    [
        ({}, {"invite": None}, "the hub does not know this join token: make another one on a hub: wg-appliance fleet"),
        ({}, {"invite": USED}, "this join token was used already: make another one"),
        ({}, {"invite": BY_FRA}, "this join token was used already (by fra1): make another one"),
        ({}, {"now": INVITE.expires_at}, "this join token expired at 2027-01-15T08:01:00Z: make another one"),
        ({"name": "fra1"}, {}, "the fleet has a host called fra1 already: set node.name to another one here"),
        ({"node_id": FRA.id}, {}, "the fleet has a host with this one's id already (fra1): if this one is a copy"),
        ({"p": (2, 3)}, {}, "the hub is too old for the other (the hub has version 2.0.0): run wg-appliance upgrade"),
        ({"p": (1, 1)}, {"spoken": (2, 3)}, "this host is too old for the other (the hub has version 2.0.0): run"),
        ({"t": NOW - 7 * MINUTE_MS}, {}, "this host's clock is 420 s behind the hub's: set the wrong one right"),
        ({"t": NOW + 6 * MINUTE_MS}, {}, "this host's clock is 360 s ahead of the hub's: set the wrong one right"),
        (
            {"accounts": ("ada", "bob")},
            {"names": ["ada", "eve"]},
            "the fleet has accounts of these names too, and here they have a history: ada; to keep them under other",
        ),
    ],
)
def test_what_is_against_it_is_said(request_: dict[str, Any], known: dict[str, Any], says: str) -> None:
    """In one line."""
    answer = refusal(asked(**request_), facts(**known))
    assert answer is not None
    assert answer.refused.startswith(says)
    assert "\n" not in answer.refused
    assert (answer.ca, answer.fleet_key, answer.members) == ("", b"", ())


@pytest.mark.parametrize(
    "changed",
    [
        *({"node_id": each} for each in ("", "nod_", ">", "nod_" + "a" * 24 + ".>", "nod_" + "A" * 24)),
        *({"nkey": each} for each in ("", "*", "SUAA", KEY + " ", KEY[:-1], "U" + "A" * 55)),
        *({"name": each} for each in ("", "a\nb", "a" * 65, "\x1b[31m")),
        *({"region": each} for each in ("", "Fra", "a b", "-a")),
        *({"xkey": each} for each in (b"", bytes(31), bytes(32), bytes(33))),
    ],
)
def test_what_could_widen_a_right_or_disturb_a_screen_is_refused(changed: dict[str, Any]) -> None:
    """It would be in the hub's configuration, and in what operators see."""
    answer = refusal(asked(**changed), facts())
    assert answer is not None
    assert answer.refused.startswith("the hub does not understand what this host asks")


def test_the_same_host_is_known_when_it_asks_again() -> None:
    """Its answer was lost. Not by another key, nor when it has left meanwhile."""
    mine = msgspec.structs.replace(INVITE, used_by=KEY, used_at=NOW)
    member = ASKED.member("spoke", NOW)
    assert has_joined(ASKED, facts(invite=mine, members=[FRA, member]))
    assert not has_joined(ASKED, facts(invite=mine))
    assert not has_joined(ASKED, facts(members=[FRA, member]))
    assert not has_joined(asked(nkey=OTHER), facts(invite=mine, members=[FRA, member]))
    left = refusal(ASKED, facts(invite=mine))
    assert left is not None
    assert left.refused.startswith("this join token was used already: ")
