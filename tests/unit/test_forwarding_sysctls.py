"""The forwarding sysctls, over a tree like /proc/sys."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from appliance.domain.errors import EgressError
from appliance.network.firewall.state import EgressState, reconcile
from appliance.network.firewall.sysctls import Forwarding

if TYPE_CHECKING:
    from pathlib import Path

V4, V6 = "net/ipv4/ip_forward", "net/ipv6/conf/all/forwarding"
REDIRECTS = "net/ipv4/conf/all/send_redirects"


class Sysctls:
    """A host's sysctls, in files."""

    def __init__(self, folder: Path) -> None:
        self.root = folder / "sys"
        self.record = folder / "sysctls.json"
        for name, value in {V4: "0", V6: "0", REDIRECTS: "0"}.items():
            self[name] = value
        for interface, value in {"all": "1", "default": "1", "lo": "1", "eth0": "1", "eth1": "0", "wga0": "1"}.items():
            self[f"net/ipv6/conf/{interface}/accept_ra"] = value

    def __setitem__(self, name: str, value: str) -> None:
        (self.root / name).parent.mkdir(parents=True, exist_ok=True)
        (self.root / name).write_text(f"{value}\n", encoding="ascii")

    def all(self) -> dict[str, str]:
        files = (file for file in self.root.rglob("*") if file.is_file())
        return {str(file.relative_to(self.root)): file.read_text(encoding="ascii").strip() for file in files}

    def forwarding(self) -> Forwarding:
        return Forwarding(self.root, self.record, "boot")

    def ensure(self, *, ipv6: bool = True) -> None:
        """Set what differs, as a tick does."""
        forwarding = self.forwarding()
        changes = reconcile(EgressState(True, forwarding.read()), interface="wga0", ipv6=ipv6)
        if changes is not None:
            forwarding.set(changes.sysctls)


@pytest.fixture
def host(tmp_path: Path) -> Sysctls:
    return Sysctls(tmp_path)


def changed(host: Sysctls, before: dict[str, str]) -> dict[str, str]:
    return {name: value for name, value in host.all().items() if before.get(name) != value}


def test_both_families_forward_and_accept_ra_stays_in_effect(host: Sysctls) -> None:
    """Both forward; interfaces that get their routes by advertisements keep getting them (accept_ra 2)."""
    before = host.all()
    host.ensure()
    assert changed(host, before) == {
        V4: "1",
        V6: "1",
        "net/ipv6/conf/default/accept_ra": "2",
        "net/ipv6/conf/eth0/accept_ra": "2",
    }


def test_ipv6_is_not_touched_without_ipv6_in_the_tunnel(host: Sysctls) -> None:
    """Without IPv6 in the tunnel IPv6 is not touched."""
    before = host.all()
    host.ensure(ipv6=False)
    assert changed(host, before) == {V4: "1"}


def test_send_redirects_is_cleared_first_and_put_back(host: Sysctls) -> None:
    """What the kernel's WireGuard clears by itself is cleared here first, so that it is known and put back."""
    host[REDIRECTS] = "1"
    host.ensure(ipv6=False)
    assert host.all()[REDIRECTS] == "0"
    host.forwarding().restore()
    assert host.all()[REDIRECTS] == "1"


def test_a_host_that_forwards_already_is_not_written_to(host: Sysctls) -> None:
    """A host that forwards already is not written to, and nothing is put back later."""
    host[V4] = "1"
    host.ensure(ipv6=False)
    assert not host.record.exists()
    host.forwarding().restore()
    assert host.all()[V4] == "1"


def test_all_is_put_back_also_after_a_restart(host: Sysctls) -> None:
    """All is as it was found, also after a restart in between; an interface that went is no fault."""
    before = host.all()
    host.ensure()
    host[V4] = "0"  # somebody else switches it off
    host.ensure()
    assert host.all()[V4] == "1"
    (host.root / "net/ipv6/conf/eth0/accept_ra").unlink()
    host.forwarding().restore()
    del before["net/ipv6/conf/eth0/accept_ra"]
    assert host.all() == before
    assert not host.record.exists()


def test_interface_that_comes_later(host: Sysctls) -> None:
    """One that appears later is treated alike, and put back too."""
    host.ensure()
    host["net/ipv6/conf/eth2/accept_ra"] = "1"
    host.ensure()
    assert host.all()["net/ipv6/conf/eth2/accept_ra"] == "2"
    host.forwarding().restore()
    assert host.all()["net/ipv6/conf/eth2/accept_ra"] == "1"


def test_record_of_another_boot(host: Sysctls) -> None:
    """What was found before a reboot says nothing about the values now."""
    host.record.write_text(json.dumps({"boot_id": "before", "values": {V4: "1"}}), encoding="utf-8")
    host.ensure(ipv6=False)
    host.forwarding().restore()
    assert host.all()[V4] == "0"


def test_record_that_names_others(host: Sysctls, tmp_path: Path) -> None:
    """Root puts back what the service's user has noted: nothing but what the appliance itself sets."""
    elsewhere = tmp_path / "elsewhere"
    elsewhere.write_text("kept", encoding="ascii")
    host["kernel/core_pattern"] = "core"
    host[V4] = "1"
    values = {"kernel/core_pattern": "x", str(elsewhere): "x", "../elsewhere": "x", V4: "0"}
    host.record.write_text(json.dumps({"boot_id": "boot", "values": values}), encoding="utf-8")
    assert host.forwarding().restore() == [V4]
    assert elsewhere.read_text(encoding="ascii") == "kept"
    assert (host.all()["kernel/core_pattern"], host.all()[V4]) == ("core", "0")


@pytest.mark.parametrize("content", ["", "{", '{"boot_id": "bo', '{"boot_id": "before"}'])
def test_a_truncated_record_is_as_none(host: Sysctls, content: str) -> None:
    """A record that a crash cut short is as none."""
    host.record.write_text(content, encoding="utf-8")
    host.ensure(ipv6=False)
    assert host.all()[V4] == "1"


def test_a_missing_sysctl_is_named_and_not_made(host: Sysctls) -> None:
    """A sysctl that is not there is named, and not made."""
    (host.root / V4).unlink()
    with pytest.raises(EgressError, match=r"cannot set net\.ipv4\.ip_forward = 1: No such file"):
        host.ensure()


def test_an_unwritable_sysctl_is_named_with_its_value(host: Sysctls) -> None:
    """A sysctl that cannot be written is named with the value wanted."""
    (host.root / V4).unlink()
    (host.root / V4).symlink_to("/proc/self/stat")  # a file that even root cannot write
    with pytest.raises(EgressError, match=r"cannot set net\.ipv4\.ip_forward = 1: .*; set it on the host"):
        host.ensure(ipv6=False)
