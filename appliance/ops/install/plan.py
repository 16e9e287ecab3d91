"""Lists the steps of an installation in order. Each step finds out by itself whether there is anything to do."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from appliance.ops.install.boot_forwarding import NoBootForwarding
from appliance.ops.install.file_steps import Folder, Manual, NoFile, ProgramFiles, Symlink, TextFile
from appliance.ops.install.layout import HUB_PATH, HUB_SERVICE, HUB_USER, PROGRAM, SERVICE, TUNNEL_SERVICE, USER
from appliance.ops.install.record import Record
from appliance.ops.install.system_steps import EnabledUnit, Packages, SystemUser

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from appliance.config.settings import Settings
    from appliance.ops.install.layout import Layout
    from appliance.ops.install.step import Step

DROP_IN = f"{SERVICE}.d/userspace.conf"
INTERFACE_DROP_IN = f"{TUNNEL_SERVICE}.d/interface.conf"
TUNNEL_UNIT_INTERFACE = "wga0"  # the interface that the tunnel's unit names
USERSPACE_ONLY = (TUNNEL_SERVICE, DROP_IN)


@dataclass(frozen=True, slots=True)
class Program:
    """Holds a version of the program: the folder it runs from, its systemd units by path, its man pages by name."""

    version: str
    files: Path
    units: Mapping[str, str]
    manual: Mapping[str, str]


def install(layout: Layout, program: Program, settings: Settings, config_text: str, *, userspace: bool) -> list[Step]:
    record = Record(layout.record)
    packages = ("nftables", *(("wireguard-go",) if userspace else ()))
    return [
        programs(layout),
        Packages(packages, record),
        *of_operator(layout, settings, config_text),
        *of_program(layout, program, settings, record, userspace=userspace),
        *hub_units(program),
        EnabledUnit(SERVICE),
    ]


def has_userspace(layout: Layout) -> bool:
    """Tells whether it was installed for wireguard-go, which then stays, even if the kernel has WireGuard later."""
    return (layout.units / DROP_IN).exists()


def programs(layout: Layout) -> Folder:
    """Returns the step for the folder of all versions and of the installer's records."""
    return Folder(layout.programs, 0o755, "root", "root")


def of_operator(layout: Layout, settings: Settings, config_text: str) -> list[Step]:
    """Returns the steps whose results `uninstall` keeps, unless it purges."""
    return [
        SystemUser(USER, settings.node.state_dir),
        Folder(layout.config.parent, 0o750, "root", USER),
        TextFile(layout.config, config_text, mode=0o640, group=USER, keep=True),
        Folder(settings.node.state_dir, 0o700, USER, USER),
        *hub_state(layout),
    ]


def hub_state(layout: Layout) -> list[Step]:
    """Returns the steps for what a hub's nats-server needs beside its unit: a user, and folders for both users.

    They are there on each host, as the appliance itself, which may become a hub at any time, may make none of them.
    """
    return [
        SystemUser(HUB_USER, layout.hub),
        Folder(layout.hub, 0o711, HUB_USER, HUB_USER),
        Folder(layout.hub_config, 0o2750, USER, HUB_USER),
    ]


def hub_units(program: Program) -> list[Step]:
    """Returns the steps that enable a hub's units, which do nothing on other hosts; none if the version has none."""
    return [EnabledUnit(name, now=True) for name in (HUB_SERVICE, HUB_PATH) if name in program.units]


def of_program(layout: Layout, program: Program, settings: Settings, record: Record, *, userspace: bool) -> list[Step]:
    return [
        NoBootForwarding(layout.sysctls, record),
        *of_version(layout, program, settings, userspace=userspace),
    ]


def of_version(layout: Layout, program: Program, settings: Settings, *, userspace: bool) -> list[Step]:
    """Returns the steps that differ between versions. The last one switches to this version."""
    return [
        program_files(layout, program),
        *_units(layout, program, settings, userspace=userspace),
        Manual(layout.manual, PROGRAM, program.manual, Record(layout.record)),
        Symlink(layout.command, layout.current / PROGRAM),
        Symlink(layout.current, layout.version(program.version)),
    ]


def program_files(layout: Layout, program: Program) -> ProgramFiles:
    return ProgramFiles(program.files, layout.version(program.version), PROGRAM)


def _units(layout: Layout, program: Program, settings: Settings, *, userspace: bool) -> list[Step]:
    steps: list[Step] = []
    for name, text in sorted(program.units.items()):
        path = layout.units / name
        wanted = userspace or name not in USERSPACE_ONLY
        steps.append(TextFile(path, text) if wanted else NoFile(path))
    interface = settings.wireguard.interface
    drop_in = layout.units / INTERFACE_DROP_IN
    if userspace and interface != TUNNEL_UNIT_INTERFACE:
        steps.append(TextFile(drop_in, f"[Service]\nEnvironment=INTERFACE={interface}\n"))
    else:
        steps.append(NoFile(drop_in))
    return steps
