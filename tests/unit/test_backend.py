"""Which backend is taken on which host, and what an operator reads where there is none."""

from __future__ import annotations

from dataclasses import replace

import pytest

from appliance.domain.errors import HostError
from appliance.network.wireguard.backend import Backend, HostFacts, Setting, decide

BOTH = HostFacts(net_admin=True, kernel_module=True, wireguard_go=True, tun_device=True, interface_kind=None)
USERSPACE_ONLY = replace(BOTH, kernel_module=False)
KERNEL_ONLY = replace(BOTH, wireguard_go=False, tun_device=False)
NEITHER = replace(USERSPACE_ONLY, wireguard_go=False)
# As the service sees a host on which a unit runs wireguard-go: it may execute no such program, and sees no such device.
UNIT = replace(NEITHER, unit="wg-appliance-tunnel.service", interface_kind="tun")


@pytest.mark.parametrize(
    ("setting", "host", "expected"),
    [
        ("auto", BOTH, "kernel"),
        ("kernel", BOTH, "kernel"),
        ("userspace", BOTH, "userspace"),
        ("auto", KERNEL_ONLY, "kernel"),
        ("auto", USERSPACE_ONLY, "userspace"),
        ("userspace", USERSPACE_ONLY, "userspace"),
        ("auto", replace(BOTH, interface_kind="wireguard"), "kernel"),
        ("auto", replace(USERSPACE_ONLY, interface_kind="tun"), "userspace"),
        ("auto", UNIT, "userspace"),
        ("userspace", UNIT, "userspace"),
        ("auto", replace(UNIT, kernel_module=True), "userspace"),
        ("kernel", replace(UNIT, kernel_module=True, interface_kind=None), "kernel"),
    ],
)
def test_the_kernel_is_chosen_where_it_can_and_wireguard_go_else(
    setting: Setting, host: HostFacts, expected: Backend
) -> None:
    """The kernel where it can, wireguard-go else, and always with a reason."""
    backend, reason = decide(setting, host, "wga0")
    assert backend == expected
    assert reason


@pytest.mark.parametrize(
    ("setting", "host", "says"),
    [
        ("auto", NEITHER, "no WireGuard: the kernel has no wireguard module and wireguard-go is not installed; "
                          "apt-get install wireguard-go"),
        ("kernel", USERSPACE_ONLY, "wireguard.backend is kernel"),
        ("userspace", KERNEL_ONLY, "apt-get install wireguard-go"),
        ("auto", replace(USERSPACE_ONLY, tun_device=False), "/dev/net/tun"),
        ("auto", replace(BOTH, net_admin=False), "root or CAP_NET_ADMIN"),
        ("auto", replace(NEITHER, net_admin=False), "root or CAP_NET_ADMIN"),
        ("auto", replace(BOTH, interface_kind="tun"), "wga0"),
        ("userspace", replace(BOTH, interface_kind="wireguard"), "wga0"),
        ("auto", replace(BOTH, interface_kind=""), "wga0"),
        ("kernel", replace(UNIT, kernel_module=True), "wga0"),
    ],
)  # fmt: skip
def test_a_missing_backend_is_named_in_one_line(setting: Setting, host: HostFacts, says: str) -> None:
    """What is missing or in the way is named in one line."""
    with pytest.raises(HostError) as refused:
        decide(setting, host, "wga0")
    assert says in str(refused.value)
    assert "\n" not in str(refused.value)
