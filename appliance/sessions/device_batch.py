"""Serves requests that add or change devices, one after another, so that store, memory and tunnel move together."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from appliance.domain.errors import ApplianceError
from appliance.sessions.device_adding import AddDevice
from appliance.sessions.device_changing import ChangeDevice

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from appliance.domain.device import Device
    from appliance.sessions.address_quarantine import AddressQuarantine
    from appliance.sessions.device_adding import DeviceAdding
    from appliance.sessions.device_changing import DeviceChanging
    from appliance.sessions.peer_access import PeerAccess
    from appliance.sessions.records import Records
    from appliance.sessions.reloading import Reloading
    from appliance.sessions.waiting import Waiting

log = logging.getLogger(__name__)


class DeviceBatch:
    """Answers requests for devices. They are few: each has the exit lock, and its transactions, for itself."""

    def __init__(
        self,
        *,
        records: Records,
        peers: PeerAccess,
        reloading: Reloading,
        adding: DeviceAdding,
        changing: DeviceChanging,
        quarantine: AddressQuarantine,
    ) -> None:
        self._records = records
        self._peers = peers
        self._reloading = reloading
        self._adding = adding
        self._changing = changing
        self._quarantine = quarantine

    async def serve(self, cut: Callable[[], Sequence[Waiting[Any]]]) -> bool:
        """Answers the requests that `cut` returns. Leaves nothing to be done: what fails is undone with sessions."""
        for request in cut():
            try:
                async with self._peers.exit_lock:
                    if not request.abandoned:
                        request.succeed(await self._serve(request))
            except ApplianceError as error:
                request.fail(error)
            except Exception as error:
                log.exception("a request for a device failed")
                request.fail(error)
        self._quarantine.begin_release()
        return False

    async def _serve(self, request: Waiting[Any]) -> Device:
        await self._reloading.if_stale()
        if self._records.ended:  # what has ended has its key no more
            async with self._records.committing() as db:
                await self._records.ended.write(db)
            self._records.ended.written()
        if isinstance(request, AddDevice):
            return await self._adding.add(request)
        if isinstance(request, ChangeDevice):
            return await self._changing.change(request)
        raise TypeError(request)
