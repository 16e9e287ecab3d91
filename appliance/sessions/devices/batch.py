"""Serves requests that add or change devices, one after another, so that store, memory and tunnel move together."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Any

from appliance.domain.errors import ApplianceError, PeerApplyFailed
from appliance.sessions.devices.adding import AddDevice
from appliance.sessions.devices.changing import ChangeDevice, SessionDue

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from appliance.domain.device import Device
    from appliance.sessions.address_quarantine import AddressQuarantine
    from appliance.sessions.devices.adding import DeviceAdding
    from appliance.sessions.devices.changing import DeviceChanging
    from appliance.sessions.holding import Holding
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
        holding: Holding,
        quarantine: AddressQuarantine,
    ) -> None:
        self._records = records
        self._peers = peers
        self._reloading = reloading
        self._adding = adding
        self._changing = changing
        self._holding = holding
        self._quarantine = quarantine

    async def serve(self, cut: Callable[[], Sequence[Waiting[Any]]]) -> bool:
        """Answers the requests that `cut` returns. Leaves nothing to be done: what fails is undone with sessions."""
        for request in cut():
            try:
                request.succeed(await self._serve(request))
            except ApplianceError as error:
                request.fail(error)
            except Exception as error:
                log.exception("a request for a device failed")
                request.fail(error)
        self._quarantine.begin_release()
        return False

    async def _serve(self, request: Waiting[Any]) -> Device:
        try:
            async with self._peers.exit_lock:
                return await self._serve_now(request, wait=True)
        except SessionDue as due:
            await asyncio.wait((due.answer,), timeout=self._peers.apply_timeout)
        async with self._peers.exit_lock:
            return await self._serve_now(request, wait=False)

    async def _serve_now(self, request: Waiting[Any], *, wait: bool) -> Device:
        if request.abandoned:
            raise PeerApplyFailed
        await self._reloading.if_stale()
        if self._records.ended:  # what has ended has its key no more
            async with self._records.committing() as db:
                await self._records.ended.write(db)
            self._records.ended.written()
        if isinstance(request, AddDevice):
            return await self._adding.add(request)
        if isinstance(request, ChangeDevice):
            device = await self._changing.change(request, wait=wait)
            self._holding.changed(device.account_id, device.public_key)
            return device
        raise TypeError(request)
