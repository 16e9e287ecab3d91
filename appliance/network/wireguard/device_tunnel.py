"""Makes a `Tunnel` of a blocking `TunnelDevice`: runs its calls in a worker thread."""

from __future__ import annotations

from functools import partial
from itertools import islice
from typing import TYPE_CHECKING

from appliance.network.wireguard.batch import MOST_REFUSED, PeersRefused, joined
from appliance.network.wireguard.worker import Worker

if TYPE_CHECKING:
    from collections.abc import Iterable

    from appliance.network.wireguard.tunnel import DeviceChange, Dump, Link, LinkChange, PeerChange, TunnelDevice

# Changes in one piece, as many as a batch of requests has: as Python objects they take 600 bytes each.
AT_ONCE = 256


class DeviceTunnel:
    """Awaits the calls of `device`, one after another.

    They are made in the network namespace in which the first call is awaited: the thread starts there.
    """

    def __init__(self, device: TunnelDevice) -> None:
        self._device = device
        self._worker = Worker(f"wireguard-{device.interface_name}")

    @property
    def backend(self) -> str:
        return self._device.backend

    @property
    def dump_retries(self) -> int:
        return self._device.dump_retries

    async def link(self) -> Link | None:
        return await self._worker.run(self._device.link)

    async def change_link(self, change: LinkChange) -> None:
        await self._worker.run(partial(self._device.change_link, change))

    async def configure(self, change: DeviceChange) -> None:
        await self._worker.run(partial(self._device.configure, change))

    async def dump(self) -> Dump:
        return await self._worker.run(self._device.dump)

    async def apply(self, changes: Iterable[PeerChange]) -> None:
        coming, refused = iter(changes), list[PeersRefused]()
        while piece := tuple(islice(coming, AT_ONCE)):
            try:
                await self._worker.run(partial(self._device.apply, piece))
            except PeersRefused as error:
                refused.append(error)
                if error.gave_up or sum(len(each.reasons) for each in refused) > MOST_REFUSED:
                    break
            del piece  # before the next is made
        if refused:
            raise joined(refused, left=next(coming, None) is not None)

    async def delete(self) -> None:
        await self._worker.run(self._device.delete)

    async def close(self) -> None:
        await self._worker.close(self._device.close)
