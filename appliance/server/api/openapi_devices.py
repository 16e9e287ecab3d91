"""Documents the operations on devices beyond what the handlers' types show."""

from __future__ import annotations

from dataclasses import dataclass

from litestar.openapi.spec import OpenAPIType, Parameter, Schema

from appliance.domain.device_name import LONGEST
from appliance.server.api.openapi_operations import (
    A_KEY,
    Documented,
    body,
    client_public_key,
    page_parameters,
    resolvers,
    session_request,
    without_400,
)

A_DEVICE = "dev_5f2b81d0c3a94e6f7a1d2e3c"


def device_requests() -> list[Schema]:
    """Returns the schemas of bodies, each by its title."""
    text, boolean, null, an_object = OpenAPIType.STRING, OpenAPIType.BOOLEAN, OpenAPIType.NULL, OpenAPIType.OBJECT
    name = f"1 to {LONGEST} printable characters without / and without white space at the ends; unique in the account"
    return [
        Schema(
            title="DeviceRequest",
            type=an_object,
            required=["name", "region"],
            properties={
                "name": Schema(type=text, min_length=1, description=name, examples=["phone"]),
                **(session_request().properties or {}),
            },
        ),
        Schema(
            title="DevicePatch",
            type=an_object,
            properties={
                "name": Schema(type=[text, null], min_length=1, description=name, examples=["old phone"]),
                "paused": Schema(
                    type=[boolean, null],
                    description="true: it may not connect, its session ends; false: it may; left out: as it is",
                    examples=[True],
                ),
            },
        ),
        Schema(
            title="DeviceRotation",
            type=an_object,
            properties={"client_public_key": client_public_key(), "dns": resolvers()},
        ),
    ]


@dataclass
class CreateDevice(Documented):
    def __post_init__(self) -> None:
        super().__post_init__()
        self.request_body = body(
            "DeviceRequest",
            the_server_makes_the_key_pair={"name": "phone", "region": "local"},
            own_key={"name": "phone", "region": "local", "client_public_key": A_KEY},
        )


@dataclass
class ListDevices(Documented):
    def __post_init__(self) -> None:
        super().__post_init__()
        self.parameters = [*page_parameters("devices", "^dev_[0-9a-f]{24}$", A_DEVICE)]


def _device_id() -> Parameter:
    return Parameter(
        "device_id",
        "path",
        schema=Schema(type=OpenAPIType.STRING, examples=[A_DEVICE]),
        description="from POST /v1/devices",
        required=True,
    )


@dataclass
class OneDevice(Documented):
    """Documents an operation without a body on one device, without Litestar's 400: a malformed id is answered 404."""

    def __post_init__(self) -> None:
        self.responses = without_400(self.responses)
        super().__post_init__()
        self.parameters = [_device_id()]


@dataclass
class PatchDevice(Documented):
    def __post_init__(self) -> None:
        super().__post_init__()
        self.parameters = [_device_id()]
        self.request_body = body("DevicePatch", another_name={"name": "old phone"}, kept_out={"paused": True})


@dataclass
class RotateDeviceKey(Documented):
    def __post_init__(self) -> None:
        super().__post_init__()
        self.parameters = [_device_id()]
        self.request_body = body(
            "DeviceRotation",
            required=False,
            the_server_makes_the_key_pair={},
            own_key={"client_public_key": A_KEY},
        )
