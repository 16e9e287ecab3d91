"""The forwarding sysctls, over a tree like /proc/sys."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from appliance.domain.errors import EgressError
from appliance.network.firewall import sysctl_paths
from appliance.network.firewall.forwarding import HostForwarding
from appliance.network.firewall.state import EgressState, reconcile
from appliance.network.firewall.sysctls import Forwarding

if TYPE_CHECKING:
    from pathlib import Path

HOST, V4, V6 = "net/ipv4/ip_forward", "net/ipv4/conf/eth0/forwarding", "net/ipv6/conf/all/forwarding"
OF_ETH1, V6_DEFAULT = "net/ipv4/conf/eth1/forwarding", "net/ipv6/conf/default/forwarding"
DEFAULT = frozenset({"eth0"})
REDIRECTS = "net/ipv4/conf/all/send_redirects"


class Sysctls:
    """A host's sysctls, in files."""

    def __init__(self, folder: Path) -> None:
        self.root = folder / "sys"
        self.record = folder / "sysctls.json"
        self.interfaces = {2: "eth0", 3: "eth1"}
        for name in (HOST, V4, OF_ETH1, V6, V6_DEFAULT, "net/ipv6/conf/eth0/forwarding", REDIRECTS):
            self[name] = "0"
        for interface, value in {"all": "1", "default": "1", "lo": "1", "eth0": "1", "eth1": "0", "wga0": "1"}.items():
            self[f"net/ipv6/conf/{interface}/accept_ra"] = value

    def __setitem__(self, name: str, value: str) -> None:
        (self.root / name).parent.mkdir(parents=True, exist_ok=True)
        (self.root / name).write_text(f"{value}\n", encoding="ascii")

    def all(self) -> dict[str, str]:
        files = (file for file in self.root.rglob("*") if file.is_file())
        return {str(file.relative_to(self.root)): file.read_text(encoding="ascii").strip() for file in files}

    def forwarding(self) -> Forwarding:
        return Forwarding(self.root, self.record, "boot", lambda: list(self.interfaces.items()))

    def rename(self, index: int, name: str) -> None:
        for conf in (self.root / "net/ipv4/conf", self.root / "net/ipv6/conf"):
            (conf / self.interfaces[index]).rename(conf / name)
        self.interfaces[index] = name

    def ensure(self, *uplinks: str, ipv6: bool = True) -> None:
        """Set what differs, as a tick does. `uplinks`: eth0 if none is named."""
        forwarding, by = self.forwarding(), frozenset(uplinks or ("eth0",))
        state = EgressState(True, HostForwarding(forwarding.read(by), forwarding.found, by))
        changes = reconcile(state, interface="wga0", ipv6=ipv6)
        if changes is None:
            return
        if changes.disowned:
            forwarding.disown(changes.disowned)
        if changes.give_back:
            forwarding.give_back("wga0", by)
        if changes.sysctls:
            forwarding.set(changes.sysctls, "wga0", DEFAULT)


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
    host[HOST] = host[V4] = "1"
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


@pytest.mark.parametrize(
    "content", ["", "{", '{"boot_id": "bo', '{"boot_id": "before"}', "[]", '{"boot_id": "boot", "values": 5}']
)
def test_a_damaged_record_is_as_none(host: Sysctls, content: str) -> None:
    """One that a crash cut short, or that says something else."""
    host.record.write_text(content, encoding="utf-8")
    host.ensure(ipv6=False)
    assert host.all()[V4] == "1"


def test_an_interface_that_is_no_uplink_any_more(host: Sysctls) -> None:
    """What was switched on for an uplink that is none any more is as before, and forgotten."""
    host.ensure("eth0", "eth1", ipv6=False)
    assert (host.all()[V4], host.all()[OF_ETH1]) == ("1", "1")
    for _ in range(2):
        host.ensure("eth0", ipv6=False)
    assert (host.all()[V4], host.all()[OF_ETH1]) == ("1", "0")
    assert set(host.forwarding().found) == {V4}


def test_what_another_program_has_switched_on_stays(host: Sysctls) -> None:
    """When another program has switched forwarding on for the host, it stays on for all after the appliance, also if
    that was noticed by nobody before."""
    for noticed in (True, False):
        host[HOST] = host[V4] = host[V6] = host[V6_DEFAULT] = "0"
        host.ensure()
        host[HOST] = host[V6_DEFAULT] = "1"
        if noticed:
            host.ensure()
        host.forwarding().restore()
        assert host.all()[V4] == "1"
        assert host.all()[V6] == ("1" if noticed else "0")


def test_what_an_earlier_version_switched_on_is_given_back(host: Sysctls) -> None:
    """The host's switch for IPv4 goes off and the uplink's stays on; in IPv6 interfaces are hosts' again."""
    host[HOST] = host[V4] = host[V6] = host[V6_DEFAULT] = "1"
    host.record.write_text(json.dumps({"boot_id": "boot", "values": {HOST: "0", V6: "0"}}), encoding="utf-8")
    host.ensure()
    assert (host.all()[HOST], host.all()[V4], host.all()[V6], host.all()[V6_DEFAULT]) == ("0", "1", "1", "0")
    host.forwarding().restore()
    assert (host.all()[HOST], host.all()[V4], host.all()[V6]) == ("0", "0", "0")


def test_a_missing_sysctl_is_named_and_not_made(host: Sysctls) -> None:
    """A sysctl that is not there is named, and not made."""
    (host.root / V6).unlink()
    with pytest.raises(EgressError, match=r"cannot set net\.ipv6\.conf\.all\.forwarding = 1: No such file"):
        host.ensure()


def test_all_that_cannot_be_set_are_named_at_once(host: Sysctls) -> None:
    """Those that clients' traffic needs are named together, with what to set instead on the machine around."""
    for name in (V4, V6):
        (host.root / name).unlink()
        (host.root / name).symlink_to("/proc/self/stat")  # a file that even root cannot write
    with pytest.raises(EgressError) as raised:
        host.ensure()
    told = str(raised.value)
    assert "net.ipv4.conf.eth0.forwarding = 1, net.ipv6.conf.all.forwarding = 1" in told
    assert told.endswith("set net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1")


def test_what_clients_do_not_need_is_warned_of_once(host: Sysctls, caplog: pytest.LogCaptureFixture) -> None:
    """What is not needed and cannot be set is warned of once, and all else is set: an uplink beside the default route
    is not needed either."""
    name = "net/ipv6/conf/eth0/accept_ra"
    (host.root / name).unlink()
    (host.root / name).symlink_to(host.root / "net")  # a directory
    forwarding = host.forwarding()
    (host.root / OF_ETH1).unlink()
    (host.root / OF_ETH1).symlink_to(host.root / "net")
    forwarding.set({name: "2", V4: "1", OF_ETH1: "1"}, "wga0", DEFAULT)
    assert host.all()[V4] == "1"
    assert forwarding.unsettable == {name, OF_ETH1}
    assert [record.levelname for record in caplog.records].count("WARNING") == 2


def test_an_interface_that_goes_and_comes_again_is_set(host: Sysctls, caplog: pytest.LogCaptureFixture) -> None:
    """One that went between the look and the setting is not given up: the next of its name is set."""
    forwarding, name = host.forwarding(), "net/ipv6/conf/eth2/accept_ra"
    (host.root / name).parent.mkdir()
    forwarding.set({name: "2"}, "wga0", DEFAULT)
    host[name] = "1"
    forwarding.set({name: "2"}, "wga0", DEFAULT)
    assert host.all()[name] == "2"
    assert not forwarding.unsettable
    assert not [record for record in caplog.records if record.levelname == "WARNING"]


def test_what_cannot_be_set_is_told_before_anything_is(host: Sysctls) -> None:
    """Nothing is changed and nothing noted; a tunnel that is not there yet takes what `default` has."""
    (host.root / V6).unlink()
    (host.root / V6).symlink_to(host.root / "net")  # a directory
    host["net/ipv4/conf/default/forwarding"] = "1"
    before = host.all()
    with pytest.raises(EgressError, match=r"cannot set net\.ipv6\.conf\.all\.forwarding = 1: "):
        host.forwarding().require({V4: "1", V6: "1", REDIRECTS: "0"}, "wga0", DEFAULT)
    assert host.all() == before
    assert not host.record.exists()
    host.forwarding().require({V4: "1"}, "wga0", DEFAULT)
    (host.root / "net/ipv4/conf/default/forwarding").unlink()
    with pytest.raises(EgressError, match=r"net\.ipv4\.conf\.default\.forwarding"):
        host.forwarding().require({}, "wga0", DEFAULT)


FILTER, BY_MARK = "net/ipv4/conf/eth0/rp_filter", "net/ipv4/conf/eth0/src_valid_mark"
FILTER_ALL, BY_MARK_ALL = "net/ipv4/conf/all/rp_filter", "net/ipv4/conf/all/src_valid_mark"


@pytest.fixture
def filtering(host: Sysctls) -> Sysctls:
    """A host that has set up the exit, and could filter by the reverse path."""
    for name in (FILTER, BY_MARK, FILTER_ALL, BY_MARK_ALL):
        host[name] = "0"
    host.ensure()
    return host


@pytest.mark.parametrize("switch", [FILTER, FILTER_ALL])
@pytest.mark.parametrize("value", ["1", "2"])
def test_marks_count_while_the_uplink_filters(filtering: Sysctls, switch: str, value: str) -> None:
    """They do for as long as it filters; then it is as it was, and no longer recorded as the appliance's own."""
    before = filtering.all()
    filtering[switch] = value
    filtering.ensure()
    assert changed(filtering, before) == {switch: value, BY_MARK: "1"}
    filtering[switch] = "0"
    filtering.ensure()
    assert changed(filtering, before) == {}
    filtering.ensure()
    assert BY_MARK not in filtering.forwarding().found


def test_marks_count_already_where_they_do_everywhere(filtering: Sysctls) -> None:
    """wg-quick sets it for all interfaces; then nothing is to be set."""
    filtering[BY_MARK_ALL], filtering[FILTER] = "1", "2"
    before = filtering.all()
    filtering.ensure()
    assert changed(filtering, before) == {}


def test_a_former_uplink_gets_its_value_back(filtering: Sysctls) -> None:
    """Where the uplink is another one, and still filters."""
    before = filtering.all()
    filtering[FILTER] = "2"
    filtering.ensure()
    filtering.ensure("eth1")
    assert changed(filtering, before) == {FILTER: "2", V4: "0", OF_ETH1: "1"}


def test_a_restore_leaves_the_filter_alone(filtering: Sysctls) -> None:
    """What the appliance never sets is not set by what a record says either."""
    filtering[FILTER] = "2"
    filtering.ensure()
    record = json.loads(filtering.record.read_text())
    record["values"] |= {FILTER: "0", FILTER_ALL: "1", BY_MARK_ALL: "1"}
    filtering.record.write_text(json.dumps(record))
    filtering.forwarding().restore()
    now = filtering.all()
    assert (now[BY_MARK], now[FILTER], now[FILTER_ALL], now[BY_MARK_ALL]) == ("0", "2", "0", "0")


@pytest.mark.parametrize("restarted", [False, True])
def test_the_record_follows_an_interface_to_its_new_name(host: Sysctls, restarted: bool) -> None:
    """While it serves, and after it has not: what was set is put back there, and is no other interface's."""
    before = host.all()
    host.ensure()
    forwarding = host.forwarding()
    assert V4 in forwarding.found
    host.rename(2, "isp0")
    forwarding = host.forwarding() if restarted else forwarding
    forwarding.follow_names()
    assert forwarding.found["net/ipv4/conf/isp0/forwarding"] == "0"
    assert not [name for name in forwarding.found if "/eth0/" in name]
    assert host.forwarding().found == forwarding.found
    forwarding.restore()
    assert {name.replace("/isp0/", "/eth0/"): value for name, value in host.all().items()} == before


def test_names_that_were_swapped_swap_in_the_record(host: Sysctls) -> None:
    """Each value stays its interface's."""
    host.ensure("eth0", "eth1")
    record = host.forwarding()
    before = dict(record.found)
    host.rename(2, "tmp0")
    host.rename(3, "eth0")
    host.rename(2, "eth1")
    record.follow_names()
    swapped = {"eth0": "eth1", "eth1": "eth0"}
    assert record.found == {sysctl_paths.renamed(name, swapped): value for name, value in before.items()}


def test_a_record_of_an_earlier_version_has_no_indices(host: Sysctls) -> None:
    """It is read as it is."""
    host.ensure()
    record = json.loads(host.record.read_text())
    del record["indices"]
    host.record.write_text(json.dumps(record))
    host.rename(2, "isp0")
    assert host.forwarding().found == record["values"]
