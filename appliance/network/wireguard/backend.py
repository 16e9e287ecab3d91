"""Detects the host's WireGuard backend and opens its device."""

from __future__ import annotations

import re
import shutil
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from appliance.domain.errors import HostError
from appliance.network.netlink.generic import NetlinkError
from appliance.network.wireguard import kernel, link_state, userspace
from appliance.network.wireguard.device_tunnel import DeviceTunnel
from appliance.network.wireguard.wireguard_go import PROGRAM

if TYPE_CHECKING:
    from collections.abc import Iterator

    from appliance.network.wireguard.tunnel import Dump, Tunnel, TunnelDevice

Setting = Literal["auto", "kernel", "userspace"]
Backend = Literal["kernel", "userspace"]

_CAP_NET_ADMIN = 12  # linux/capability.h
_KINDS: dict[Backend, str] = {"kernel": kernel.KIND, "userspace": userspace.KIND}
_INSTALL = f"apt-get install {PROGRAM}"


@dataclass(frozen=True, slots=True)
class HostFacts:
    """Describes the host. `interface_kind`: rtnetlink's kind of an existing interface of the configured name.

    `unit`: the systemd unit that runs the appliance's wireguard-go. `foreign`: what shows that the interface is another
    program's.
    """

    net_admin: bool
    kernel_module: bool
    wireguard_go: bool
    tun_device: bool
    interface_kind: str | None
    unit: str | None = None
    foreign: str | None = None


def choose_backend(
    setting: Setting, interface_name: str, log_path: Path | None = None, unit: str | None = None
) -> tuple[Tunnel, str]:
    """Returns this host's tunnel and the reason for its choice. Blocks for milliseconds.

    Raises HostError if this host has neither backend.
    """
    device, reason = choose_device(setting, interface_name, log_path, unit)
    return DeviceTunnel(device), reason


def choose_device(
    setting: Setting, interface_name: str, log_path: Path | None = None, unit: str | None = None
) -> tuple[TunnelDevice, str]:
    """Returns this host's device and the reason for its choice. Raises HostError if this host has neither backend."""
    backend, reason = decide(setting, replace(read_host(interface_name), unit=unit), interface_name)
    if backend == "kernel":
        return kernel.KernelDevice(interface_name), reason
    return userspace.UserspaceDevice(interface_name, log_path, unit), reason


@contextmanager
def existing_device(interface_name: str) -> Iterator[TunnelDevice]:
    """Opens the device behind an interface of this thread's network namespace. Raises HostError if there is none."""
    kind = link_state.link_kind(interface_name)
    if kind == kernel.KIND:
        device: TunnelDevice = kernel.KernelDevice(interface_name)
    elif kind == userspace.KIND:
        device = userspace.UserspaceDevice(interface_name)
    else:
        raise HostError(f"there is no WireGuard interface {interface_name}")
    with closing(device):
        yield device


def dump_existing(interface_name: str) -> Dump:
    """Dumps the device behind an interface of this thread's network namespace. Raises HostError if there is none."""
    with existing_device(interface_name) as device:
        return device.dump()


def require_tunnel_name(interface_name: str) -> None:
    """Raises HostError if a link that is no tunnel of either backend, such as the uplink, has this name."""
    kind = link_state.link_kind(interface_name)
    if kind not in (None, *_KINDS.values()):
        raise HostError(
            f"wireguard.interface {interface_name}: a link of this host has this name, and is no tunnel "
            f"(it is {kind or 'not virtual'}); it is left alone: set wireguard.interface to another name"
        )


def decide(setting: Setting, host: HostFacts, interface_name: str) -> tuple[Backend, str]:
    """Chooses the backend. Pure. Raises HostError that names what is missing and a remedy."""
    if not host.net_admin:
        raise HostError("managing WireGuard needs root or CAP_NET_ADMIN")
    backend, reason = _pick(setting, host)
    if host.interface_kind not in (None, _KINDS[backend]):
        raise HostError(
            f"wireguard.interface {interface_name}: an interface of this name exists and is not of the {backend} "
            f"backend (it is {host.interface_kind or 'not virtual'}); remove it (ip link del {interface_name}) "
            "or choose another name"
        )
    return backend, reason


def _pick(setting: Setting, host: HostFacts) -> tuple[Backend, str]:
    if setting != "kernel" and host.unit is not None:
        # wireguard-go has created the interface already.
        return "userspace", f"{host.unit} runs {PROGRAM}"
    if setting != "userspace" and host.kernel_module:
        return "kernel", "the kernel has WireGuard"
    if setting == "kernel":
        raise HostError("wireguard.backend is kernel, and this kernel has no wireguard module")
    if host.wireguard_go and host.tun_device:
        return (
            "userspace",
            "configured" if setting == "userspace" else f"no wireguard in the kernel; {PROGRAM} is there",
        )
    if host.wireguard_go:
        raise HostError(f"{PROGRAM} needs /dev/net/tun, and this host has none (modprobe tun)")
    if setting == "userspace":
        raise HostError(f"wireguard.backend is userspace, and {PROGRAM} is not installed; {_INSTALL}")
    raise HostError(f"no WireGuard: the kernel has no wireguard module and {PROGRAM} is not installed; {_INSTALL}")


def read_host(interface_name: str) -> HostFacts:
    return HostFacts(
        net_admin=_net_admin(),
        kernel_module=kernel_has_wireguard(),
        wireguard_go=shutil.which(PROGRAM) is not None,
        tun_device=Path("/dev/net/tun").is_char_device(),
        interface_kind=link_state.link_kind(interface_name),
    )


def kernel_has_wireguard() -> bool:
    """Tells whether the generic-netlink family exists. The request loads the module by its alias, if there is one.

    net/netlink/genetlink.c, ctrl_getfamily(): an unknown name is request_module()d before it is denied, so an explicit
    modprobe would add nothing.
    """
    with closing(kernel.open_netlink()) as netlink:
        try:
            netlink.family_id()
        except (NetlinkError, OSError):
            return False
    return True


def _net_admin() -> bool:
    status = Path("/proc/self/status").read_text(encoding="ascii")
    effective = re.search(r"^CapEff:\s*([0-9a-f]+)$", status, re.MULTILINE)
    return effective is not None and bool(int(effective[1], 16) >> _CAP_NET_ADMIN & 1)
