"""Declares, parses and builds the bodies of requests and responses."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Literal

import msgspec

from appliance.config.value_types import UNICAST
from appliance.domain import accounting, pricing
from appliance.domain.client_file import require_reachable
from appliance.domain.clock import rfc3339, rfc3339_end
from appliance.domain.errors import InvalidJson, InvalidRequest
from appliance.network.wireguard import keys
from appliance.server.api import fields  # noqa: TC001 (msgspec and Litestar read annotations at run time)
from appliance.sessions.opening import SessionRequest

if TYPE_CHECKING:
    from collections.abc import Container, Mapping, Sequence
    from ipaddress import IPv4Address, IPv6Address

    from appliance.domain.clock import Moment
    from appliance.domain.entities import Session
    from appliance.domain.quota import Quota
    from appliance.domain.tiers import Tier
    from appliance.sessions.opening import NewSession

    Address = IPv4Address | IPv6Address

PAUSE = 'its device may connect again; to keep it out: PATCH /v1/devices/{} {{"paused": true}}'
REGION = re.compile(r"[a-z0-9][a-z0-9-]{0,31}")
SESSION_ID = re.compile(r"ses_[0-9a-f]{24}")
DNS_MOST = 3  # what resolv.conf(5) takes
LIST_LIMIT, LIST_LIMIT_MOST = 50, 200


# Requests ------------------------------------------------------------------------------------------


def parse_object(body: bytes) -> dict[str, object]:
    """Parses a JSON object, whatever the Content-Type says. Raises InvalidJson if the body is not one."""
    try:
        value = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise InvalidJson from error
    if not isinstance(value, dict):
        raise InvalidJson
    return value


def parse_session_request(body: Mapping[str, object], own_keys: Container[bytes]) -> SessionRequest:
    """Parses the body of POST /v1/sessions; ignores unknown fields. Raises InvalidRequest naming a wrong field."""
    region = body.get("region")
    if region is None:
        raise InvalidRequest("region is required")
    if not isinstance(region, str) or REGION.fullmatch(region) is None:
        raise InvalidRequest(f"region must match ^{REGION.pattern}$")
    public_key = parse_key(body, own_keys)
    ipv6 = body.get("ipv6")
    if not isinstance(ipv6, bool | None):
        raise InvalidRequest("ipv6 must be true or false")
    return SessionRequest(region, public_key, ipv6 is not False, parse_dns(body, ipv6=ipv6 is not False))


def parse_key(body: Mapping[str, object], own_keys: Container[bytes]) -> bytes | None:
    """Parses `client_public_key`; None: the server makes the key pair."""
    text = body.get("client_public_key")
    if text is None:
        return None
    public_key = keys.parse_public_key(text, "client_public_key")
    keys.refuse_weak(public_key, "client_public_key", own_keys)
    return public_key


def parse_dns(body: Mapping[str, object], *, ipv6: bool) -> tuple[Address, ...] | None:
    """Parses `dns`: the resolvers of the file's DNS line, none for no line; None: the operator's."""
    value = body.get("dns")
    if value is None:
        return None
    if value is False:
        return ()
    try:
        addresses = [UNICAST.parse(each) for each in value] if isinstance(value, list) else []
    except ValueError:
        addresses = []
    if not 1 <= len(addresses) <= DNS_MOST:
        raise InvalidRequest(f"dns must be false or a list of 1 to {DNS_MOST} IP addresses")
    require_reachable(addresses, ipv6=ipv6)
    return tuple(addresses)


class ListQuery(msgspec.Struct, frozen=True):
    live: bool
    before: str | None
    limit: int


def parse_list_query(pairs: Sequence[tuple[str, str]]) -> ListQuery:
    """Parses the query of GET /v1/sessions. Raises InvalidRequest naming a wrong parameter."""
    query = given_once(pairs, ListQuery.__struct_fields__)
    live = query.get("live", "false")
    if live not in ("true", "false"):
        raise InvalidRequest("live must be true or false")
    limit = parse_limit(query)
    before = query.get("before")
    if before is not None and SESSION_ID.fullmatch(before) is None:
        raise InvalidRequest("before must be the id of a session")
    return ListQuery(live == "true", before, limit)


def given_once(pairs: Sequence[tuple[str, str]], known: Sequence[str]) -> dict[str, str]:
    """Returns the query by name. Raises InvalidRequest if a known name is in it twice."""
    names = [name for name, _ in pairs]
    for name in known:
        if names.count(name) > 1:
            raise InvalidRequest(f"{name} must be given once")
    return dict(pairs)


def parse_limit(query: Mapping[str, str]) -> int:
    limit = query.get("limit", str(LIST_LIMIT))
    if not re.fullmatch(r"[1-9][0-9]{0,2}", limit) or int(limit) > LIST_LIMIT_MOST:
        raise InvalidRequest(f"limit must be 1 to {LIST_LIMIT_MOST}")
    return int(limit)


# Responses -----------------------------------------------------------------------------------------


class SessionCreated(msgspec.Struct, frozen=True):
    id: fields.SessionId
    public_ip: fields.PublicIp
    wg_config: fields.WgConfig
    expires_at: fields.ExpiresAt
    tier: fields.TierThen

    @classmethod
    def of(cls, opened: NewSession) -> SessionCreated:
        s = opened.session
        return cls(s.id, s.public_ip, opened.wg_config, rfc3339(s.expires_at), s.tier)


class SessionStatus(msgspec.Struct, frozen=True, omit_defaults=True):
    """Describes a session. `bytes_in`: received from the client. Fields of events that have not happened are absent."""

    id: fields.SessionId
    tier: fields.TierThen
    region: fields.RegionCode
    public_ip: fields.PublicIp
    created_at: fields.CreatedAt
    expires_at: fields.ExpiresAt
    bytes_in: fields.BytesIn
    bytes_out: fields.BytesOut
    seconds: fields.Seconds
    quota_bytes_used: fields.BytesUsed
    quota_bytes_limit: fields.BytesLimit
    quota_seconds_used: fields.SecondsUsed
    quota_seconds_limit: fields.SecondsLimit
    last_handshake_at: fields.HandshakeAt | msgspec.UnsetType = msgspec.UNSET
    terminated_at: fields.TerminatedAt | msgspec.UnsetType = msgspec.UNSET
    terminated_reason: fields.TerminatedReason | msgspec.UnsetType = msgspec.UNSET
    cost_time_millicents: fields.Millicents | msgspec.UnsetType = msgspec.UNSET
    cost_bytes_millicents: fields.Millicents | msgspec.UnsetType = msgspec.UNSET
    cost_currency: fields.Currency | msgspec.UnsetType = msgspec.UNSET
    device_id: fields.SessionsDeviceId | msgspec.UnsetType = msgspec.UNSET
    device_name: fields.SessionsDeviceName | msgspec.UnsetType = msgspec.UNSET
    hint: fields.PauseHint | msgspec.UnsetType = msgspec.UNSET

    @classmethod
    def of(cls, s: Session, quota: Quota, now: Moment, device_name: str | None = None) -> SessionStatus:
        """`device_name`: of the device whose session it is; None: its row has gone, or it is of none."""

        def instant(ms: int | None) -> str | msgspec.UnsetType:
            return msgspec.UNSET if ms is None else rfc3339(ms)

        used = accounting.total(s) + accounting.running(s, now)
        seconds = used.time_ms // 1000
        price = None if s.rates is None else pricing.cost(s.rates, seconds, used.total_bytes)
        return cls(
            id=s.id,
            tier=s.tier,
            region=s.region,
            public_ip=s.public_ip,
            created_at=rfc3339(s.created_at),
            expires_at=rfc3339(s.expires_at),
            bytes_in=s.bytes_in,
            bytes_out=s.bytes_out,
            seconds=seconds,
            quota_bytes_used=quota.bytes_used,
            quota_bytes_limit=quota.bytes_limit,
            quota_seconds_used=quota.seconds_used,
            quota_seconds_limit=quota.seconds_limit,
            # The wall clock may have been put back since.
            last_handshake_at=instant(None if s.last_handshake_at is None else min(s.last_handshake_at, now.wall_ms)),
            terminated_at=instant(s.terminated_at),
            terminated_reason=msgspec.UNSET if s.terminated_at is None or s.ending is None else s.ending,
            cost_time_millicents=msgspec.UNSET if price is None else price.time,
            cost_bytes_millicents=msgspec.UNSET if price is None else price.bytes,
            cost_currency=msgspec.UNSET if s.rates is None else s.rates.currency,
            device_id=s.device_id or msgspec.UNSET,
            device_name=msgspec.UNSET if device_name is None else device_name,
        )

    def closed(self) -> SessionStatus:
        """Returns the answer to who has ended it: a device comes back by itself."""
        if self.device_id is msgspec.UNSET:
            return self
        return msgspec.structs.replace(self, hint=PAUSE.format(self.device_id))


class SessionList(msgspec.Struct, frozen=True):
    sessions: list[SessionStatus]


class Usage(msgspec.Struct, frozen=True):
    """Describes the use of an account's windows. A limit of 0: no limit."""

    tier: fields.TierNow
    bytes_used: fields.BytesUsed
    bytes_limit: fields.BytesLimit
    session_seconds: fields.SecondsUsed
    session_seconds_limit: fields.SecondsLimit
    max_session_seconds: fields.MaxSession
    bytes_window_resets_at: fields.ResetsAt
    seconds_window_resets_at: fields.ResetsAt

    @classmethod
    def of(cls, tier: Tier, quota: Quota, max_session: int) -> Usage:
        return cls(
            tier=tier,
            bytes_used=quota.bytes_used,
            bytes_limit=quota.bytes_limit,
            session_seconds=quota.seconds_used,
            session_seconds_limit=quota.seconds_limit,
            max_session_seconds=max_session,
            bytes_window_resets_at=rfc3339_end(quota.bytes_resets_at),
            seconds_window_resets_at=rfc3339_end(quota.seconds_resets_at),
        )


class Region(msgspec.Struct, frozen=True):
    code: fields.RegionCode
    node_count: fields.NodeCount


class RegionList(msgspec.Struct, frozen=True):
    regions: list[Region]


class Health(msgspec.Struct, frozen=True):
    status: Literal["ok"]


class ErrorBody(msgspec.Struct, frozen=True):
    error: fields.ErrorText
    code: fields.Code


class QuotaErrorBody(msgspec.Struct, frozen=True):
    error: fields.ErrorText
    code: fields.Code
    tier: fields.TierNow
    bytes_used: fields.BytesUsed
    bytes_limit: fields.BytesLimit
    session_seconds: fields.SecondsUsed
    session_limit: fields.SecondsLimit
    bytes_window_resets_at: fields.ResetsAt
    seconds_window_resets_at: fields.ResetsAt
    resets_at: fields.ResetsAt
    hint: fields.Hint


class RegionErrorBody(msgspec.Struct, frozen=True):
    error: fields.ErrorText
    code: fields.Code
    available: fields.Regions | msgspec.UnsetType = msgspec.UNSET
