"""Calls every operation by the client that openapi-python-client has made, and prints what it was told as JSON."""

from __future__ import annotations

import json
import os
import sys

from wg_appliance_client import AuthenticatedClient, Client
from wg_appliance_client.api.devices import (
    create_device,
    delete_device,
    get_device,
    list_devices,
    patch_device,
    rotate_device,
)
from wg_appliance_client.api.operations import get_health, get_readiness
from wg_appliance_client.api.regions import list_regions
from wg_appliance_client.api.sessions import create_session, delete_session, get_session, list_sessions
from wg_appliance_client.api.usage import get_usage
from wg_appliance_client.models import (
    DeviceCreated,
    DeviceList,
    DevicePatch,
    DeviceRequest,
    DeviceRotation,
    DeviceStatus,
    ErrorBody,
    Health,
    RegionErrorBody,
    RegionList,
    SessionCreated,
    SessionList,
    SessionRequest,
    SessionStatus,
    Usage,
)

api = AuthenticatedClient(base_url=os.environ["API"], token=os.environ["TOKEN"])
stranger = Client(base_url=os.environ["API"])

opened = create_session.sync(client=api, body=SessionRequest(region="fsn", dns=["9.9.9.9"]))
assert isinstance(opened, SessionCreated)
shown = get_session.sync(opened.id, client=api)
assert isinstance(shown, SessionStatus)
listed = list_sessions.sync(client=api, live=True, limit=5)
assert isinstance(listed, SessionList)
refused = create_session.sync(client=api, body=SessionRequest(region="nowhere", client_public_key=None))
assert isinstance(refused, RegionErrorBody)
ended = delete_session.sync(opened.id, client=api)
assert isinstance(ended, SessionStatus)
unknown = get_session.sync("ses_1", client=api)
assert isinstance(unknown, ErrorBody)
usage = get_usage.sync(client=api)
assert isinstance(usage, Usage)
regions = list_regions.sync(client=stranger)
assert isinstance(regions, RegionList)
healthy, ready = get_health.sync(client=stranger), get_readiness.sync(client=stranger)
assert isinstance(healthy, Health)
assert isinstance(ready, Health)
nobody = get_usage.sync(client=AuthenticatedClient(base_url=os.environ["API"], token="", prefix=""))
assert isinstance(nobody, ErrorBody)

made = create_device.sync(client=api, body=DeviceRequest(name="phone", region="fsn"))
assert isinstance(made, DeviceCreated)
paused = patch_device.sync(made.id, client=api, body=DevicePatch(paused=True))
assert isinstance(paused, DeviceStatus)
rotated = rotate_device.sync(made.id, client=api, body=DeviceRotation(dns=False))
assert isinstance(rotated, DeviceCreated)
device = get_device.sync(made.id, client=api)
assert isinstance(device, DeviceStatus)
devices = list_devices.sync(client=api, limit=5)
assert isinstance(devices, DeviceList)
removed = delete_device.sync(made.id, client=api)
assert isinstance(removed, DeviceStatus)
gone = get_device.sync(made.id, client=api)
assert isinstance(gone, ErrorBody)

told = {
    "id": opened.id,
    "tier": opened.tier,
    "wg_config": opened.wg_config,
    "listed": [each.id for each in listed.sessions],
    "shown": shown.id,
    "expires_in_days": (shown.expires_at - shown.created_at).days,
    "ended": ended.terminated_reason,
    "bytes_limit": usage.bytes_limit,
    "device": [made.name, paused.state, device.state, removed.state, gone.code],
    "devices": [each.id == made.id for each in devices.devices],
    "keys": made.wg_config != rotated.wg_config,
    "regions": [each.code for each in regions.regions],
    "healthy": healthy.status,
    "ready": ready.status,
    "refused": {"code": refused.code, "available": refused.available},
    "unknown": unknown.code,
    "stranger": nobody.code,
}
sys.stdout.write(json.dumps(told))
