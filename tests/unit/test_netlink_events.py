"""What is made of the kernel's multicast messages."""

from __future__ import annotations

import asyncio
import os
import socket
import struct
from ipaddress import ip_network

import pytest

from appliance.network.firewall.nft_events import table_events
from appliance.network.firewall.sysctl_events import forwarding_events
from appliance.network.host_events import host_events
from appliance.network.netlink import constants
from appliance.network.netlink.codec import Event, messages, text_attribute
from appliance.network.netlink.events import NetlinkEvents
from appliance.server.watchers import EventsWatch
from appliance.sessions.wakeup import Wakeup

OUR_PORT, OTHER_PORT = 4711, 4712
BY_ROUTER = 186  # RTPROT_BGP
NEWRULE = constants.NFNL_SUBSYS_NFTABLES << 8 | 6
DELRULE = NEWRULE + 2
NEWSETELEM = NEWRULE + 6
NETCONFA_PROXY_NEIGH = 5  # linux/netconf.h


def message(kind: int, port: int, payload: bytes) -> bytes:
    return struct.pack("=IHHII", 16 + len(payload), kind, 0, 1, port) + payload + bytes(-len(payload) % 4)


def attribute(kind: int, value: bytes) -> bytes:
    return struct.pack("=HH", 4 + len(value), kind) + value + bytes(-len(value) % 4)


def test_every_whole_message_of_a_datagram_is_read() -> None:
    """Every message of a datagram, padding left out; what is cut short ends it."""
    data = message(3, 7, b"abcde") + message(4, 0, b"")
    assert list(messages(data)) == [Event(3, 7, b"abcde", sequence=1), Event(4, 0, b"", sequence=1)]
    assert list(messages(data[:-16] + bytes(16))) == [Event(3, 7, b"abcde", sequence=1)]
    assert list(messages(b"\x01")) == []


@pytest.mark.parametrize("cut", range(12))
def test_an_attribute_of_wrong_length_is_nothing(cut: int) -> None:
    """The text behind the header; nothing where it is not there or where its length makes no sense."""
    payload = bytes(4) + attribute(2, b"x\0") + attribute(1, b"name\0")
    assert text_attribute(payload, 4, 1) == "name"
    assert text_attribute(payload[: len(payload) - 16 + cut], 4, 3) == ""
    assert text_attribute(bytes(4) + struct.pack("=HH", 2, 1), 4, 1) == ""


@pytest.mark.parametrize(
    ("family", "table", "port", "counts"),
    [
        pytest.param(1, b"wg_appliance\0", OTHER_PORT, True, id="somebody else's change"),
        pytest.param(1, b"wg_appliance\0", OUR_PORT, False, id="our own"),
        pytest.param(1, b"wg_appliance2\0", OTHER_PORT, False, id="another table"),
        pytest.param(2, b"wg_appliance\0", OTHER_PORT, False, id="of another family"),
    ],
)
@pytest.mark.skipif(os.geteuid() != 0, reason="NOT TESTED: the firewall's events need root")
def test_only_changes_of_our_table_by_others_wake_the_watcher(
    family: int, table: bytes, port: int, counts: bool
) -> None:
    """Only what another process changes in our own table is to wake anybody."""
    payload = bytes([family, 0, 0, 0]) + attribute(1, table)
    with table_events(lambda: "wg_appliance", lambda by: by != OUR_PORT, lambda _: None, lambda: None) as events:
        assert events.concerns(Event(NEWRULE, port, payload)) is counts
        assert events.concerns(Event(16, port, payload)) is False


@pytest.mark.parametrize(
    ("family", "table", "kind", "told"),
    [
        pytest.param(1, b"firewalld\0", NEWRULE, True, id="a rule"),
        pytest.param(2, b"filter\0", NEWRULE, True, id="iptables"),
        pytest.param(2, b"filter\0", DELRULE, True, id="a rule deleted"),
        pytest.param(2, b"filter\0", NEWSETELEM, False, id="an element of a set"),
        pytest.param(7, b"bridge\0", NEWRULE, False, id="of another family"),
        pytest.param(1, b"wg_appliance\0", NEWRULE, False, id="our own table"),
    ],
)
@pytest.mark.skipif(os.geteuid() != 0, reason="NOT TESTED: the firewall's events need root")
def test_changes_of_other_tables_wake_no_watcher(family: int, table: bytes, kind: int, told: bool) -> None:
    """Of chains and rules in the tables of others it is told, and nobody is woken."""
    payload, changes = bytes([family, 0, 0, 0]) + attribute(1, table), list[int]()
    with table_events(lambda: "wg_appliance", lambda _: False, changes.append, lambda: None) as events:
        assert events.concerns(Event(kind, OTHER_PORT, payload)) is False
    assert changes == ([OTHER_PORT] if told else [])


@pytest.mark.parametrize(
    ("ifindex", "what", "counts"),
    [
        pytest.param(constants.NETCONFA_IFINDEX_ALL, constants.NETCONFA_FORWARDING, True, id="the host's forwarding"),
        pytest.param(7, constants.NETCONFA_FORWARDING, True, id="one interface's"),
        pytest.param(7, NETCONFA_PROXY_NEIGH, False, id="its proxy of neighbours"),
        pytest.param(constants.NETCONFA_IFINDEX_ALL, constants.NETCONFA_RP_FILTER, True, id="the host's rp_filter"),
    ],
)
def test_forwarding_and_its_filter_count(ifindex: int, what: int, counts: bool) -> None:
    """Only that forwarding or rp_filter was set counts, for the whole host or for one interface."""
    payload = bytes([socket.AF_INET, 0, 0, 0])
    payload += attribute(constants.NETCONFA_IFINDEX, struct.pack("=i", ifindex)) + attribute(what, bytes(4))
    with forwarding_events() as events:
        assert events.concerns(Event(constants.RTM_NEWNETCONF, 0, payload)) is counts
        assert events.concerns(Event(constants.RTM_NEWADDR, 0, payload)) is False


def route(length: int, protocol: int, out: int, to: str = "192.0.2.0") -> Event:
    """An event of an added IPv4 route (linux/rtnetlink.h, struct rtmsg)."""
    header = struct.pack("=BBBBBBBBI", socket.AF_INET, length, 0, 0, 254, protocol, 0, 1, 0)
    numbers = attribute(constants.RTA_DST, socket.inet_aton(to)) + attribute(constants.RTA_OIF, struct.pack("=I", out))
    return Event(constants.RTM_NEWROUTE, 0, header + numbers)


@pytest.mark.parametrize(
    ("event", "counts"),
    [
        pytest.param(route(24, constants.RTPROT_KERNEL, 7), True, id="an address's own route, which follows it"),
        pytest.param(route(0, BY_ROUTER, 7), True, id="a default route"),
        pytest.param(route(1, BY_ROUTER, 7), True, id="half of one"),
        pytest.param(route(24, BY_ROUTER, 7), False, id="one of a router's many"),
        pytest.param(route(32, BY_ROUTER, 7, "10.101.0.9"), True, id="one into the clients' network"),
        pytest.param(route(24, BY_ROUTER, socket.if_nametoindex("lo")), True, id="one by the interface"),
        pytest.param(Event(constants.RTM_NEWRULE, 0, b""), True, id="a policy rule"),
        pytest.param(Event(constants.RTM_NEWROUTE, 0, b"\x02"), False, id="one that is cut short"),
    ],
)
def test_only_routes_that_the_exit_rests_on_count(event: Event, counts: bool) -> None:
    """A router changes thousands of routes a second: those of others are not asked about."""
    changes: list[bool] = []
    with host_events("lo", lambda: changes.append(True), [ip_network("10.101.0.0/24")]) as events:
        assert events.concerns(event) is counts
    assert len(changes) == counts


class Scripted(NetlinkEvents):
    """Events of a test."""

    def __init__(self, script: list[Exception | None], lost: list[int]) -> None:
        super().__init__(socket.NETLINK_ROUTE, 0, lambda _: True, lambda: lost.append(1))
        self.script = script

    async def happened(self) -> None:
        await asyncio.sleep(0)
        if not self.script:
            await asyncio.Event().wait()
        outcome = self.script.pop(0)
        if outcome is not None:
            raise outcome


def test_a_failed_watch_is_opened_anew_and_counts_as_a_change() -> None:
    """Each event rings; a watch that failed is opened anew, and what was missed meanwhile counts as a change."""
    lost: list[int] = []

    async def story() -> None:
        wakeup, stopping = Wakeup(), asyncio.Event()
        watch = EventsWatch(lambda: Scripted([None, OSError("gone")], lost), wakeup, stopping)
        running = asyncio.create_task(watch.run())
        assert await wakeup.wait(lambda: 10)
        with pytest.raises(OSError, match="gone"):
            await running
        assert lost == [1]
        assert await wakeup.wait(lambda: 10)
        again = asyncio.create_task(watch.run())
        assert await wakeup.wait(lambda: 10)
        stopping.set()
        await asyncio.gather(again, return_exceptions=True)
        watch.close()

    asyncio.run(story())
