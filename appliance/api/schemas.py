"""The shapes of requests and responses."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import msgspec

from appliance.clock import rfc3339
from appliance.errors import InvalidRequest
from appliance.sessions import Wish
from appliance.wireguard import keys

if TYPE_CHECKING:
    from collections.abc import Container, Mapping

    from appliance.entities import Session
    from appliance.sessions import Opened

REGION = re.compile(r"[a-z0-9][a-z0-9-]{0,31}")
SESSION_ID = re.compile(r"ses_[0-9a-f]{24}")
LIST_LIMIT, LIST_LIMIT_MOST = 50, 200


# Requests ------------------------------------------------------------------------------------------


def parse_object(body: bytes) -> dict[str, object]:
    """A JSON object, whatever the Content-Type says. Raises InvalidRequest."""
    try:
        value = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise InvalidRequest("invalid json") from error
    if not isinstance(value, dict):
        raise InvalidRequest("invalid json")
    return value


def parse_wish(body: Mapping[str, object], own_keys: Container[bytes]) -> Wish:
    """What POST /v1/sessions asks for. Raises InvalidRequest naming the field. Unknown fields are ignored."""
    region = body.get("region")
    if region is None:
        raise InvalidRequest("region is required")
    if not isinstance(region, str) or REGION.fullmatch(region) is None:
        raise InvalidRequest(f"region must match ^{REGION.pattern}$")
    public_key = None
    if (text := body.get("client_public_key")) is not None:
        public_key = keys.parse_public_key(text, "client_public_key")
        keys.refuse_weak(public_key, "client_public_key", own_keys)
    ipv6 = body.get("ipv6")
    if not isinstance(ipv6, bool | None):
        raise InvalidRequest("ipv6 must be true or false")
    return Wish(region, public_key, ipv6 is not False)


class ListQuery(msgspec.Struct, frozen=True):
    live: bool
    before: str | None
    limit: int


def parse_list_query(query: Mapping[str, str]) -> ListQuery:
    """Raises InvalidRequest naming the parameter."""
    live = query.get("live", "false")
    if live not in ("true", "false"):
        raise InvalidRequest("live must be true or false")
    limit = query.get("limit", str(LIST_LIMIT))
    if not re.fullmatch(r"[1-9][0-9]{0,2}", limit) or int(limit) > LIST_LIMIT_MOST:
        raise InvalidRequest(f"limit must be 1 to {LIST_LIMIT_MOST}")
    before = query.get("before")
    if before is not None and SESSION_ID.fullmatch(before) is None:
        raise InvalidRequest("before must be the id of a session")
    return ListQuery(live == "true", before, int(limit))


# Responses -----------------------------------------------------------------------------------------


class SessionCreated(msgspec.Struct, frozen=True):
    id: str
    public_ip: str
    wg_config: str
    expires_at: str
    tier: str

    @classmethod
    def of(cls, opened: Opened) -> SessionCreated:
        s = opened.session
        return cls(s.id, s.public_ip, opened.wg_config, rfc3339(s.expires_at), s.tier)


class SessionStatus(msgspec.Struct, frozen=True, omit_defaults=True):
    """`bytes_in` is what the exit received from the client. Absent fields have not happened (yet)."""

    id: str
    tier: str
    region: str
    public_ip: str
    created_at: str
    expires_at: str
    bytes_in: int
    bytes_out: int
    last_handshake_at: str | msgspec.UnsetType = msgspec.UNSET
    terminated_at: str | msgspec.UnsetType = msgspec.UNSET
    terminated_reason: str | msgspec.UnsetType = msgspec.UNSET

    @classmethod
    def of(cls, s: Session) -> SessionStatus:
        def instant(ms: int | None) -> str | msgspec.UnsetType:
            return msgspec.UNSET if ms is None else rfc3339(ms)

        return cls(
            id=s.id,
            tier=s.tier,
            region=s.region,
            public_ip=s.public_ip,
            created_at=rfc3339(s.created_at),
            expires_at=rfc3339(s.expires_at),
            bytes_in=s.bytes_in,
            bytes_out=s.bytes_out,
            last_handshake_at=instant(s.last_handshake_at),
            terminated_at=instant(s.terminated_at),
            terminated_reason=msgspec.UNSET if s.terminated_at is None or s.reason is None else s.reason.value,
        )


class SessionList(msgspec.Struct, frozen=True):
    sessions: list[SessionStatus]


class Region(msgspec.Struct, frozen=True):
    code: str
    node_count: int


class RegionList(msgspec.Struct, frozen=True):
    regions: list[Region]


class Health(msgspec.Struct, frozen=True):
    status: str


class ErrorBody(msgspec.Struct, frozen=True):
    error: str


class RegionErrorBody(msgspec.Struct, frozen=True):
    error: str
    available: list[str] | msgspec.UnsetType = msgspec.UNSET
