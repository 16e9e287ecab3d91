"""What is changed for each difference between the tunnel and what it should be."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from msgspec import structs

from appliance.network.firewall.state import EgressChanges, EgressState
from appliance.network.reconcile import Actual, Changes, Desired, PeerChanges, reconcile
from appliance.network.wireguard.tunnel import (
    DeviceChange,
    Dump,
    Link,
    LinkChange,
    Peer,
    PeerState,
    Prefix,
    PutPeer,
    RemovePeer,
    SocketAddress,
)
from tests.support.egress_in_place import IN_PLACE

if TYPE_CHECKING:
    from collections.abc import Mapping

A, B, C = (bytes([n]) * 32 for n in (1, 2, 3))
PRIVATE, PUBLIC = b"\x70" * 32, b"\x71" * 32
IP1, IP2, IP3 = (Prefix(bytes([10, 9, 0, n]), 32) for n in (1, 2, 3))
ADDRESS, ADDRESS6 = Prefix(bytes([10, 9, 0, 1]), 24), Prefix(bytes([0xFD, *[0] * 14, 1]), 112)


def peer(key: bytes, *allowed_ips: Prefix) -> Peer:
    return Peer(key, frozenset(allowed_ips))


def state(key: bytes, *allowed_ips: Prefix) -> PeerState:
    return PeerState(key, frozenset(allowed_ips), rx_bytes=5, tx_bytes=6, last_handshake_ns=7)


def dump(*peers: PeerState, public_key: bytes = PUBLIC, listen_port: int = 51820) -> Dump:
    return Dump(4, public_key, listen_port, {each.public_key: each for each in peers})


def desired(*peers: Peer) -> Desired:
    return Desired(
        interface="wga0",
        ipv6=True,
        public_key=PUBLIC,
        private_key=PRIVATE,
        listen_port=51820,
        mtu=1420,
        addresses=frozenset({ADDRESS, ADDRESS6}),
        peers={each.public_key: each for each in peers},
        keepalive_s=25,
    )


FORWARDING = IN_PLACE.forwarding


def with_sysctls(values: Mapping[str, str]) -> EgressState:
    """In place but for these values."""
    return replace(IN_PLACE, forwarding=replace(FORWARDING, values=values))


def read(link: Link | None, found: Dump | None, egress: EgressState = IN_PLACE) -> Actual:
    return Actual(egress, link, found)


LINK = Link(
    ifindex=4,
    up=True,
    mtu=1420,
    addresses=frozenset({ADDRESS, ADDRESS6}),
    forwards=True,
    routes=frozenset({ADDRESS.network, ADDRESS6.network}),
)


def test_nothing_is_changed_where_all_is_as_desired() -> None:
    """Where all is as it should be nothing is changed, and the changes are false."""
    changes = reconcile(desired(peer(A, IP1)), read(LINK, dump(state(A, IP1))))
    assert changes == Changes()
    assert not changes


def test_everything_is_made_where_there_is_no_interface() -> None:
    """With no interface everything is made, from zero."""
    wanted = desired(peer(B, IP2), peer(A, IP1))
    changes = reconcile(wanted, read(None, None))
    assert changes == Changes(
        None,
        LinkChange(create=True, mtu=1420, add_addresses=frozenset({ADDRESS, ADDRESS6}), up=True, forward=True),
        DeviceChange(PRIVATE, 51820),
        PeerChanges(put=[B, A], fresh={A, B}, desired=wanted.peers),
    )
    assert [*changes.peers] == [PutPeer(peer(B, IP2), fresh=True), PutPeer(peer(A, IP1), fresh=True)]
    assert changes


def test_dump_of_an_earlier_interface() -> None:
    """A dump says nothing about an interface that is gone."""
    wanted = desired(peer(A, IP1))
    assert reconcile(wanted, read(None, dump(state(A, IP1)))) == reconcile(wanted, read(None, None))


@pytest.mark.parametrize(
    ("link", "expected"),
    [
        (replace(LINK, up=False), LinkChange(up=True)),
        (replace(LINK, mtu=1400), LinkChange(mtu=1420)),
        (replace(LINK, forwards=False), LinkChange(forward=True)),
        (replace(LINK, routes=frozenset({ADDRESS6.network})), LinkChange(add_routes=frozenset({ADDRESS}))),
        # The kernel adds routes with the addresses, and when the interface comes up.
        (
            replace(LINK, addresses=frozenset({ADDRESS}), routes=frozenset({ADDRESS.network})),
            LinkChange(add_addresses=frozenset({ADDRESS6})),
        ),
        (replace(LINK, up=False, routes=frozenset()), LinkChange(up=True)),
        (replace(LINK, addresses=frozenset({ADDRESS})), LinkChange(add_addresses=frozenset({ADDRESS6}))),
        (replace(LINK, addresses=LINK.addresses | {IP3}), LinkChange(remove_addresses=frozenset({IP3}))),
        (
            # The same address with another prefix length is another address.
            replace(LINK, addresses=frozenset({IP1, ADDRESS6})),
            LinkChange(remove_addresses=frozenset({IP1}), add_addresses=frozenset({ADDRESS})),
        ),
    ],
)
def test_only_what_differs_on_the_interface_is_changed(link: Link, expected: LinkChange) -> None:
    """Only what differs on the interface is changed."""
    assert reconcile(desired(), read(link, dump())) == Changes(link=expected)


@pytest.mark.parametrize(
    ("shown", "expected"),
    [
        (dump(public_key=bytes(32)), DeviceChange(private_key=PRIVATE)),
        (dump(public_key=A), DeviceChange(private_key=PRIVATE)),
        (dump(listen_port=0), DeviceChange(listen_port=51820)),
        (dump(public_key=A, listen_port=1), DeviceChange(PRIVATE, 51820)),
    ],
)
def test_key_and_port_are_set_when_they_differ(shown: Dump, expected: DeviceChange) -> None:
    """Key and port are set when they differ; the key is known by its public half."""
    assert reconcile(desired(), read(LINK, shown)) == Changes(device=expected)


@pytest.mark.parametrize(
    ("wanted", "actual", "expected"),
    [
        pytest.param([peer(A, IP1)], [], [PutPeer(peer(A, IP1), fresh=True)], id="missing: put from zero"),
        pytest.param([], [state(A, IP1)], [RemovePeer(A)], id="foreign: removed"),
        pytest.param([peer(A, IP1)], [state(A, IP2)], [PutPeer(peer(A, IP1))], id="other address: counters stay"),
        pytest.param([peer(A, IP1)], [state(A, IP1, IP2)], [PutPeer(peer(A, IP1))], id="one too many"),
        pytest.param([peer(A, IP1, IP2)], [state(A, IP1)], [PutPeer(peer(A, IP1, IP2))], id="one too few"),
        pytest.param([peer(A)], [state(A, IP1)], [PutPeer(peer(A))], id="none wanted"),
        pytest.param([peer(A, IP1)], [state(A)], [PutPeer(peer(A, IP1))], id="none there"),
        pytest.param(
            [peer(A, IP1)],
            [state(C, IP1)],
            [RemovePeer(C), PutPeer(peer(A, IP1), fresh=True)],
            id="an address passes on: first taken, then given",
        ),
        pytest.param(
            [peer(B, IP1), peer(A, IP2), peer(C, IP3)],
            [state(A, IP1), state(B, IP2), state(C, IP3)],
            [PutPeer(peer(A, IP2)), PutPeer(peer(B, IP1))],
            id="two swapped, one untouched",
        ),
    ],
)
def test_only_peers_that_differ_are_changed_removals_first(
    wanted: list[Peer], actual: list[PeerState], expected: list[PutPeer | RemovePeer]
) -> None:
    """Only the peers that differ are changed, removals first."""
    changes = reconcile(desired(*wanted), read(LINK, dump(*actual)))
    assert [*changes.peers] == expected
    assert len(changes.peers) == len(expected)
    assert replace(changes, peers=PeerChanges()) == Changes()


HOME = SocketAddress(bytes([192, 0, 2, 7]), 4711)


def seen(keepalive_s: int = 0, endpoint: SocketAddress | None = None, *, shook: bool = False) -> PeerState:
    """A's peer."""
    return PeerState(A, frozenset({IP1}), 5, 6, 7 if shook else 0, endpoint, keepalive_s)


def called(times: int, keepalive_s: int = 25) -> PeerState:
    """A's peer that is put back."""
    return structs.replace(seen(keepalive_s, HOME), tx_bytes=times * 148)


@pytest.mark.parametrize(
    ("remembered", "actual", "expected"),
    [
        pytest.param(HOME, [], [PutPeer(peer(A, IP1), True, HOME, 25)], id="missing: the exit begins"),
        pytest.param(None, [], [PutPeer(peer(A, IP1), fresh=True)], id="missing and never seen"),
        pytest.param(HOME, [seen(25, HOME)], [], id="put back, and has not shaken hands"),
        pytest.param(HOME, [seen(25, HOME, shook=True)], [PutPeer(peer(A, IP1), keepalive_s=0)], id="has shaken hands"),
        pytest.param(HOME, [seen(0, HOME, shook=True)], [], id="connected"),
        pytest.param(HOME, [called(35)], [], id="does not answer yet"),
        pytest.param(HOME, [called(36)], [PutPeer(peer(A, IP1), keepalive_s=0)], id="does not answer"),
        pytest.param(HOME, [called(36, keepalive_s=0)], [], id="did not answer"),
        pytest.param(None, [seen()], [], id="new"),
        pytest.param(None, [seen(0, HOME)], [], id="new, in the middle of its handshake"),
        pytest.param(HOME, [seen()], [PutPeer(peer(A, IP1), False, HOME, 25)], id="added again by another program"),
        pytest.param(None, [seen(7)], [PutPeer(peer(A, IP1), keepalive_s=0)], id="a stranger's keepalive"),
        pytest.param(None, [seen(7, HOME)], [PutPeer(peer(A, IP1), keepalive_s=25)], id="of one that is put back"),
        pytest.param(None, [seen(7, HOME, shook=True)], [PutPeer(peer(A, IP1), keepalive_s=0)], id="of one connected"),
    ],
)
def test_a_peer_that_is_put_back_begins(
    remembered: SocketAddress | None, actual: list[PeerState], expected: list[PutPeer]
) -> None:
    """A peer is put back where it was last seen, with a keepalive that goes with its handshake, or with time; others
    have none."""
    endpoints = {} if remembered is None else {A: remembered}
    found = replace(read(LINK, dump(*actual)), endpoints=endpoints)
    changes = reconcile(desired(peer(A, IP1)), found)
    assert [*changes.peers] == expected
    assert changes.peers.settled == ({A} if actual in ([seen(25, HOME, shook=True)], [called(36)]) else set())


def test_of_all_that_are_missing_each_begins_where_it_was_seen() -> None:
    """With no interface too, where there is no set of those that are missing."""
    found = replace(read(None, None), endpoints={A: HOME})
    changes = reconcile(desired(peer(A, IP1), peer(B, IP2)), found)
    assert [*changes.peers] == [PutPeer(peer(A, IP1), True, HOME, 25), PutPeer(peer(B, IP2), True)]


@pytest.mark.parametrize(
    ("egress", "expected"),
    [
        pytest.param(replace(IN_PLACE, rules_stand=False), EgressChanges(rules=True), id="somebody changed the rules"),
        pytest.param(
            replace(IN_PLACE, rules_stand=False, declared=True),
            EgressChanges(rules=True, declared=True),
            id="new rules",
        ),
        pytest.param(replace(IN_PLACE, declared=True), None, id="new rules that stand"),
        pytest.param(
            replace(IN_PLACE, others_seen=False), EgressChanges(others=True), id="somebody changed other rules"
        ),
        pytest.param(
            with_sysctls(FORWARDING.values | {"net/ipv4/conf/eth0/forwarding": "0"}),
            EgressChanges(sysctls={"net/ipv4/conf/eth0/forwarding": "1"}),
            id="somebody switched forwarding off",
        ),
        pytest.param(
            with_sysctls(FORWARDING.values | {"net/ipv6/conf/eth0/accept_ra": "1"}),
            EgressChanges(sysctls={"net/ipv6/conf/eth0/accept_ra": "2"}),
            id="an interface that would go deaf",
        ),
        pytest.param(
            with_sysctls({}),
            EgressChanges(
                sysctls={
                    "net/ipv4/conf/all/send_redirects": "0",
                    "net/ipv6/conf/all/forwarding": "1",
                }
            ),
            id="sysctls that could not be read",
        ),
    ],
)
def test_rules_and_sysctls_are_set_when_they_differ(egress: EgressState, expected: EgressChanges) -> None:
    """The rules and the sysctls that differ are set, and nothing of the tunnel is touched for it."""
    assert reconcile(desired(), read(LINK, dump(), egress)) == Changes(egress=expected)


def test_private_key_is_not_shown() -> None:
    """Neither what is desired nor what is changed prints the private key."""
    for shown in (desired(), reconcile(desired(), read(None, None))):
        assert repr(PRIVATE) not in repr(shown)
        assert PRIVATE.hex() not in repr(shown)
