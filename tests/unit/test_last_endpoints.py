"""Where peers were last seen while they are away: how much is kept, how long, and what is forgotten."""

from __future__ import annotations

import random
import weakref

import pytest

from appliance.network.wireguard.tunnel import Dump, PeerState, SocketAddress
from appliance.sessions import last_endpoints
from appliance.sessions.last_endpoints import LastEndpoints

NONE: frozenset[bytes] = frozenset()


def key(number: int) -> bytes:
    return number.to_bytes(32, "big")


def at(port: int) -> SocketAddress:
    return SocketAddress(bytes([192, 0, 2, 1]), port)


def dump(seen: dict[int, int | None], ifindex: int = 4) -> Dump:
    """Peers by number, and the port that each was seen at."""
    peers = {
        key(number): PeerState(key(number), frozenset(), 1, 2, 3, None if port is None else at(port))
        for number, port in seen.items()
    }
    return Dump(ifindex, bytes(32), 1, peers)


def follow(endpoints: LastEndpoints, found: Dump | None, without: frozenset[bytes] = NONE, *ended: int) -> None:
    """A look: it asks for those without an endpoint before the next one follows."""
    endpoints.advance(map(key, ended))
    endpoints.read(found, without)


@pytest.fixture(params=[last_endpoints.MOST_KEPT, 0], ids=["few", "many"])
def endpoints(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> LastEndpoints:
    monkeypatch.setattr(last_endpoints, "MOST_KEPT", request.param)
    return LastEndpoints()


def test_the_last_dump_that_showed_a_peer(endpoints: LastEndpoints) -> None:
    """Through any number of dumps without it, or without an interface, the endpoint is that of the last one with it."""
    follow(endpoints, dump({1: 10, 2: 20, 3: None}))
    follow(endpoints, dump({1: 11, 2: 20, 3: None}))
    follow(endpoints, dump({2: 21, 3: None}), frozenset({key(1)}))
    for found in (dump({2: 22}), None, None, dump({}, 5)):
        follow(
            endpoints, found, frozenset({key(1), key(3)} | ({key(2)} if found is None or not found.peers else set()))
        )
        assert endpoints.get(key(1)) == at(11)
        assert endpoints.get(key(3)) is None
        assert endpoints.get(key(4)) is None
    assert endpoints.get(key(2)) == at(22)


def test_one_that_is_there_again_is_forgotten(endpoints: LastEndpoints) -> None:
    """Where nobody is without an endpoint nothing is kept."""
    follow(endpoints, dump({1: 10}))
    follow(endpoints, None, frozenset({key(1)}))
    follow(endpoints, None, frozenset({key(1)}))
    for _ in range(3):
        follow(endpoints, dump({1: None}, 5))
    assert endpoints.get(key(1)) is None


def test_ended_sessions_are_forgotten(endpoints: LastEndpoints) -> None:
    """Of a session that has ended nothing is returned any more, wherever it was kept."""
    follow(endpoints, dump({1: 10, 2: 20, 3: 30}))
    follow(endpoints, None, frozenset(map(key, (1, 2, 3))), 1)
    assert [endpoints.get(key(n)) for n in (1, 2, 3)] == [None, at(20), at(30)]
    follow(endpoints, None, frozenset(map(key, (2, 3))), 2)
    assert [endpoints.get(key(n)) for n in (1, 2, 3)] == [None, None, at(30)]
    follow(endpoints, dump({1: None}, 5), frozenset(map(key, (1, 3))))
    assert [endpoints.get(key(n)) for n in (1, 2, 3)] == [None, None, at(30)]


def test_ended_sessions_are_forgotten_however_many_follow(monkeypatch: pytest.MonkeyPatch) -> None:
    """What was kept of few is gone with the session, also where its key is away again among many."""
    endpoints, away = LastEndpoints(), frozenset({key(1)})
    follow(endpoints, dump({1: 10}))
    for _ in range(2):
        follow(endpoints, None, away)
    assert endpoints.get(key(1)) == at(10)
    follow(endpoints, None, away, 1)
    monkeypatch.setattr(last_endpoints, "MOST_KEPT", 0)
    for _ in range(2):
        follow(endpoints, None, away)
        assert endpoints.get(key(1)) is None


@pytest.mark.parametrize("most", [0, 3, 100])
def test_losses_on_losses(most: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever goes and comes back: who is without an endpoint has the last one that was seen, as a plain model has it,
    while as many dumps are kept as that takes."""
    monkeypatch.setattr(last_endpoints, "MOST_KEPT", most)
    monkeypatch.setattr(last_endpoints, "MOST_DUMPS", 50)
    chance = random.Random(most)  # noqa: S311 - a repeatable one is wanted
    endpoints, known, shown = LastEndpoints(), dict[int, int](), dict[int, int]()
    for look in range(400):
        if chance.random() < 0.1:
            shown = {}
        else:
            shown = {n: chance.randrange(1, 9) for n in range(10) if n in shown or chance.random() < 0.3}
            for number in chance.sample(sorted(shown), min(len(shown), chance.choice([0, 0, 0, 1, 5]))):
                del shown[number]
        without = frozenset(key(n) for n in range(10) if n not in shown)
        follow(endpoints, dump(dict(shown)), without)
        for number in range(10):
            if number not in shown:
                assert endpoints.get(key(number)) == (at(known[number]) if number in known else None), look
        known |= shown


def test_dumps_are_not_kept_longer_than_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of many that are away two dumps at most are kept, and none once nobody is."""
    monkeypatch.setattr(last_endpoints, "MOST_KEPT", 0)
    endpoints, alive = LastEndpoints(), weakref.WeakSet[Marked]()
    for look in range(6):
        # Half is shown, the other half is away; and the other way round.
        found = dump({n: look + 1 for n in range(10) if n % 2 == look % 2})
        marked = Marked(found.peers)
        alive.add(marked)
        follow(endpoints, Dump(4, bytes(32), 1, marked), frozenset(key(n) for n in range(10) if n % 2 != look % 2))
        del found, marked
        assert len(alive) <= last_endpoints.MOST_DUMPS + 2
    follow(endpoints, dump(dict.fromkeys(range(10), 1)))
    assert len(alive) == 0


class Marked(dict[bytes, PeerState]):
    """Peers of which it is seen when they are freed."""

    __hash__ = object.__hash__
