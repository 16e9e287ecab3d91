"""Builds what adds and changes devices, around what it shares with sessions."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from appliance.sessions.device_adding import AddDevice, DeviceAdding
from appliance.sessions.device_batch import DeviceBatch
from appliance.sessions.device_changing import DeviceChanging, RemoveDevice
from appliance.sessions.device_service import DeviceService
from appliance.sessions.waiting import Queue

if TYPE_CHECKING:
    from appliance.server.session_assembly import Shared
    from appliance.sessions.device_policy import DevicePolicy
    from appliance.sessions.ending import Ending
    from appliance.sessions.holding import Holding
    from appliance.sessions.reloading import Reloading
    from appliance.sessions.waiting import Waiting


def build_service(
    shared: Shared, reloading: Reloading, ending: Ending, holding: Holding, policy: DevicePolicy
) -> DeviceService:
    queue = _build_queue(
        shared, reloading, _build_adding(shared, holding, policy), _build_changing(shared, reloading, ending, policy)
    )
    return DeviceService(
        records=shared.records,
        queue=queue,
        peers=shared.peers,
        quarantine=shared.addresses.quarantine,
        exit_=shared.exit,
        policy=policy,
    )


def _build_queue(shared: Shared, reloading: Reloading, adding: DeviceAdding, changing: DeviceChanging) -> Queue:
    batch = DeviceBatch(
        records=shared.records,
        peers=shared.peers,
        reloading=reloading,
        adding=adding,
        changing=changing,
        quarantine=shared.addresses.quarantine,
    )

    def undo(request: Waiting[Any]) -> None:
        """Removes a device that was made and of which nobody was told. Other changes have been made."""
        if isinstance(request, AddDevice):
            queue.put(RemoveDevice(request.account, request.answer.result().id))

    queue = Queue(batch.serve, undo)
    return queue


def _build_adding(shared: Shared, holding: Holding, policy: DevicePolicy) -> DeviceAdding:
    return DeviceAdding(
        records=shared.records,
        peers=shared.peers,
        pool=shared.addresses.pool,
        undo=shared.undo,
        exit_=shared.exit,
        policy=policy,
        holding=holding,
        schedule=shared.schedule,
    )


def _build_changing(shared: Shared, reloading: Reloading, ending: Ending, policy: DevicePolicy) -> DeviceChanging:
    return DeviceChanging(
        records=shared.records,
        peers=shared.peers,
        reloading=reloading,
        ending=ending,
        quarantine=shared.addresses.quarantine,
        exit_=shared.exit,
        policy=policy,
        schedule=shared.schedule,
    )
