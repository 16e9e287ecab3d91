"""The kernel's own WireGuard: generic netlink for the device, rtnetlink for the interface."""

from __future__ import annotations

from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING

from appliance.domain.errors import TunnelError
from appliance.network.netlink import constants
from appliance.network.netlink.generic import GenericNetlink, NetlinkError
from appliance.network.wireguard import link
from appliance.network.wireguard.batch import Refused, put_through
from appliance.network.wireguard.encode import device_body, interface, peer_entries, peers_body
from appliance.network.wireguard.parse import DumpParser
from appliance.network.wireguard.worker import Worker

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from appliance.network.wireguard.encode import PeerEntry
    from appliance.network.wireguard.tunnel import DeviceChange, Dump, Link, LinkChange, PeerChange

KIND = "wireguard"  # what rtnetlink calls such an interface


class KernelTunnel:
    """A WireGuard interface of the kernel, in the network namespace its calls are made from."""

    def __init__(self, interface_name: str) -> None:
        self._name = interface_name
        self._worker = Worker(f"wireguard-{interface_name}")
        self._device = GenericNetlink(constants.WG_GENL_NAME, constants.WG_GENL_VERSION)
        self._parser: DumpParser | None = None

    @property
    def backend(self) -> str:
        return "kernel"

    @property
    def dump_retries(self) -> int:
        return self._device.dump_retries

    async def link(self) -> Link | None:
        return await self._worker.run(partial(link.read_link, self._name, KIND))

    async def change_link(self, change: LinkChange) -> None:
        await self._worker.run(partial(self._change_link, change))

    async def configure(self, change: DeviceChange) -> None:
        await self._worker.run(partial(self._configure, change))

    async def dump(self) -> Dump:
        return await self._worker.run(self._dump)

    async def apply(self, changes: Sequence[PeerChange]) -> None:
        await self._worker.run(partial(self._apply, tuple(changes)))

    async def delete(self) -> None:
        await self._worker.run(partial(link.delete_link, self._name, KIND))

    async def close(self) -> None:
        await self._worker.close(self._device.close)

    def _change_link(self, change: LinkChange) -> None:
        if change.create and link.read_link(self._name, KIND) is None:
            link.create_wireguard(self._name)
        link.change_link(self._name, change)

    def _configure(self, change: DeviceChange) -> None:
        with self._errors("configuring the device"):
            self._device.request(constants.WG_CMD_SET_DEVICE, device_body(self._name, change))

    def _dump(self) -> Dump:
        with self._errors("reading the device"):
            if self._parser is None:
                self._parser = DumpParser(self._device.family_id())
            return self._device.dump(self._parser, constants.WG_CMD_GET_DEVICE, interface(self._name))

    def _apply(self, changes: Sequence[PeerChange]) -> None:
        put_through(self._name, peer_entries(changes), self._set_peers)

    def _set_peers(self, entries: Sequence[PeerEntry], again: bool) -> None:
        with self._errors("changing peers"):
            self._device.request(constants.WG_CMD_SET_DEVICE, peers_body(self._name, entries, again=again))

    @contextmanager
    def _errors(self, doing: str) -> Iterator[None]:
        try:
            yield
        except NetlinkError as error:
            raise Refused(f"{self._name}: {doing}", str(error)) from error
        except OSError as error:
            raise TunnelError(f"{self._name}: {doing}: {error}") from error
