"""What lists are made of quickly: the same text as the plain ways make."""

from __future__ import annotations

from ipaddress import IPv4Network, IPv6Network

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from appliance.cli.session_fields import addresses
from appliance.client.terminal import printable


@pytest.mark.parametrize(
    "subnet", [IPv4Network("10.0.0.0/16"), IPv6Network("fd65:7869:7400::/112"), IPv6Network("2001:db8:0:1::/64")]
)
@settings(deadline=None)
@given(st.data())
def test_addresses_are_written_as_ipaddress_writes_them(subnet: IPv4Network | IPv6Network, data: st.DataObject) -> None:
    """Also where zeros are left out; outside of the subnet there is none."""
    most = subnet.num_addresses - 1
    offset = data.draw(st.integers(0, most) | st.sampled_from([0, 1, 255, 256, most]))
    assert addresses(subnet)(offset) == str(subnet[offset])
    assert addresses(subnet)(most + 1 + offset) is None


@settings(deadline=None)
@given(st.text(), st.sampled_from(["utf-8", "ascii", "latin-1", "utf-16", "cp1252", None]))
def test_printable_text_is_printed_as_it_is(text: str, encoding: str | None) -> None:
    """What is printable ASCII stays, in every encoding; what is printed is printable and can be encoded."""
    found = printable(text, encoding)
    assert found.isprintable()
    found.encode(encoding or "utf-8")
    if text.isascii() and text.isprintable():
        assert found == text
