"""A WireGuard device in the network namespace of the calling thread: the client's, or the exit's to look at. Blocking.

The appliance's own `Tunnel` lives on an event loop and knows no peer that is dialled.
"""

from __future__ import annotations

import os
import signal
import socket
from contextlib import closing, suppress
from typing import TYPE_CHECKING, Protocol

from appliance.client.tunnel import peer_config
from appliance.domain.errors import HostError, TunnelError
from appliance.network.netlink import constants
from appliance.network.netlink.generic import GenericNetlink, NetlinkError
from appliance.network.wireguard import kernel, link, uapi, userspace
from appliance.network.wireguard.backend import decide, read_host
from appliance.network.wireguard.encode import interface
from appliance.network.wireguard.parse import DumpParser
from appliance.network.wireguard.wireguard_go import WireguardGo

if TYPE_CHECKING:
    from appliance.client.tunnel.peer_config import Call
    from appliance.network.wireguard.tunnel import Dump


class Device(Protocol):
    """Every method raises TunnelError."""

    backend: str

    def create(self) -> None: ...

    def dial(self, call: Call) -> None: ...

    def dump(self) -> Dump: ...


class KernelDevice:
    backend = "kernel"

    def __init__(self, name: str) -> None:
        self._name = name

    def create(self) -> None:
        link.create_wireguard(self._name)

    def dial(self, call: Call) -> None:
        try:
            with closing(_socket()) as device:
                device.request(constants.WG_CMD_SET_DEVICE, peer_config.kernel_body(self._name, call))
        except (NetlinkError, OSError) as error:
            raise TunnelError(f"{self._name}: dialling: {error}") from error

    def dump(self) -> Dump:
        try:
            with closing(_socket()) as device:
                return device.dump(DumpParser(device.family_id()), constants.WG_CMD_GET_DEVICE, interface(self._name))
        except (NetlinkError, OSError) as error:
            raise TunnelError(f"{self._name}: reading the device: {error}") from error


class UserspaceDevice:
    backend = "userspace"

    def __init__(self, name: str) -> None:
        self._name = name
        self._process = WireguardGo(name, log_path=None)

    def create(self) -> None:
        self._process.start()

    def dial(self, call: Call) -> None:
        self._process.ask(peer_config.xplatform_request(call))

    def dump(self) -> Dump:
        return uapi.parse_dump(self._process.ask(uapi.GET), socket.if_nametoindex(self._name))


def new_device(name: str) -> Device:
    """Of the kernel where it has WireGuard, else of wireguard-go. Raises HostError where this host has neither."""
    backend, _ = decide("auto", read_host(name), name)
    return KernelDevice(name) if backend == "kernel" else UserspaceDevice(name)


def existing_device(name: str) -> Device:
    """Raises HostError where there is none."""
    kind = link.link_kind(name)
    if kind == kernel.KIND:
        return KernelDevice(name)
    if kind == userspace.KIND:
        return UserspaceDevice(name)
    raise HostError(f"there is no WireGuard interface {name}")


def end_wireguard_go(name: str) -> None:
    """End the wireguard-go of this interface, in whatever network namespace it is; none is no error."""
    found = WireguardGo(name, log_path=None)
    process = found.process()
    if process is None:
        found.remove_stale_socket()
        return
    try:
        with suppress(ProcessLookupError):
            signal.pidfd_send_signal(process, signal.SIGTERM)
        found.wait_until_gone(process)
    finally:
        os.close(process)


def _socket() -> GenericNetlink:
    return GenericNetlink(constants.WG_GENL_NAME, constants.WG_GENL_VERSION)
