"""Which rules of routing go with a tunnel that wg-quick has made, among those of others."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from appliance.client.tunnel import ip_rules
from tests.support.client.as_wg_quick import FAMILIES, MARK, add_pair, ip, rules

if TYPE_CHECKING:
    from tests.support.netns import Namespace

OTHER_MARK = 51999


def removed(mark: int = MARK) -> list[str]:
    """What is remarked."""
    said: list[str] = []
    ip_rules.remove(mark, said.append)
    return said


def test_only_its_own_pair_of_rules_goes(space: Namespace) -> None:
    """Its own pair goes; those of tunnels that came before and after it stay."""
    add_pair(space, OTHER_MARK)
    add_pair(space, MARK)
    add_pair(space, OTHER_MARK + 1)
    before = rules(space)
    assert removed() == []
    gone = [line for line in before if line not in rules(space)]
    assert [line.partition("\t")[2] for line in gone] == [
        "from all lookup main suppress_prefixlength 0",
        f"not from all fwmark {MARK:#x} lookup {MARK}",
    ] * 2
    assert {int(line.partition(":")[0]) for line in gone} == {32762, 32763}


@pytest.mark.parametrize("family", FAMILIES)
def test_the_mark_of_another(space: Namespace, family: str) -> None:
    """A table that is not empty is another tunnel's, which took the number once ours was: its rules stay, and it is
    said."""
    add_pair(space, MARK)
    add_pair(space, MARK, (family,))
    ip(space, family, "route", "add", "default", "dev", "lo", "table", str(MARK))
    before = rules(space)
    (said,) = removed()
    assert said.startswith(f"another tunnel has taken the mark {MARK} meanwhile")
    assert rules(space) == before


@pytest.mark.parametrize("half_gone", [False, True])
@pytest.mark.parametrize(
    "foreign",
    [
        "pref 99 from 192.0.2.0/24 lookup main suppress_prefixlength 0",
        "pref 32764 iif lo lookup main suppress_prefixlength 0",
        "pref 32764 lookup main suppress_prefixlength 8",
        "pref 32763 lookup main suppress_prefixlength 0",
        f"pref 32763 fwmark {MARK} lookup {MARK}",
        f"pref 32763 not from 192.0.2.0/24 fwmark {MARK} lookup {MARK}",
    ],
)
def test_half_a_foreign_pair_stays(space: Namespace, foreign: str, half_gone: bool) -> None:
    """What looks like half of a pair, and is none, stays; also where another `wg-quick down` has taken half of ours."""
    bare = rules(space)
    add_pair(space, MARK, ("-4",))
    if half_gone:
        ip(space, "rule", "delete", "pref", "32764")
    ours = rules(space)
    ip(space, "rule", "add", *foreign.split())
    (theirs,) = [line for line in rules(space) if line not in ours]
    assert removed() == []
    left = [line for line in rules(space) if line not in bare]
    assert theirs in left
    assert f"32765:\tnot from all fwmark {MARK:#x} lookup {MARK}" not in left
