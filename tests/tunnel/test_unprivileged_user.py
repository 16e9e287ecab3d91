"""The appliance as a user of its own whose only capability is CAP_NET_ADMIN, with the system calls and the socket
families that its systemd unit leaves it. What else the unit forbids is for tests/install.
"""

from __future__ import annotations

import errno
import os
import shutil
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.support.tunnel.appliance_process import PROJECT, Appliance
from tests.support.tunnel.waiting import until

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.support.tunnel.client import Client
    from tests.support.tunnel.world import World

USER = 64999  # no user's: what belongs to it is the test's
NET_ADMIN = "0000000000001000"
AS_THE_UNIT_DOES = (
    *("setpriv", f"--reuid={USER}", f"--regid={USER}", "--clear-groups", "--no-new-privs"),
    *("--inh-caps=-all,+net_admin", "--ambient-caps=-all,+net_admin", "--bounding-set=-all,+net_admin"),
    *(sys.executable, "tests/support/tunnel/under_filter.py", "systemd/wg-appliance.service"),
)
FILTERS = 2  # of under_filter.py


@pytest.fixture
def directory() -> Iterator[Path]:
    """One that another user can get at: pytest's own are root's."""
    made = Path(tempfile.mkdtemp(prefix="wg-appliance-test-"))
    try:
        made.chmod(0o755)
        yield made
    finally:
        shutil.rmtree(made)


def readable_for_all(path: Path) -> bool:
    return all(place.stat().st_mode & 0o5 for place in (path, *path.parents))


def filters_of(pid: int) -> int:
    """How many filters of system calls the process runs under."""
    (line,) = (
        line
        for line in Path(f"/proc/{pid}/status").read_text(encoding="ascii").splitlines()
        if line.startswith("Seccomp_filters:")
    )
    return int(line.split()[1])


@pytest.fixture
def appliance(world: World, backend: str, directory: Path, request: pytest.FixtureRequest) -> Iterator[Appliance]:
    if not readable_for_all(PROJECT):
        pytest.skip(f"NOT TESTED: {PROJECT} cannot be read by other users")
    if backend == "userspace":
        pytest.skip("NOT TESTED on userspace: wireguard-go needs /run/wireguard, which its unit makes for this user")
    made = Appliance(world, backend, directory / "appliance", {}, through=AS_THE_UNIT_DOES)
    for place in (directory / "appliance", *(directory / "appliance").iterdir()):
        os.chown(place, USER, USER)
    try:
        with made.serving():
            yield made
    finally:
        request.node.add_report_section("teardown", "log", made.log())


@pytest.mark.under_kernel
def test_a_user_with_net_admin_alone_serves(appliance: Appliance, client: Client) -> None:
    """A session through the tunnel and out, and its end; a firewall table changed, IPv6 disabled, the interface
    deleted; and the host as it was."""
    status = Path(f"/proc/{appliance.pid}/status").read_text(encoding="ascii")
    for kind in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"):
        assert f"{kind}:\t{NET_ADMIN}\n" in status
    assert f"Uid:\t{USER}\t{USER}\t{USER}\t{USER}\n" in status
    assert filters_of(appliance.pid) == filters_of(os.getpid()) + FILTERS
    token = appliance.token()
    session = appliance.open(token)
    client.wg_quick(session["wg_config"])
    assert client.address_seen() == session["public_ip"]
    appliance.space.run("nft", "flush", "chain", "inet", "wg_appliance", "forward")
    until(lambda: "applied again: it was changed" in appliance.log(), "the table is repaired")
    appliance.space.run("sysctl", "-qw", f"net.ipv6.conf.{appliance.interface}.disable_ipv6=1")
    until(lambda: client.ping("fd65:7869:7400::1"), "the tunnel has IPv6 again")
    appliance.space.run("ip", "link", "del", appliance.interface)
    until(lambda: client.ping("fd65:7869:7400::1"), "the interface is there again")
    client.down()
    appliance.close(session["id"], token)
    for refusal in ("conntrack: ", os.strerror(errno.EPERM), os.strerror(errno.EAFNOSUPPORT)):
        assert refusal not in appliance.log()
