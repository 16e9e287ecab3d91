"""Which address clients are told, and with which their packets leave by each interface."""

from __future__ import annotations

from ipaddress import ip_address
from typing import TYPE_CHECKING

import pytest

from appliance.network import standing_note
from appliance.network.firewall.rules import Translation
from appliance.network.netlink.constants import (
    IFA_F_DADFAILED,
    IFA_F_DEPRECATED,
    IFA_F_OPTIMISTIC,
    IFA_F_TEMPORARY,
    IFA_F_TENTATIVE,
)
from appliance.network.public_address import Standing, abandoned, changes_in_words, decide
from appliance.network.source_address import HostAddress, lasting
from appliance.network.uplinks import HostView, Uplink

if TYPE_CHECKING:
    from pathlib import Path

FOUR, OTHER4, SIX, OTHER6 = "203.0.113.1", "192.0.2.1", "2001:db8:2::1", "2001:db8:3::1"
WAN, WAN6, WAN2 = ("wan", FOUR), ("wan", SIX), ("wan2", OTHER4)


def view(*uplinks: tuple[str, str | None, int], own: str = "", asked: str | None = None, places: str = "") -> HostView:
    """`uplinks`: interface, address and IP version."""
    found = {v: Uplink(name, 1500, None if text is None else ip_address(text)) for name, text, v in uplinks}
    addresses = [*own.split(), *(text for _, text, _ in uplinks if text)]
    asked_for = None if asked is None else ip_address(asked)
    return HostView(found, frozenset(map(ip_address, addresses)), asked_for, tuple(places.split()))


def standing(address: str, *pairs: tuple[str, str], owned: bool = True, **ways: str) -> Standing:
    """`ways`: v4, v6."""
    translation = Translation(tuple((name, ip_address(text)) for name, text in pairs))
    return Standing(ip_address(address), owned, translation, {int(v[1]): name for v, name in ways.items()})


DUAL = view(("wan", FOUR, 4), ("wan", SIX, 6))
LAST = standing(FOUR, WAN, WAN6, v4="wan", v6="wan")


@pytest.mark.parametrize(
    ("configured", "seen", "last", "expected"),
    [
        (None, DUAL, None, LAST),
        (None, view(("wan", SIX, 6)), None, standing(SIX, WAN6, v6="wan")),
        (None, view(("wan", None, 4), ("wan", SIX, 6)), None, standing(SIX, WAN6, v4="wan", v6="wan")),
        (None, view(), None, None),
        # A host that is between two of its addresses.
        (None, view(own=f"{FOUR} {SIX}", asked=FOUR, places="wan"), LAST, standing(FOUR, WAN, v4="wan", v6="wan")),
        (None, view(own=SIX, asked=FOUR), LAST, standing(FOUR, owned=False, v4="wan", v6="wan")),
        (None, view(("wan", SIX, 6), own=FOUR, asked=FOUR, places="wan"), LAST, LAST),
        (None, view(("wan", SIX, 6), asked=FOUR), LAST, standing(SIX, WAN6, v4="wan", v6="wan")),
        (
            None,
            view(("wan2", OTHER4, 4), own=FOUR, asked=FOUR, places="wan"),
            LAST,
            standing(OTHER4, WAN2, v4="wan2", v6="wan"),
        ),
        (FOUR, view(("wan2", OTHER4, 4), own=FOUR, asked=FOUR, places="wan"), None, standing(FOUR, WAN, v4="wan2")),
        (FOUR, view(("wan", OTHER4, 4), asked=FOUR), None, standing(FOUR, owned=False, v4="wan")),
        (FOUR, view(asked=FOUR), None, standing(FOUR, owned=False)),
        (
            SIX,
            view(("wan2", OTHER6, 6), own=SIX, asked=SIX, places="wan"),
            None,
            standing(SIX, WAN6, ("wan2", OTHER6), v6="wan2"),
        ),
    ],
    ids=[
        *("both versions", "IPv6 alone", "no IPv4 address", "no way out", "routes gone", "address gone", "route gone"),
        *("IPv4 gone", "moved", "configured elsewhere", "behind NAT", "configured, no way out", "IPv6 elsewhere"),
    ],
)
def test_what_is_decided(configured: str | None, seen: HostView, last: Standing | None, expected: Standing) -> None:
    """What the host sends from is told, or what is configured; it is left with where it belongs."""
    assert decide(None if configured is None else ip_address(configured), seen, last) == expected


@pytest.mark.parametrize(
    ("now", "own", "gone"),
    [
        (LAST, f"{FOUR} {SIX}", set()),
        (standing(OTHER4, ("wan", OTHER4), WAN6, v4="wan", v6="wan"), f"{OTHER4} {SIX}", {FOUR}),
        (standing(OTHER4, ("wan", OTHER4), WAN6, v4="wan", v6="wan"), f"{FOUR} {OTHER4} {SIX}", set()),
        (standing(FOUR, WAN, WAN6, v4="wan2", v6="wan"), f"{FOUR} {SIX}", {FOUR}),
        (standing(FOUR, WAN, WAN6, v4="wan2", v6="wan2"), f"{FOUR} {SIX}", {FOUR, SIX}),
        (standing(FOUR, owned=False, v4="wan", v6="wan"), "", {FOUR, SIX}),
    ],
    ids=["nothing", "address", "another beside it", "one route", "both routes", "addresses"],
)
def test_flows_that_cannot_go_on(now: Standing, own: str, gone: set[str]) -> None:
    """Those that leave with an address which the host has no more, or whose interface they do not leave by now."""
    assert {str(address) for address in abandoned(LAST, now, set(map(ip_address, own.split())))} == gone


def test_a_change_is_told_in_one_line_each() -> None:
    """What clients are told, whether it is the host's own, and how packets leave."""
    moved = standing(OTHER4, ("wan", OTHER4), WAN6, v4="wan", v6="wan")
    told, leave = changes_in_words(LAST, moved)
    assert told.startswith(f"the public address is {OTHER4} now, it was {FOUR}: ")
    assert leave == f"clients' packets leave by wan with {OTHER4} or {SIX}, by any other interface with its own address"
    lost = standing(FOUR, owned=False, v4="wan", v6="wan")
    assert list(changes_in_words(LAST, lost)) == [
        f"the public address {FOUR} is no address of this host any more",
        "clients' packets leave with the interface's own",
    ]
    assert list(changes_in_words(LAST, LAST)) == []


ONE, TWO = ip_address("2001:db8::1"), ip_address("2001:db8::2")
BAD = {
    "deprecated": ("2001:db8::9", IFA_F_DEPRECATED, 0),
    "temporary": ("2001:db8::9", IFA_F_TEMPORARY, 0),
    "tentative": ("2001:db8::9", IFA_F_TENTATIVE, 0),
    "refused": ("2001:db8::9", IFA_F_DADFAILED, 0),
    "ULA": ("fd00::9", 0, 0),
    "link-local": ("fe80::9", 0, 253),
}


def at(text: str, flags: int = 0, scope: int = 0, ifindex: int = 2) -> HostAddress:
    return HostAddress(ifindex, ip_address(text), 64, scope, flags)


@pytest.mark.parametrize("name", BAD)
def test_an_address_that_lasts_comes_first(name: str) -> None:
    """Whatever the kernel chose; but where the link has nothing better, what it has, if the internet answers there."""
    text, flags, scope = BAD[name]
    bad = at(text, flags, scope)
    assert lasting(6, bad.address, 2, [bad, at(str(ONE))]) == ONE
    assert lasting(6, bad.address, 2, [bad, at(str(ONE), ifindex=3)]) == (bad.address if bad.usable else None)


def test_the_kernels_choice_stands_among_equals() -> None:
    """Also where it is an address of another interface, as a route may say; and always for IPv4."""
    assert lasting(6, TWO, 2, [at(str(ONE)), at(str(TWO))]) == TWO
    assert lasting(6, TWO, 2, [at(str(ONE)), at(str(TWO), ifindex=1)]) == TWO
    assert lasting(6, TWO, 2, [at(str(TWO), IFA_F_TENTATIVE | IFA_F_OPTIMISTIC)]) == TWO
    four = ip_address(FOUR)
    assert lasting(4, four, 2, [at(str(ONE))]) == four
    assert lasting(4, None, 2, [at(str(ONE))]) is None


def test_what_is_in_use_is_noted(tmp_path: Path) -> None:
    """It is read as it was written; what is no note is none."""
    file = tmp_path / "addresses.json"
    assert standing_note.read(file) is None
    standing_note.note(file, LAST)
    assert standing_note.read(file) == LAST
    for text in ("", "[]", "{}", '{"public_ip": "x", "owned": true, "translation": [], "ways": {}}'):
        file.write_text(text, encoding="utf-8")
        assert standing_note.read(file) is None
