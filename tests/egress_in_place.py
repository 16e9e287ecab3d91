"""A host whose egress is as it should be."""

from __future__ import annotations

from appliance.egress.state import EgressState

IN_PLACE = EgressState(
    rules_stand=True,
    sysctls={"net/ipv4/conf/all/send_redirects": "0", "net/ipv4/ip_forward": "1", "net/ipv6/conf/all/forwarding": "1"},
)
