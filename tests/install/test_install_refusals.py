"""What install and upgrade refuse, and what they leave alone."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.support.install.host_state import host_state, require_unchanged
from tests.support.install.installed import COMMAND, refused
from tests.support.install.programs import NEWER
from tests.support.tunnel.held_port import held_port

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.install.installed import Installed

PORTS = (
    ("SOCK_STREAM", 8080, "api.listen"),
    ("SOCK_STREAM", 9586, "metrics.listen"),
    ("SOCK_DGRAM", 51820, "wireguard.listen_port"),
)


def test_a_dry_run_changes_nothing(appliance: Installed, program: Path) -> None:
    """`install --dry-run` names every step, and leaves the host as it is."""
    machine, brought = appliance.machine, appliance.bring(program)
    before = host_state(machine)
    said = appliance.install(brought, "--dry-run")
    assert "user wg-appliance: to be created" in said
    assert "/usr/local/bin/wg-appliance: to be linked" in said
    require_unchanged(machine, before)


def test_what_another_has(appliance: Installed, program: Path) -> None:
    """Where a port, or the name wga0, is another's, install says so and changes nothing; with another name it goes."""
    machine, brought = appliance.machine, appliance.bring(program)
    before = host_state(machine)
    for kind, port, setting in PORTS:
        with held_port(machine.space, kind, port):
            line = refused(machine.try_to_run(brought, "install"))
        assert setting in line
        assert "Address already in use" in line
    require_unchanged(machine, before)

    machine.run("ip", "link", "add", "wga0", "type", "veth", "peer", "name", "peer0")
    before = host_state(machine)
    line = refused(machine.try_to_run(brought, "install"))
    assert "wga0 exists" in line
    assert "ip link del wga0" in line
    require_unchanged(machine, before)

    machine.run("mkdir", "/etc/wg-appliance")
    (machine.root / "etc/wg-appliance/config.toml").write_text('[wireguard]\ninterface = "wgb0"\n', encoding="utf-8")
    appliance.install(brought)
    links = machine.run("ip", "-oneline", "link").stdout
    assert "wgb0" in links
    assert "wga0" in links


def test_a_second_install(appliance: Installed, program: Path) -> None:
    """The same version again changes nothing: the process goes on, nobody gets a second token.

    What was asked for on the command line and is for a new configuration alone is not passed over in silence.
    """
    machine, brought = appliance.machine, appliance.bring(program)
    appliance.count_often()
    appliance.install(brought)
    before, pid = host_state(machine), appliance.main_pid()
    said = appliance.install(brought, "--region", "fsn")
    assert 'set region = "fsn" in its [node] yourself' in said
    assert "token" not in said
    assert appliance.main_pid() == pid
    require_unchanged(machine, before, but="/var/lib/wg-appliance/")  # it counts on


def test_an_older_version(appliance: Installed, program: Path, newer_program: Path) -> None:
    """Neither upgrade nor install goes back; the version that runs goes on."""
    machine = appliance.machine
    appliance.count_often()
    appliance.install(appliance.bring(newer_program))
    pid, older = appliance.main_pid(), appliance.bring(program)
    for arguments in ((older, "upgrade"), (COMMAND, "upgrade", older), (older, "install")):
        line = refused(machine.try_to_run(*arguments))
        assert f"{NEWER} is installed" in line
    assert appliance.version() == NEWER
    assert appliance.main_pid() == pid


def test_what_is_no_program(appliance: Installed, program: Path) -> None:
    """A file that is none, and one that cannot be executed, are no upgrade."""
    machine = appliance.machine
    appliance.count_often()
    appliance.install(appliance.bring(program))
    (machine.root / "root/text").write_text("no program\n", encoding="utf-8")
    for file in ("/root/text", "/root/missing"):
        assert file in refused(machine.try_to_run(COMMAND, "upgrade", file))
    machine.run("chmod", "+x", "/root/text")
    assert "/root/text" in refused(machine.try_to_run(COMMAND, "upgrade", "/root/text"))
