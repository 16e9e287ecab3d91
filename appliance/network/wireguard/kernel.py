"""Implements `TunnelDevice` for the kernel's WireGuard: generic netlink for the device, rtnetlink for the interface."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

from appliance.domain.errors import TunnelError
from appliance.network.netlink import constants
from appliance.network.netlink.generic import GenericNetlink, NetlinkError
from appliance.network.wireguard import encode, link, link_state
from appliance.network.wireguard.batch import Refused, send_batches
from appliance.network.wireguard.parse import DumpParser

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from appliance.network.wireguard.encode import PeerEntry
    from appliance.network.wireguard.tunnel import DeviceChange, Dump, Link, LinkChange, PeerChange, RemotePeer

KIND = "wireguard"  # what rtnetlink calls such an interface


def open_netlink() -> GenericNetlink:
    return GenericNetlink(constants.WG_GENL_NAME, constants.WG_GENL_VERSION)


class KernelDevice:
    """Controls a WireGuard interface of the kernel.

    The netlink socket stays in the network namespace in which the first call opens it, until `close`.
    """

    backend = "kernel"

    def __init__(self, interface_name: str, netlink: GenericNetlink | None = None) -> None:
        self.interface_name = interface_name
        self._netlink = netlink or open_netlink()
        self._parser: DumpParser | None = None

    @property
    def dump_retries(self) -> int:
        return self._netlink.dump_retries

    def link(self) -> Link | None:
        return link_state.read_link(self.interface_name, KIND)

    def change_link(self, change: LinkChange) -> None:
        if change.create and self.link() is None:
            link.create_wireguard(self.interface_name)
        link.change_link(self.interface_name, change)

    def configure(self, change: DeviceChange) -> None:
        self._set("configuring the device", encode.device_body(self.interface_name, change))

    def dial(self, remote: RemotePeer, private_key: bytes | None = None) -> None:
        self._set("dialling", encode.dial_body(self.interface_name, remote, private_key))

    def dump(self) -> Dump:
        with self._errors("reading the device"):
            if self._parser is None:
                self._parser = DumpParser(self._netlink.family_id())
            return self._netlink.dump(self._parser, constants.WG_CMD_GET_DEVICE, encode.interface(self.interface_name))

    def apply(self, changes: Sequence[PeerChange]) -> None:
        send_batches(self.interface_name, encode.peer_entries(changes), self._set_peers)

    def delete(self) -> None:
        link.delete_link(self.interface_name, KIND)

    def close(self) -> None:
        self._netlink.close()

    def _set_peers(self, entries: Sequence[PeerEntry], again: bool) -> None:
        self._set("changing peers", encode.peers_body(self.interface_name, entries, again=again))

    def _set(self, action: str, body: bytes) -> None:
        with self._errors(action):
            self._netlink.request(constants.WG_CMD_SET_DEVICE, body)

    @contextmanager
    def _errors(self, action: str) -> Iterator[None]:
        try:
            yield
        except NetlinkError as error:
            raise Refused(f"{self.interface_name}: {action}", str(error)) from error
        except OSError as error:
            raise TunnelError(f"{self.interface_name}: {action}: {error}") from error
