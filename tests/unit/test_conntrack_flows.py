"""Which of conntrack's flows are taken for a client's that no rule translated; those that the kernel keeps."""

from __future__ import annotations

import errno
import socket
import struct
from contextlib import contextmanager
from ipaddress import IPv4Network, IPv6Network, ip_address
from typing import TYPE_CHECKING

import pytest

from appliance.network.firewall import conntrack, conntrack_entries
from appliance.network.firewall.conntrack import Flow, leaves_untranslated, parse
from appliance.network.firewall.conntrack_entries import ConntrackEntry
from appliance.network.netlink import constants
from appliance.network.netlink.codec import NLMSG_HEADER, attribute, messages, nest

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from appliance.network.netlink.codec import Event

SUBNETS = [IPv4Network("10.101.0.0/24"), IPv6Network("fd65:7869:7400::/112")]
CLIENT, CLIENT6, EXIT, WEB, WEB6 = "10.101.0.2", "fd65:7869:7400::2", "203.0.113.1", "203.0.113.10", "2001:db8:2::10"
ANSWER_PORT = 51820
ZONE, ID = attribute(constants.CTA_ZONE, b"\0\7"), attribute(constants.CTA_ID, b"\1\2\3\4")


def addresses(kind: int, source: str, destination: str) -> bytes:
    """CTA_TUPLE_ORIG or CTA_TUPLE_REPLY, of UDP."""
    first = constants.CTA_IP_V6_SRC if ":" in source else constants.CTA_IP_V4_SRC
    ips = [attribute(first, ip_address(source).packed), attribute(first + 1, ip_address(destination).packed)]
    ports = [
        attribute(constants.CTA_PROTO_NUM, bytes([socket.IPPROTO_UDP])),
        attribute(constants.CTA_PROTO_SRC_PORT, b"\0\x35"),
        attribute(constants.CTA_PROTO_DST_PORT, ANSWER_PORT.to_bytes(2, "big")),
    ]
    return nest(kind, nest(constants.CTA_TUPLE_IP, *ips), nest(constants.CTA_TUPLE_PROTO, *ports))


def entry(source: str, destination: str, answer_to: str) -> bytes:
    family = socket.AF_INET6 if ":" in source else socket.AF_INET
    original = addresses(constants.CTA_TUPLE_ORIG, source, destination)
    reply = addresses(constants.CTA_TUPLE_REPLY, destination, answer_to)
    status = attribute(constants.CTA_STATUS, bytes(4))
    return bytes([family, 0, 0, 0]) + original + reply + status + ZONE + ID


@pytest.mark.parametrize(
    ("addresses", "flows_there", "all_are_read"),
    [
        pytest.param(2, 0, True, id="no flow"),
        pytest.param(2, 1_500, True, id="a quiet exit"),
        pytest.param(2, 1_600, False, id="a little more"),
        pytest.param(2, 100_000, False, id="a busy one"),
        pytest.param(1, 1_000, False, id="one address of a quiet one"),
        pytest.param(10, 10_000, True, id="some sessions"),
        pytest.param(20, 100_000, False, id="some sessions of a busy one"),
        pytest.param(50, 100_000, True, id="many sessions of a busy one"),
    ],
)
def test_how_they_are_looked_for(addresses: int, flows_there: int, all_are_read: bool) -> None:
    """All are read where that is quicker than one walk of the kernel's table for each end of each address."""
    assert conntrack.reading_all_is_quicker(addresses, flows_there, buckets=262_144) is all_are_read


@pytest.mark.parametrize("place", ["", "/dev/null"], ids=["not there", "hidden"])
def test_flows_are_deleted_though_the_table_size_is_unknown(
    place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the size of the table cannot be read, flows are forgotten all the same."""

    @contextmanager
    def conntrack_of_the_test() -> Iterator[Kernel]:
        yield Kernel([0])

    monkeypatch.setattr(conntrack, "_SYSCTLS", tmp_path / place)
    monkeypatch.setattr(conntrack, "_conntrack", conntrack_of_the_test)
    assert conntrack.forget_of([ip_address(CLIENT)]) == 1


@pytest.mark.parametrize(
    ("source", "destination", "answer_to", "untranslated"),
    [
        pytest.param(CLIENT, WEB, CLIENT, True, id="a client's own address"),
        pytest.param(CLIENT6, WEB6, CLIENT6, True, id="over IPv6"),
        pytest.param(CLIENT, WEB, EXIT, False, id="the exit's address"),
        pytest.param(CLIENT, "10.101.0.1", CLIENT, False, id="to the exit itself"),
        pytest.param(EXIT, WEB, EXIT, False, id="of the host"),
        pytest.param("10.101.1.2", WEB, "10.101.1.2", False, id="of another network"),
    ],
)
def test_a_flow_answered_to_the_client_address_is_untranslated(
    source: str, destination: str, answer_to: str, untranslated: bool
) -> None:
    """A client's flow to the internet whose answers would go to the client's own address."""
    flow = parse(entry(source, destination, answer_to))
    assert flow is not None
    assert leaves_untranslated(flow, SUBNETS) is untranslated


def test_a_flow_is_named_by_its_original_tuple_zone_and_id() -> None:
    """A flow is named by its original addresses and ports, its zone and its id, as the kernel said them."""
    message = entry(CLIENT, WEB, CLIENT)
    name = addresses(constants.CTA_TUPLE_ORIG, CLIENT, WEB) + ZONE + ID
    answered_at = socket.IPPROTO_UDP, ANSWER_PORT
    ends = ip_address(CLIENT), ip_address(WEB), ip_address(CLIENT)
    assert parse(message) == Flow(socket.AF_INET, *ends, name, answered_at, ANSWER_PORT)


def test_a_truncated_message_is_no_flow_and_no_error() -> None:
    """A message that ends too early, or has no addresses, is no flow and no error."""
    whole = entry(CLIENT, WEB, CLIENT)
    needed = len(whole) - len(attribute(constants.CTA_STATUS, bytes(4)) + ZONE + ID)
    for length in range(len(whole) + 1):
        assert (parse(whole[:length]) is None) == (length < needed)


class Kernel:
    """Lists one flow for each of these errnos, and answers with it to who wants the flow deleted."""

    def __init__(self, answers: Sequence[int]) -> None:
        self._listing = [message(0, entry(CLIENT, WEB, CLIENT)) for _ in answers]
        self._listing.append(message(constants.NLMSG_DONE, bytes(4)))
        self._answers = list(answers)
        self._next: list[bytes] = []

    def sendto(self, sent: bytes, _: tuple[int, int]) -> None:
        requests = list(messages(sent))
        if requests[0].kind & 0xFF == constants.IPCTNL_MSG_CT_DELETE:
            self._next = [answer for request in requests for answer in self._answer(request)]
        else:
            self._next = self._listing

    def _answer(self, request: Event) -> list[bytes]:
        """As the kernel does: to what it refuses, and where an answer is asked for."""
        code = self._answers.pop(0)
        asked = request.flags & constants.NLM_F_ACK
        return [message(constants.NLMSG_ERROR, struct.pack("=i", -code), request.sequence)] if code or asked else []

    def recv(self, _: int) -> bytes:
        return b"".join(self._next)

    def unanswered(self) -> int:
        return len(self._answers)


def message(kind: int, payload: bytes, sequence: int = 0) -> bytes:
    return NLMSG_HEADER.pack(NLMSG_HEADER.size + len(payload), kind, 0, sequence, 0) + payload


def test_kept_by_the_kernel(monkeypatch: pytest.MonkeyPatch) -> None:
    """A flow that cannot be deleted keeps no other from it; at the end the error says how many there are."""
    kernel = Kernel([0, errno.EBUSY, errno.ENOENT, errno.EBUSY, 0])

    @contextmanager
    def conntrack_of_the_test() -> Iterator[Kernel]:
        yield kernel

    monkeypatch.setattr(conntrack, "_conntrack", conntrack_of_the_test)
    with pytest.raises(OSError, match="2 of 5 connections are kept: Device or resource busy"):
        conntrack.forget_untranslated(SUBNETS)
    assert kernel.unanswered() == 0


@pytest.mark.parametrize("zone", [b"", ZONE], ids=["no zone", "a zone"])
@pytest.mark.parametrize("ends", [(CLIENT, WEB), (CLIENT6, WEB6)], ids=["IPv4", "IPv6"])
def test_an_entry_is_read_alike_by_place_and_by_attribute(ends: tuple[str, str], zone: bytes) -> None:
    """An entry with its attributes in another order than the kernel's, or with one more between, is the same one."""
    family = socket.AF_INET6 if ":" in ends[0] else socket.AF_INET
    original = addresses(constants.CTA_TUPLE_ORIG, *ends)
    reply = addresses(constants.CTA_TUPLE_REPLY, ends[1], EXIT if family == socket.AF_INET else ends[1])
    status = attribute(constants.CTA_STATUS, bytes(4))
    expected = ConntrackEntry(family, *(ip_address(end).packed for end in ends), original + zone)
    for parts in (
        (original, reply, zone, status, ID),
        (original, status, reply, zone, ID),
        (status, zone, reply, original),
    ):
        payload = bytes([family, 0, 0, 0]) + b"".join(parts)
        assert conntrack_entries.read(message(0, payload) * 2) == ([expected, expected], False)


def test_a_listing_cut_short_is_no_error() -> None:
    """A datagram that ends too early has the entries before, whatever is cut off."""
    whole = message(0, entry(CLIENT, WEB, CLIENT))
    for length in range(len(whole) + 1):
        found, ended = conntrack_entries.read(whole + whole[:length])
        assert len(found) in (1, 2)
        assert not ended


@pytest.mark.parametrize(
    ("address", "inside"),
    [
        *((CLIENT, True), ("10.101.0.0", True), ("10.101.0.255", True), ("10.101.1.0", False), (CLIENT6, True)),
        *((WEB6, False), ("fd65:7869:7400::1:0", False), ("0.0.0.0", False), ("::", False)),  # noqa: S104
    ],
)
def test_an_address_is_in_a_subnet_or_not(address: str, inside: bool) -> None:
    """As the address objects have it."""
    assert conntrack.is_inside(ip_address(address).packed, SUBNETS) is inside
