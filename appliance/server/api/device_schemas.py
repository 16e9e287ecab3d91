"""Declares, parses and builds the bodies of requests and responses about devices."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import msgspec

from appliance.domain import device_name
from appliance.domain.charges import Amount
from appliance.domain.clock import rfc3339, rfc3339_end
from appliance.domain.errors import InvalidRequest
from appliance.network.wireguard import keys
from appliance.server.api import fields  # noqa: TC001 (msgspec and Litestar read annotations at run time)
from appliance.server.api.schemas import given_once, parse_dns, parse_key, parse_limit, parse_session_request

if TYPE_CHECKING:
    from collections.abc import Container, Mapping, Sequence
    from ipaddress import IPv4Address, IPv6Address

    from appliance.domain.device import Condition, Device
    from appliance.sessions.opening import SessionRequest

DEVICE_ID = re.compile(r"dev_[0-9a-f]{24}")


# Requests ------------------------------------------------------------------------------------------


class DeviceRequest(msgspec.Struct, frozen=True):
    """Holds what a client asks for, checked. `peer`: what it asks of a session, too."""

    name: str
    peer: SessionRequest


class DevicePatch(msgspec.Struct, frozen=True):
    """Holds what is to change. None: nothing of it."""

    name: str | None
    paused: bool | None


class Rotation(msgspec.Struct, frozen=True):
    """Holds the new key and the resolvers of the new file, as `SessionRequest` does."""

    public_key: bytes | None
    dns: tuple[IPv4Address | IPv6Address, ...] | None


class DeviceQuery(msgspec.Struct, frozen=True):
    before: str | None
    limit: int


def parse_device_request(body: Mapping[str, object], own_keys: Container[bytes]) -> DeviceRequest:
    """Parses the body of POST /v1/devices; ignores unknown fields. Raises InvalidRequest naming a wrong field."""
    return DeviceRequest(device_name.checked(body.get("name")), parse_session_request(body, own_keys))


def parse_device_patch(body: Mapping[str, object]) -> DevicePatch:
    """Parses the body of PATCH; null is the same as leaving a field out. Raises InvalidRequest naming a wrong field."""
    name, paused = body.get("name"), body.get("paused")
    if not isinstance(paused, bool | None):
        raise InvalidRequest("paused must be true or false")
    return DevicePatch(None if name is None else device_name.checked(name), paused)


def parse_rotation(body: Mapping[str, object], own_keys: Container[bytes]) -> Rotation:
    """Parses the body of POST /v1/devices/{id}/rotate. Raises InvalidRequest naming a wrong field.

    Whether the device's file has IPv6 is not known here.
    """
    return Rotation(parse_key(body, own_keys), parse_dns(body, ipv6=True))


def parse_device_query(pairs: Sequence[tuple[str, str]]) -> DeviceQuery:
    """Parses the query of GET /v1/devices. Raises InvalidRequest naming a wrong parameter."""
    query = given_once(pairs, DeviceQuery.__struct_fields__)
    before, limit = query.get("before"), parse_limit(query)
    if before is not None and DEVICE_ID.fullmatch(before) is None:
        raise InvalidRequest("before must be the id of a device")
    return DeviceQuery(before, limit)


# Responses -----------------------------------------------------------------------------------------


class DeviceCreated(msgspec.Struct, frozen=True):
    """Answers with a device and its file, when it is made and when it gets another key."""

    id: fields.DeviceId
    name: fields.DeviceName
    region: fields.RegionCode
    public_ip: fields.PublicIp
    wg_config: fields.WgConfig
    created_at: fields.CreatedAt
    tier: fields.TierNow

    @classmethod
    def of(cls, d: Device, public_ip: str, wg_config: str) -> DeviceCreated:
        return cls(d.id, d.name, d.region, public_ip, wg_config, rfc3339(d.created_at), d.account_tier)


class Observed(msgspec.Struct, frozen=True):
    """Holds what is known of a device beside its row: where the exit is, and the session that it has, if it has one."""

    public_ip: str
    endpoint: str  # what a file made now would say
    now_ms: int
    session_id: str | None = None
    used: Amount | None = None  # by this session
    last_handshake_at: int | None = None  # of this session


class DeviceStatus(msgspec.Struct, frozen=True, omit_defaults=True):
    """Describes a device. Totals are of all of its sessions, the one that it has among them."""

    id: fields.DeviceId
    name: fields.DeviceName
    region: fields.RegionCode
    public_ip: fields.PublicIp
    public_key: fields.PublicKey
    created_at: fields.CreatedAt
    state: fields.StateOfDevice
    bytes_in: fields.DeviceBytesIn
    bytes_out: fields.DeviceBytesOut
    seconds: fields.DeviceSeconds
    held_reason: fields.ReasonHeld | msgspec.UnsetType = msgspec.UNSET
    held_until: fields.HeldUntil | msgspec.UnsetType = msgspec.UNSET
    stale: fields.Stale | msgspec.UnsetType = msgspec.UNSET
    session_id: fields.SessionId | msgspec.UnsetType = msgspec.UNSET
    last_handshake_at: fields.HandshakeAt | msgspec.UnsetType = msgspec.UNSET

    @classmethod
    def of(cls, d: Device, condition: Condition, seen: Observed) -> DeviceStatus:
        used = seen.used or Amount()
        handshake_at = d.last_handshake_at if seen.last_handshake_at is None else seen.last_handshake_at
        until = condition.held_until
        return cls(
            id=d.id,
            name=d.name,
            region=d.region,
            public_ip=seen.public_ip,
            public_key=keys.encode(d.public_key),
            created_at=rfc3339(d.created_at),
            state=condition.state,
            bytes_in=d.bytes_in + used.bytes_in,
            bytes_out=d.bytes_out + used.bytes_out,
            seconds=(d.counted_ms + used.time_ms) // 1000,
            held_reason=condition.held_reason or msgspec.UNSET,
            held_until=msgspec.UNSET if until is None else rfc3339_end(until),
            stale=list(d.stale(seen.endpoint)) or msgspec.UNSET,
            session_id=seen.session_id or msgspec.UNSET,
            # The wall clock may have been put back since.
            last_handshake_at=msgspec.UNSET if handshake_at is None else rfc3339(min(handshake_at, seen.now_ms)),
        )


class DeviceList(msgspec.Struct, frozen=True):
    devices: list[DeviceStatus]
