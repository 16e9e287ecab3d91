"""Reads and checks what the installer needs to know of the host."""

from __future__ import annotations

import asyncio
import filecmp
import json
import os
import re
import sys
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from appliance import __version__
from appliance.config.value_types import HostPort
from appliance.domain.errors import HostError, TunnelError
from appliance.network import sockets, uplinks
from appliance.network.wireguard import keys
from appliance.network.wireguard.backend import choose_backend, kernel_has_wireguard
from appliance.network.wireguard.link_state import link_kind
from appliance.ops.install import host
from appliance.ops.install.layout import HUB_SERVICE
from appliance.ops.install.plan import Program
from appliance.store.file_owner import acting_as_owner
from appliance.store.state_dir import StateDir

if TYPE_CHECKING:
    from ipaddress import IPv4Address, IPv6Address

    from appliance.config.settings import Settings
    from appliance.network.wireguard.backend import Backend

CLOUD_INIT = Path("/run/cloud-init/instance-data.json")
NOWHERE = Path("/nonexistent")
NATS_SERVER = "nats-server"  # a file of the program's folder
UNIT_SUFFIXES = (".service", ".timer", ".path", ".conf")


def own_program() -> Program:
    """Returns the packed program that this process runs. Raises HostError if it runs from a checkout or a wheel."""
    if not getattr(sys, "frozen", False):
        raise HostError(
            "only the one file (wg-appliance-<version>-linux-<arch>) installs itself; this is not run from it"
        )
    files = Path(sys.executable).resolve().parent
    return program_in(files, __version__)


def program_in(files: Path, version: str) -> Program:
    return Program(version, files, units_in(files), manual_in(files))


def units_in(files: Path) -> dict[str, str]:
    """Returns the systemd units that come with a version of the program, by their path below systemd's folder."""
    folder = files / "appliance" / "units"
    return {str(f.relative_to(folder)): f.read_text("utf-8") for f in folder.rglob("*") if f.suffix in UNIT_SUFFIXES}


def is_other_hub(running: Path, version: Path) -> bool:
    """Tells whether a hub's nats-server is to run anew, by another program or unit, to be that of `version`.

    `running`: the program that runs, in the folder of its version, if that is there still.
    """
    own = version / NATS_SERVER
    if running.parent == version or not own.is_file():
        return False
    if not running.is_file() or not filecmp.cmp(running, own, shallow=False):
        return True
    return units_in(running.parent).get(HUB_SERVICE) != units_in(version).get(HUB_SERVICE)


def manual_in(files: Path) -> dict[str, str]:
    """Returns the man pages that come with a version, by name; none if it is older than the first pages."""
    return {file.name: file.read_text("ascii") for file in (files / "appliance" / "man").glob("*.1")}


def require_host(doing: str) -> None:
    """Raises HostError if this process is not root, or the host does not run systemd."""
    if os.geteuid() != 0:
        raise HostError(f"{doing} needs root: run it with sudo")
    if not Path("/run/systemd/system").is_dir():  # sd_booted(3)
        without = "; without it, run wg-appliance serve under another supervisor" if doing == "install" else ""
        raise HostError(f"{doing} needs a host that runs systemd{without}")


def needs_userspace(settings: Settings) -> bool:
    """Tells whether wireguard-go must run the tunnel. Raises HostError if it must, and the host has no TUN device."""
    backend = settings.wireguard.backend
    if backend == "kernel" or (backend == "auto" and kernel_has_wireguard()):
        return False
    if not Path("/dev/net/tun").is_char_device() and not host.succeeds("modprobe", "tun"):
        raise HostError(
            "the kernel has no WireGuard, and no /dev/net/tun for wireguard-go: ask the provider for either"
        )
    return True


def require_interface(settings: Settings, state: StateDir, *, userspace: bool) -> None:
    """Raises HostError if another program's interface has the tunnel's name; taking it over would lose its peers."""
    name = settings.wireguard.interface
    kind = link_kind(name)
    if kind is None:
        return
    own = _own_key(state)
    if own is None or _device_key(name, "userspace" if userspace else "kernel") != own:
        raise HostError(
            f"an interface {name} exists, and is not the appliance's (it is {kind or 'not virtual'}); remove it "
            f"(ip link del {name}), or set another name in [wireguard] interface of the configuration"
        )


def _own_key(state: StateDir) -> bytes | None:
    """Returns the public key of server.key, read as its folder's owner; None if there is none that can be read."""
    if not state.path.is_dir():
        return None
    # That user has no access to what the one file has unpacked, from which modules are loaded when they are needed.
    with acting_as_owner(state.path, lambda: _read_key(StateDir(NOWHERE))):
        key = _read_key(state)
    return None if key is None else keys.public_key(key)


def _read_key(state: StateDir) -> bytes | None:
    with suppress(HostError):
        return state.read_key()
    return None


def require_ports(settings: Settings) -> None:
    """Raises HostError if another program holds a port of the service, which does not run yet."""
    if link_kind(settings.wireguard.interface) is None:  # else the tunnel is up and holds the port
        sockets.require_udp_port("wireguard.listen_port", settings.wireguard.listen_port)
    listeners = [("api.listen", each) for each in settings.api.listen]
    for key, where in [*listeners, ("metrics.listen", settings.metrics.listen)]:
        if isinstance(where, HostPort):
            sockets.bind(key, where, later=settings.wireguard.own_addresses).close()


def _device_key(interface: str, backend: Backend) -> bytes | None:
    """Returns the public key of the tunnel that is up; None if it cannot be queried."""
    try:
        tunnel, _ = choose_backend(backend, interface)
    except HostError:
        return None

    async def ask() -> bytes | None:
        try:
            return (await tunnel.dump()).public_key
        except TunnelError:
            return None
        finally:
            await tunnel.close()

    return asyncio.run(ask())


def public_address() -> IPv4Address | IPv6Address | None:
    """Returns the host's address if the internet can reach it; None behind a NAT."""
    try:
        address = uplinks.default_route_address()
    except HostError:
        return None
    return address if address.is_global else None


def require_address(settings: Settings) -> None:
    """Raises HostError if neither the configuration nor a default route gives the address for clients."""
    if settings.node.public_ip is None:
        uplinks.default_route_address()


def region() -> str | None:
    """Returns the provider's name of the host's region, from cloud-init.

    https://docs.cloud-init.io/en/latest/explanation/instancedata.html
    """
    try:
        found = json.loads(CLOUD_INIT.read_text(encoding="utf-8"))["v1"]["region"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return found if isinstance(found, str) and re.fullmatch(r"[a-z0-9][a-z0-9-]{0,31}", found) else None


def firewalls() -> list[str]:
    """Returns the running firewalls of the host that close ports by default."""
    found = []
    try:
        if re.search(r"^ENABLED=yes$", Path("/etc/ufw/ufw.conf").read_text(encoding="utf-8"), re.MULTILINE):
            found.append("ufw")
    except OSError:
        pass
    if host.succeeds("systemctl", "is-active", "--quiet", "firewalld"):
        found.append("firewalld")
    return found
