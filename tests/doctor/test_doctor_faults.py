"""Each fault made on purpose on a real host, and what `doctor` says of it: one test a line."""

from __future__ import annotations

import os
import shutil
import socket
import sqlite3
import subprocess
import sys
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.support import netns
from tests.support.tunnel.appliance_process import PROJECT
from tests.support.tunnel.held_port import held_port
from tests.support.tunnel.waiting import until
from tests.support.tunnel.world import EXIT_IP, EXIT_IP6, WEB_IP

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.support.doctor.host_under_test import Found, Host

NOBODY = 65534


# The configuration -------------------------------------------------------------------------------------


def test_an_unknown_key(host: Host) -> None:
    """The configuration's own refusal is the finding; nothing is checked by a configuration that may be wrong."""
    host.appliance.configure(wireguard={"listen_prot": 51820})
    diagnosis = host.doctor()
    assert list(diagnosis.checks) == ["config"]
    assert "wireguard.listen_prot = 51820: unknown key; did you mean" in diagnosis["config"].what


def test_a_setting_that_is_hardly_meant(host: Host) -> None:
    """It is a warning of the configuration; all else is checked as ever."""
    host.appliance.configure(wireguard={"keepalive": 0})
    found = host.doctor()["config"]
    assert (found.status, found.mend.split()[0]) == ("warning", "nano")
    assert found.what.startswith("wireguard.keepalive = 0 beside tiers.anonymous.idle_timeout = 300s")
    host.appliance.configure(wireguard={"keepalive": 25})


def test_a_key_that_takes_a_restart(served: Host) -> None:
    """The key is named with both values; a restart takes it over."""
    served.appliance.configure(meter={"retention": "80d"})
    found = served.doctor()["drift"]
    assert (found.status, found.mend) == ("warning", "systemctl restart wg-appliance")
    assert found.what == "not taken over: meter.retention (runs with 7776000, configured 6912000)"


def test_a_limit_that_takes_a_reload(served: Host) -> None:
    """Tiers need a reload alone, and after it nothing is left to be taken over."""
    served.appliance.configure(**{"tiers.free": {"max_live_sessions": 7}})
    found = served.doctor()["drift"]
    assert (found.status, found.mend) == ("warning", "systemctl reload wg-appliance")
    served.appliance.reload()
    until(lambda: served.doctor()["drift"].status == "ok", "what was reloaded is noted")


# The server --------------------------------------------------------------------------------------------


def test_no_server(host: Host) -> None:
    """Neither it nor its ticks are there; that is one failure, not many."""
    diagnosis = host.doctor()
    assert diagnosis.error == "wg-appliance: error: 1 of 24 checks failed: server\n"
    assert diagnosis["server"].mend.startswith("systemctl start wg-appliance")
    assert (diagnosis["tick"].status, diagnosis["drift"].status) == ("warning", "warning")


def test_a_server_that_hangs(served: Host) -> None:
    """It runs and its ticks have stopped: how long ago the last one was."""
    until(lambda: served.doctor()["tick"].what.endswith(" s ago"), "the server has ticked")
    with served.appliance.standing_still():
        found = until(lambda: _if_failed(served.doctor()["tick"]), "the last tick is too long ago")
    assert "s ago: no use is billed and no session is ended" in found.what
    assert found.mend.startswith("systemctl restart wg-appliance")


# The state ---------------------------------------------------------------------------------------------


def test_a_key_that_others_may_read(host: Host) -> None:
    """The file and its mode are named; the command takes the permission away."""
    (host.appliance.state / "server.key").chmod(0o644)
    found = _mended(host, "state", "failed")
    assert "server.key (mode 0644)" in found.what


def test_a_state_directory_that_others_may_enter(host: Host) -> None:
    """No secret is open yet: a warning."""
    host.appliance.state.chmod(0o755)
    _mended(host, "state", "warning")


def test_a_store_of_another_user(host: Host) -> None:
    """What root has left in the service's directory would lock the service out."""
    os.chown(host.appliance.store, NOBODY, NOBODY)
    _mended(host, "state", "failed")


def test_a_damaged_store(host: Host) -> None:
    """It is named, with the way back to a backup."""
    with host.appliance.store.open("r+b") as file:
        file.seek(100)
        file.write(b"\xff" * 4000)
    found = host.doctor()["store"]
    assert (found.status, found.mend) == ("failed", "wg-appliance restore FILE")
    assert "is damaged" in found.what


def test_a_store_of_a_newer_version(host: Host) -> None:
    """After a step back to an older program: which version it is, and which are known."""
    with closing(sqlite3.connect(host.appliance.store)) as db:
        db.execute("PRAGMA user_version = 99")
    found = host.doctor()["store"]
    assert (found.status, found.mend) == ("failed", "install the newer wg-appliance again")
    assert "version 99" in found.what


def test_a_store_of_another_program(host: Host) -> None:
    """Any other database at its place."""
    host.appliance.store.unlink()
    with closing(sqlite3.connect(host.appliance.store)) as db:
        db.execute("CREATE TABLE theirs (a)")
        db.execute("PRAGMA application_id = 7")
    host.appliance.store.chmod(0o600)
    assert host.doctor()["store"].what == "the file is another program's"


def test_no_state(host: Host) -> None:
    """Before the first start: how to make it."""
    shutil.rmtree(host.appliance.state)
    diagnosis = host.doctor()
    assert (diagnosis["state"].mend, diagnosis["store"].mend) == ("wg-appliance init", "wg-appliance init")


# The machine -------------------------------------------------------------------------------------------


def test_a_full_disk(host: Host) -> None:
    """A real file system with 1 MiB left."""
    with _mounted(host.appliance.state, "size=1m"):
        found = host.doctor()["disk"]
    assert found.status == "failed"
    assert found.what.startswith("only 1 MiB of 1 MiB are free")


def test_a_disk_with_little_room(host: Host) -> None:
    """Some hundred MiB are enough for now: a warning."""
    with _mounted(host.appliance.state, "size=200m"):
        assert host.doctor()["disk"].status == "warning"


def test_a_disk_that_is_read_only(host: Host) -> None:
    """As the kernel leaves one on which it found an error."""
    with _mounted(host.appliance.state, "size=2g,ro"):
        found = host.doctor()["disk"]
    assert found.status == "failed"
    assert found.mend.startswith("mount -o remount,rw")


def test_a_clock_that_nobody_keeps_right(host: Host) -> None:
    """The kernel says so (TIME_ERROR); the clock of this machine is left alone, and the answer is made."""
    found = host.doctor(ADJTIMEX="5")["clock"]
    assert found.status == "warning"
    assert "timedatectl set-ntp true" in found.mend


# The tunnel --------------------------------------------------------------------------------------------


def test_no_wireguard_go(host: Host, tmp_path: Path) -> None:
    """Where the kernel's is not wanted, and the program is not there."""
    host.appliance.configure(wireguard={"backend": "userspace"})
    folder = tmp_path / "bin"
    folder.mkdir()
    found = host.doctor(PATH=host.without("wireguard-go", folder=folder))["wireguard"]
    assert (found.status, found.mend) == ("failed", "apt-get install wireguard-go")


def test_a_foreign_interface_of_our_name(host: Host) -> None:
    """Somebody else's veth is not taken for the tunnel, and not told to be removed: it may be the uplink."""
    host.ip(f"link add {host.interface} type veth peer name theirs")
    found = host.doctor()["wireguard"]
    assert found.status == "failed"
    assert found.what == f"an interface {host.interface} is there that is not ours (veth)"
    assert found.mend == "set wireguard.interface to another name"


def test_a_port_that_is_taken(host: Host) -> None:
    """The program that has it is named."""
    with held_port(host.space, "SOCK_DGRAM", 51820):
        found = host.doctor()["udp-port"]
    assert found.status == "failed"
    assert found.what.startswith("51820 is taken by python")
    assert host.doctor()["udp-port"].status == "ok"


def test_a_host_behind_nat(host: Host) -> None:
    """Its address is private: clients cannot dial what `auto` finds. The configured one may be right, then."""
    host.ip(
        f"address del {EXIT_IP}/24 dev wan", "address add 192.168.7.2/24 dev wan", "route add default via 192.168.7.1"
    )
    found = host.doctor()["public-address"]
    assert found.status == "failed"
    assert "192.168.7.2 is private" in found.what
    assert "forward UDP port 51820 to 192.168.7.2" in found.mend
    host.appliance.configure(node={"public_ip": EXIT_IP})
    assert (
        host.doctor()["public-address"].what
        == f"{EXIT_IP}, behind NAT: UDP port 51820 has to be forwarded to 192.168.7.2"
    )


def test_a_wrong_public_address(host: Host) -> None:
    """Neither this host's own nor, as far as one can see, that of a NAT in front of it."""
    host.appliance.configure(node={"public_ip": "198.51.100.99"})
    found = host.doctor()["public-address"]
    assert found.status == "warning"
    assert found.what == f"198.51.100.99 is no address of this host, which sends from {EXIT_IP}"


def test_no_default_route(host: Host) -> None:
    """Nothing gets out, and there is no address to tell clients."""
    host.ip("route del default", "route del ::/0")
    diagnosis = host.doctor()
    assert diagnosis["uplink"].status == "failed"
    assert diagnosis["public-address"].status == "failed"


def test_an_uplink_with_a_small_mtu(host: Host) -> None:
    """By itself the tunnel fits it; a configured MTU that is too large is named."""
    host.ip("link set wan mtu 1400")
    assert host.doctor()["uplink"].what == "wan has MTU 1400, a tunnel packet has up to 1320 + 60"
    host.appliance.configure(wireguard={"mtu": 1420})
    found = host.doctor()["uplink"]
    assert found.status == "warning"
    assert found.mend.startswith('set wireguard.mtu = "auto" ')


def test_a_subnet_that_the_host_has(host: Host) -> None:
    """An address of the host in it: the server would not start. The network that is offered instead is free."""
    host.ip("link add lan type veth peer name lan0", "address add 10.101.0.7/24 dev lan", "link set lan up")
    found = host.doctor()["subnet"]
    assert found.status == "failed"
    assert found.what == "wireguard.subnet 10.101.0.0/24 overlaps with 10.101.0.0/24 on lan: the server will not start"
    offered = found.mend.split('"')[1]
    host.appliance.configure(wireguard={"subnet": offered})
    assert host.doctor()["subnet"].status == "ok"


def test_a_route_into_the_subnet(host: Host) -> None:
    """A route that is more precise takes the answers to clients away; a wider one loses to the tunnel's."""
    host.ip(f"route add 10.101.0.128/25 via {WEB_IP}")
    assert host.doctor()["subnet"].status == "failed"
    host.ip("route del 10.101.0.128/25", f"route add 10.0.0.0/8 via {WEB_IP}")
    assert host.doctor()["subnet"].status == "warning"


@pytest.mark.parametrize(
    "command", ["ip route del ::/0", "sysctl -qw net.ipv6.conf.all.disable_ipv6=1"], ids=["no route", "disabled"]
)
def test_no_ipv6_on_the_host(host: Host, command: str) -> None:
    """Nothing is to be mended: clients' IPv6 is refused at once, which it would not be without `subnet6`."""
    host.shell(command)
    found = host.doctor()["ipv6"]
    assert (found.status, "refused at once" in found.what) == ("ok", True)


def test_no_ipv6_address(host: Host) -> None:
    """With a way out and nothing to send from, packets are lost without a word; without the way they are refused."""
    host.ip(f"address del {EXIT_IP6}/64 dev wan")
    found = host.doctor()["ipv6"]
    assert found.status == "warning"
    instead, _, announced = found.mend.removeprefix("give it an address, or: ").partition(", and where")
    assert "accept_ra_defrtr" in announced
    host.shell(instead)
    assert host.doctor()["ipv6"].status == "ok"


def test_a_kernel_without_ipv6(host: Host) -> None:
    """The server refuses to start, in a line that says what to set, and so does the doctor; then it is ok."""

    def run(command: str) -> subprocess.CompletedProcess[str]:
        program = f"exec {sys.executable} -m appliance --config {host.appliance.config} {command}"
        without = ("unshare", "--mount", "sh", "-ec", f"mount -t tmpfs none /proc/sys/net/ipv6; {program}")
        return host.space.run(*without, check=False, cwd=PROJECT)

    def doctor() -> str:
        (line,) = (line for line in run("doctor").stdout.splitlines() if line.split()[1] == "ipv6")
        return line

    served = run("serve")
    assert served.returncode == 1
    assert served.stderr.splitlines()[-1].endswith('this kernel has no IPv6; set wireguard.subnet6 = ""')
    assert doctor().startswith("failed")
    assert 'wireguard.subnet6 = ""' in doctor()
    host.appliance.configure(wireguard={"subnet6": ""})
    assert doctor().startswith("ok")


def test_ipv6_that_clients_do_not_get(host: Host) -> None:
    """The host has it, the configuration does not."""
    host.appliance.configure(wireguard={"subnet6": ""})
    assert host.doctor()["ipv6"].status == "warning"


# Forwarding and our own rules -----------------------------------------------------------------------------


def test_forwarding_that_the_server_could_not_set(served: Host) -> None:
    """Somebody has switched it off and the server does nothing about it; the command does."""
    with served.appliance.standing_still():
        served.shell("sysctl -qw net.ipv4.conf.wan.forwarding=0")
        found = _mended(served, "forwarding", "failed")
    assert found.what == "net.ipv4.conf.wan.forwarding = 0, and the server could not set it"


@pytest.mark.parametrize("owner", [0, NOBODY])
def test_forwarding_before_the_start(host: Host, owner: int) -> None:
    """Off, as on any fresh host, and the server will see to it, whoever has the state."""
    for path in (host.appliance.state, *host.appliance.state.iterdir()):
        os.chown(path, owner, owner)
    found = host.doctor()["forwarding"]
    assert (found.status, found.mend) == ("warning", "systemctl start wg-appliance")
    assert "net.ipv4.conf.wan.forwarding = 0" in found.what


def test_sysctls_that_cannot_be_set(host: Host) -> None:
    """A container's /proc/sys is read-only: that is for the machine around it."""
    inside = (
        f"mount --bind /proc/sys /proc/sys && mount -o remount,bind,ro /proc/sys && exec {sys.executable} -m appliance"
    )
    done = host.space.run(
        *("unshare", "--mount", "sh", "-ec", f"{inside} --config {host.appliance.config} doctor"),
        check=False,
        cwd=PROJECT,
    )
    (line,) = [line for line in done.stdout.splitlines() if "forwarding" in line]
    assert line.startswith("failed")
    assert "/proc/sys is read-only here" in line


def test_no_nft(host: Host, tmp_path: Path) -> None:
    """The firewall's checks say that they cannot tell, and one says why."""
    folder = tmp_path / "bin"
    folder.mkdir()
    diagnosis = host.doctor(PATH=host.without("nft", folder=folder))
    assert (diagnosis["nftables"].status, diagnosis["nftables"].mend) == ("failed", "apt-get install nftables")
    assert (diagnosis["forward"].status, diagnosis["udp-filter"].status) == ("warning", "warning")


def test_our_table_is_missing(served: Host) -> None:
    """Somebody flushed the ruleset, and the server did not put ours back."""
    with served.appliance.standing_still():
        served.shell("nft flush ruleset")
        found = served.doctor()["nftables"]
    assert (found.status, found.mend) == ("failed", "systemctl restart wg-appliance")


def test_services_leave_clients_few_ports(served: Host) -> None:
    """The programs in the way are named, and how many ports there are; of the table that the server has applied."""
    assert "UDP 1024-51819: 50796 flows" in served.doctor()["ports"].what
    with netns.Namespace(served.space.name).entered():
        services = [socket.create_server(("127.0.0.1", port)) for port in (30000, 50000)]
    named = Path("/proc/self/comm").read_text(encoding="ascii").strip()
    try:
        served.appliance.stop()
        stopped = served.doctor()["ports"]
        served.appliance.start()
        for found in (stopped, served.doctor()["ports"]):
            assert (found.status, "ss -lntp" in found.mend) == ("warning", True)
            assert "clients share 20413 TCP ports, 9587-29999, as this host uses 9586" in found.what
            assert found.what.endswith(f" and 30000 ({named})")
    finally:
        for service in services:
            service.close()


# Without root --------------------------------------------------------------------------------------------


def test_without_root(host: Host) -> None:
    """What cannot be seen is said to be so; nothing fails for that, and what can be seen is checked."""
    script = (
        "import os, sys; from appliance.cli import main\n"
        "from appliance.ops.doctor import diagnosis, gather; from appliance.store import inspection\n"
        "from pyroute2 import IPRoute\n"  # root's Python may be root's alone
        "os.setgroups([]); os.setgid(65534); os.setuid(65534); main()"
    )
    done = host.space.run(sys.executable, "-c", script, "doctor", check=False, cwd=PROJECT)
    lines = {line.split()[1]: line for line in done.stdout.splitlines()}
    assert "Traceback" not in done.stderr
    assert lines["forward"].startswith("warning  forward         the firewall cannot be seen without root -> sudo")
    assert lines["uplink"].startswith("ok")
    assert lines["public-address"].startswith("ok")


def _if_failed(found: Found) -> Found | None:
    return found if found.status == "failed" else None


def _mended(host: Host, check: str, status: str) -> Found:
    """The finding, after its command was run and found to mend it."""
    found = host.doctor()[check]
    assert found.status == status, found
    host.shell(found.mend)
    assert host.doctor()[check].status == "ok"
    return found


@contextmanager
def _mounted(folder: Path, options: str) -> Iterator[None]:
    subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", folder], check=True, timeout=60)
    try:
        yield
    finally:
        subprocess.run(["umount", folder], check=True, timeout=60)
