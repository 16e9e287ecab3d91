"""Whose an interface is, by what is set on it."""

from __future__ import annotations

import pytest

from appliance.network.wireguard.ownership import NO_KEY, OwnMarks, foreign
from appliance.network.wireguard.tunnel import Dump, Link, PeerState, Prefix

OURS, BEFORE, THEIRS = (bytes([number]) * 32 for number in (1, 2, 3))
OWN, OTHER = Prefix(bytes([10, 101, 0, 1]), 24), Prefix(bytes([10, 9, 0, 1]), 24)
MARKS = OwnMarks(frozenset({OURS, BEFORE}), 51820, frozenset({OWN}))
RANDOM = range(32768, 61000)
PEER = PeerState(THEIRS, frozenset(), 0, 0, 0)


def judged(key: bytes, *, port: int = 0, peers: int = 0, addresses: frozenset[Prefix] = frozenset()) -> str | None:
    dump = Dump(5, key, port, {bytes([number]) * 32: PEER for number in range(peers)})
    return foreign(Link(5, up=True, mtu=1420, addresses=addresses), dump, MARKS, RANDOM)


@pytest.mark.parametrize("key", [OURS, BEFORE])
def test_an_interface_with_a_key_of_ours_is_ours_whatever_is_set_on_it(key: bytes) -> None:
    """Somebody may have changed all else of it while nothing served."""
    assert judged(key, port=4500, peers=2, addresses=frozenset({OTHER})) is None


def test_one_with_another_key_is_not_whatever_else_it_has() -> None:
    """Our port and addresses do not make it ours."""
    assert judged(THEIRS, port=51820, addresses=frozenset({OWN})) is not None


def test_one_without_a_key_is_ours_only_as_we_may_have_left_it() -> None:
    """Between its creation and its key it has our addresses, and a port that it chose itself."""
    assert judged(NO_KEY) is None
    assert judged(NO_KEY, port=40000, addresses=frozenset({OWN})) is None
    assert judged(NO_KEY, port=4500) is not None
    assert judged(NO_KEY, peers=1) is not None
    assert judged(NO_KEY, addresses=frozenset({OWN, OTHER})) is not None
