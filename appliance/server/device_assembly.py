"""Builds what adds and changes devices, around what it shares with sessions."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from appliance.sessions.devices.adding import AddDevice, DeviceAdding
from appliance.sessions.devices.batch import DeviceBatch
from appliance.sessions.devices.changing import DeviceChanging, RemoveDevice
from appliance.sessions.devices.service import DeviceService
from appliance.sessions.waiting import Queue

if TYPE_CHECKING:
    from appliance.server.session_assembly import Shared, Turning
    from appliance.sessions.devices.policy import DevicePolicy
    from appliance.sessions.reloading import Reloading
    from appliance.sessions.waiting import Waiting


def build_service(shared: Shared, reloading: Reloading, turning: Turning, policy: DevicePolicy) -> DeviceService:
    adding = _build_adding(shared, reloading, turning, policy)
    changing = _build_changing(shared, reloading, turning, policy)
    queue = _build_queue(shared, reloading, turning, adding, changing)
    return DeviceService(
        records=shared.records,
        queue=queue,
        peers=shared.peers,
        quarantine=shared.addresses.quarantine,
        exit_=shared.exit,
        policy=policy,
    )


def _build_queue(
    shared: Shared, reloading: Reloading, turning: Turning, adding: DeviceAdding, changing: DeviceChanging
) -> Queue:
    batch = DeviceBatch(
        records=shared.records,
        peers=shared.peers,
        reloading=reloading,
        adding=adding,
        changing=changing,
        holding=turning.holding,
        quarantine=shared.addresses.quarantine,
    )

    def undo(request: Waiting[Any]) -> None:
        """Removes a device that was made and of which nobody was told. Other changes have been made."""
        if isinstance(request, AddDevice):
            removal = RemoveDevice(request.account, request.answer.result().id)
            removal.answer.add_done_callback(lambda answer: answer.cancelled() or answer.exception())
            queue.put(removal)

    queue = Queue(batch.serve, undo)
    return queue


def _build_adding(shared: Shared, reloading: Reloading, turning: Turning, policy: DevicePolicy) -> DeviceAdding:
    return DeviceAdding(
        records=shared.records,
        peers=shared.peers,
        reloading=reloading,
        pool=shared.addresses.pool,
        undo=shared.undo,
        exit_=shared.exit,
        policy=policy,
        holding=turning.holding,
        schedule=shared.schedule,
    )


def _build_changing(shared: Shared, reloading: Reloading, turning: Turning, policy: DevicePolicy) -> DeviceChanging:
    return DeviceChanging(
        records=shared.records,
        peers=shared.peers,
        reloading=reloading,
        arrivals=turning.arrivals,
        ending=turning.ending,
        quarantine=shared.addresses.quarantine,
        exit_=shared.exit,
        policy=policy,
        schedule=shared.schedule,
    )
