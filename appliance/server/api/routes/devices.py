"""Defines the routes below /v1/devices."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from litestar import Request, delete, get, patch, post
from litestar.params import FromPath  # noqa: TC002 (Litestar reads the handlers' annotations at run time)
from litestar.status_codes import HTTP_200_OK

from appliance.domain.errors import DeviceNotFound, InvalidRequest
from appliance.server.api.auth import presented
from appliance.server.api.device_schemas import (
    DeviceCreated,
    DeviceList,
    DeviceStatus,
    Observed,
    parse_device_patch,
    parse_device_query,
    parse_device_request,
    parse_rotation,
)
from appliance.server.api.openapi_devices import CreateDevice, ListDevices, OneDevice, PatchDevice, RotateDeviceKey
from appliance.server.api.openapi_failures import (
    BAD_BODY,
    BAD_PARAMETER,
    KEY_TAKEN,
    NAME_OR_KEY_TAKEN,
    NAME_TAKEN,
    NO_DEVICE,
    NO_MORE_DEVICES,
    NO_NODE,
    NOT_CHANGED,
    TOO_LARGE,
    TOO_MANY,
    UNAUTHENTICATED,
    UNAVAILABLE,
    failures,
)
from appliance.server.api.openapi_operations import BEARER
from appliance.server.api.routes.handling import object_in, options

if TYPE_CHECKING:
    from collections.abc import Container

    from litestar.types import ControllerRouterHandler

    from appliance.server.api.auth import Authenticator
    from appliance.server.api.offered import Offered
    from appliance.sessions.devices.service import DeviceView, HandedOut

ALL, ONE, KEY = "/v1/devices", "/v1/devices/{device_id:str}", "/v1/devices/{device_id:str}/rotate"

AnyRequest = Request[Any, Any, Any]


def _shape(view: DeviceView) -> DeviceStatus:
    session = view.session
    observed = Observed(
        public_ip=view.public_ip,
        endpoint=view.endpoint,
        now_ms=view.now_ms,
        session_id=None if session is None else session.id,
        used=view.used,
        last_handshake_at=None if session is None else session.last_handshake_at,
    )
    return DeviceStatus.of(view.device, view.condition, observed)


def _created(made: HandedOut) -> DeviceCreated:
    return DeviceCreated.of(made.device, made.public_ip, made.wg_config)


def device_routes(
    offered: Offered, authenticate: Authenticator, own_keys: Container[bytes]
) -> list[ControllerRouterHandler]:
    """Returns the routes. `own_keys`: public keys that no client may use, such as the exit's own."""

    @post(
        ALL,
        operation_id="createDevice",
        operation_class=CreateDevice,
        tags=["devices"],
        summary="Make a device",
        response_description="the device, and its file",
        security=BEARER,
        responses=failures(
            s400=BAD_BODY,
            s401=UNAUTHENTICATED,
            s403=NO_MORE_DEVICES,
            s409=NAME_OR_KEY_TAKEN,
            s413=TOO_LARGE,
            s429=TOO_MANY,
            s503=NO_NODE,
        ),
    )
    async def create_device(request: AnyRequest) -> DeviceCreated:
        """Make a device. Its file stays good until it is removed; one that may not connect now is made all the same."""
        account = await authenticate(request)
        wanted = parse_device_request(await object_in(request), own_keys)
        peer = replace(wanted.peer, token_hash=presented(request))
        return _created(await offered.devices.add(account, wanted.name, peer))

    @get(
        ALL,
        operation_id="listDevices",
        operation_class=ListDevices,
        tags=["devices"],
        summary="List the account's devices",
        response_description="the devices",
        security=BEARER,
        responses=failures(s400=BAD_PARAMETER, s401=UNAUTHENTICATED, s429=TOO_MANY, s503=UNAVAILABLE),
    )
    async def list_devices(request: AnyRequest) -> DeviceList:
        """List the account's devices, newest first."""
        account = await authenticate(request)
        query = parse_device_query(list(request.query_params.multi_items()))
        try:
            found = await offered.devices.page(account, before=query.before, limit=query.limit)
        except DeviceNotFound as error:
            raise InvalidRequest("before must be the id of a device") from error
        return DeviceList([_shape(view) for view in found])

    @get(
        ONE,
        operation_id="getDevice",
        operation_class=OneDevice,
        tags=["devices"],
        summary="Show a device",
        response_description="the device's state and figures",
        security=BEARER,
        responses=failures(s401=UNAUTHENTICATED, s404=NO_DEVICE, s429=TOO_MANY, s503=UNAVAILABLE),
    )
    async def get_device(request: AnyRequest, device_id: FromPath[str]) -> DeviceStatus:
        """Show a device: whether it is connected or may be, and the totals of its sessions."""
        account = await authenticate(request)
        return _shape(await offered.devices.find(account, device_id))

    @delete(
        ONE,
        operation_id="deleteDevice",
        operation_class=OneDevice,
        tags=["devices"],
        summary="Remove a device",
        response_description="the device as it was last",
        status_code=HTTP_200_OK,
        security=BEARER,
        responses=failures(s401=UNAUTHENTICATED, s404=NO_DEVICE, s429=TOO_MANY, s503=NOT_CHANGED),
    )
    async def delete_device(request: AnyRequest, device_id: FromPath[str]) -> DeviceStatus:
        """Remove a device: its file is good no more, its session ends. Its peer has gone when this is answered."""
        account = await authenticate(request)
        return _shape(await offered.devices.remove(account, device_id))

    return [
        *(options(ALL, "GET", "POST"), options(ONE, "DELETE", "GET", "PATCH"), options(KEY, "POST")),
        *(create_device, list_devices, get_device, delete_device),
        *_changes(offered, authenticate, own_keys),
    ]


def _changes(
    offered: Offered, authenticate: Authenticator, own_keys: Container[bytes]
) -> list[ControllerRouterHandler]:
    @patch(
        ONE,
        operation_id="patchDevice",
        operation_class=PatchDevice,
        tags=["devices"],
        summary="Rename, pause or resume a device",
        response_description="the device's state and figures",
        security=BEARER,
        responses=failures(
            s400=BAD_BODY,
            s401=UNAUTHENTICATED,
            s404=NO_DEVICE,
            s409=NAME_TAKEN,
            s413=TOO_LARGE,
            s429=TOO_MANY,
            s503=NOT_CHANGED,
        ),
    )
    async def patch_device(request: AnyRequest, device_id: FromPath[str]) -> DeviceStatus:
        """Give a device another name, keep it from connecting, or let it. When this is answered a paused one is out."""
        account = await authenticate(request)
        wanted = parse_device_patch(await object_in(request))
        return _shape(await offered.devices.edit(account, device_id, name=wanted.name, paused=wanted.paused))

    @post(
        KEY,
        operation_id="rotateDevice",
        operation_class=RotateDeviceKey,
        tags=["devices"],
        summary="Give a device another key",
        response_description="the device, and its new file",
        status_code=HTTP_200_OK,
        security=BEARER,
        responses=failures(
            s400=BAD_BODY,
            s401=UNAUTHENTICATED,
            s404=NO_DEVICE,
            s409=KEY_TAKEN,
            s413=TOO_LARGE,
            s429=TOO_MANY,
            s503=NOT_CHANGED,
        ),
    )
    async def rotate_device(request: AnyRequest, device_id: FromPath[str]) -> DeviceCreated:
        """Give a device another key. Its address stays; its old file is good no more, and its session ends."""
        account = await authenticate(request)
        wanted = parse_rotation(await object_in(request, may_be_empty=True), own_keys)
        shown = presented(request)
        return _created(await offered.devices.rotate(account, device_id, wanted.public_key, wanted.dns, shown))

    return [patch_device, rotate_device]
