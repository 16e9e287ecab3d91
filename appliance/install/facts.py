"""What installing has to know of the host."""

from __future__ import annotations

import asyncio
import json
import os
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from appliance import __version__, host_network, listening
from appliance.config_values import HostPort
from appliance.errors import HostError, TunnelError
from appliance.install import host
from appliance.install.plan import Program
from appliance.wireguard import keys
from appliance.wireguard.backend import choose_backend, kernel_has_wireguard
from appliance.wireguard.link import link_kind

if TYPE_CHECKING:
    from ipaddress import IPv4Address, IPv6Address

    from appliance.settings import Settings
    from appliance.state_dir import StateDir
    from appliance.wireguard.backend import Backend

CLOUD_INIT = Path("/run/cloud-init/instance-data.json")
UNIT_SUFFIXES = (".service", ".timer", ".conf")


def own_program() -> Program:
    """The packed program that this process runs. Raises HostError where it runs from a checkout or a wheel."""
    if not getattr(sys, "frozen", False):
        raise HostError(
            "only the one file (wg-appliance-<version>-linux-<arch>) installs itself; this is not run from it"
        )
    files = Path(sys.executable).resolve().parent
    return program_in(files, __version__)


def program_in(files: Path, version: str) -> Program:
    return Program(version, files, units_in(files), manual_in(files))


def units_in(files: Path) -> dict[str, str]:
    """The systemd units that a version of the program brings, by their path below systemd's folder."""
    folder = files / "appliance" / "units"
    return {str(f.relative_to(folder)): f.read_text("utf-8") for f in folder.rglob("*") if f.suffix in UNIT_SUFFIXES}


def manual_in(files: Path) -> dict[str, str]:
    """The man pages that a version brings, by their name; none where it is older than they are."""
    return {file.name: file.read_text("ascii") for file in (files / "appliance" / "man").glob("*.1")}


def require_host(doing: str) -> None:
    """Root, and systemd. Raises HostError."""
    if os.geteuid() != 0:
        raise HostError(f"{doing} needs root: run it with sudo")
    if not Path("/run/systemd/system").is_dir():  # sd_booted(3)
        raise HostError(
            f"{doing} needs a host that runs systemd; without it, run wg-appliance serve under another supervisor"
        )


def needs_userspace(settings: Settings) -> bool:
    """Whether wireguard-go is to carry the tunnel. Raises HostError where the host has no device for it."""
    backend = settings.wireguard.backend
    if backend == "kernel" or (backend == "auto" and kernel_has_wireguard()):
        return False
    if not Path("/dev/net/tun").is_char_device() and not host.succeeds("modprobe", "tun"):
        raise HostError(
            "the kernel has no WireGuard, and no /dev/net/tun for wireguard-go: ask the provider for either"
        )
    return True


def require_interface(settings: Settings, state: StateDir, *, userspace: bool) -> None:
    """Raises HostError when an interface has our name and is not ours: what is in it would be lost."""
    name = settings.wireguard.interface
    kind = link_kind(name)
    if kind is None:
        return
    if not (
        state.has_key
        and _device_key(name, "userspace" if userspace else "kernel") == keys.public_key(state.private_key())
    ):
        raise HostError(
            f"an interface {name} exists, and is not the appliance's (it is {kind or 'not virtual'}); remove it "
            f"(ip link del {name}), or set another name in [wireguard] interface of the configuration"
        )


def require_ports(settings: Settings) -> None:
    """Raises HostError when somebody else has a port that the service, which does not run, will listen on."""
    if link_kind(settings.wireguard.interface) is None:  # else the tunnel stands, and has it
        listening.require_udp_port("wireguard.listen_port", settings.wireguard.listen_port)
    for key, where in (("api.listen", settings.api.listen), ("metrics.listen", settings.metrics.listen)):
        if isinstance(where, HostPort):
            listening.bind(key, where, later=settings.wireguard.own_addresses).close()


def _device_key(interface: str, backend: Backend) -> bytes | None:
    """The public key in the tunnel that stands; None where there is none to be asked."""
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
    """The host's address, where it is one that the internet reaches; None behind a NAT."""
    try:
        address = host_network.default_route_address()
    except HostError:
        return None
    return address if address.is_global else None


def require_address(settings: Settings) -> None:
    """Raises HostError when neither the configuration nor a default route says what clients dial."""
    if settings.node.public_ip is None:
        host_network.default_route_address()


def region() -> str | None:
    """The provider's word for where the host is. https://docs.cloud-init.io/en/latest/explanation/instancedata.html"""
    try:
        found = json.loads(CLOUD_INIT.read_text(encoding="utf-8"))["v1"]["region"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return found if isinstance(found, str) and re.fullmatch(r"[a-z0-9][a-z0-9-]{0,31}", found) else None


def firewalls() -> list[str]:
    """Those of the host that close ports by default, and run."""
    found = []
    try:
        if re.search(r"^ENABLED=yes$", Path("/etc/ufw/ufw.conf").read_text(encoding="utf-8"), re.MULTILINE):
            found.append("ufw")
    except OSError:
        pass
    if host.succeeds("systemctl", "is-active", "--quiet", "firewalld"):
        found.append("firewalld")
    return found
