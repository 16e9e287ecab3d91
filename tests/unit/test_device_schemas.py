"""What is asked about devices, and what is answered."""

from __future__ import annotations

import json
from ipaddress import ip_address
from typing import Any

import msgspec
import pytest
from msgspec import structs

from appliance.domain import device
from appliance.domain.charges import Amount
from appliance.domain.device import Condition, DeviceState, HeldReason
from appliance.domain.errors import InvalidRequest
from appliance.network.wireguard import keys
from appliance.server.api.device_schemas import (
    DeviceCreated,
    DeviceList,
    DevicePatch,
    DeviceQuery,
    DeviceRequest,
    DeviceStatus,
    Observed,
    Rotation,
    parse_device_patch,
    parse_device_query,
    parse_device_request,
    parse_rotation,
)
from appliance.sessions.opening import SessionRequest
from tests.support.unit.a_device import A_DEVICE

KEY = keys.generate_key_pair()[1]
KEY_TEXT = keys.encode(KEY)
SERVERS = keys.generate_key_pair()[1]
QUAD9 = ip_address("9.9.9.9")
FULL = {"name": " phone ", "region": "fsn", "client_public_key": KEY_TEXT, "ipv6": False, "dns": ["9.9.9.9"]}

ASKED: dict[str, tuple[dict[str, Any], DeviceRequest]] = {
    "the least": ({"name": "phone", "region": "fsn"}, DeviceRequest("phone", SessionRequest("fsn"))),
    "all there is": (FULL, DeviceRequest("phone", SessionRequest("fsn", KEY, ipv6=False, dns=(QUAD9,)))),
    "nulls": (
        {"name": "phone", "region": "fsn", "client_public_key": None, "ipv6": None, "dns": None},
        DeviceRequest("phone", SessionRequest("fsn")),
    ),
    "no DNS line": (
        {"name": "phone", "region": "fsn", "dns": False},
        DeviceRequest("phone", SessionRequest("fsn", dns=())),
    ),
    "unknown fields": (
        {"name": "phone", "region": "fsn", "paused": True, "id": 7},
        DeviceRequest("phone", SessionRequest("fsn")),
    ),
}


@pytest.mark.parametrize(("body", "asked"), ASKED.values(), ids=ASKED)
def test_a_device_is_asked_for(body: dict[str, Any], asked: DeviceRequest) -> None:
    """A device has a name, and what a session is asked for with."""
    assert parse_device_request(body, {SERVERS}) == asked


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "no name": ({"region": "fsn"}, "name is required"),
    "a name that is a number": ({"name": 7, "region": "fsn"}, "name must be text"),
    "an empty name": ({"name": " ", "region": "fsn"}, "name must be 1 to 64 characters, not 0"),
    "no region": ({"name": "phone"}, "region is required"),
    "a region that is none": ({"name": "phone", "region": "FSN"}, "region must match ^[a-z0-9][a-z0-9-]{0,31}$"),
    "the exit's key": (FULL | {"client_public_key": keys.encode(SERVERS)}, "client_public_key"),
    "a key that is none": (FULL | {"client_public_key": "phone"}, "client_public_key"),
    "IPv6 in words": (FULL | {"ipv6": "no"}, "ipv6 must be true or false"),
    "resolvers of IPv6 alone": (FULL | {"dns": ["2620:fe::fe"]}, "dns has no IPv4 address, and ipv6 is false"),
}


@pytest.mark.parametrize(("body", "message"), REFUSED.values(), ids=REFUSED)
def test_a_wrong_field_is_named(body: dict[str, Any], message: str) -> None:
    """The refusal begins with the field."""
    with pytest.raises(InvalidRequest) as refusal:
        parse_device_request(body, {SERVERS})
    assert str(refusal.value).startswith(message)


PATCHES: dict[str, tuple[dict[str, Any], DevicePatch | str]] = {
    "nothing": ({}, DevicePatch(None, None)),
    "a name": ({"name": "phone "}, DevicePatch("phone", None)),
    "a pause": ({"paused": True}, DevicePatch(None, True)),
    "its end": ({"paused": False}, DevicePatch(None, False)),
    "both": ({"name": "phone", "paused": True}, DevicePatch("phone", True)),
    "nulls": ({"name": None, "paused": None}, DevicePatch(None, None)),
    "unknown fields": ({"region": "fsn", "state": "idle", "Paused": True}, DevicePatch(None, None)),
    "a name that is none": ({"name": "a/b"}, "name must not contain /"),
    "a name that is a list": ({"name": ["phone"]}, "name must be text"),
    "a number": ({"paused": 1}, "paused must be true or false"),
    "a word": ({"paused": "true"}, "paused must be true or false"),
    "both wrong": ({"name": "", "paused": "no"}, "paused must be true or false"),
}


@pytest.mark.parametrize(("body", "outcome"), PATCHES.values(), ids=PATCHES)
def test_what_is_to_change_is_named(body: dict[str, Any], outcome: DevicePatch | str) -> None:
    """What is left out stays, what is unknown is ignored, and what is wrong is refused."""
    if isinstance(outcome, str):
        with pytest.raises(InvalidRequest) as refusal:
            parse_device_patch(body)
        assert str(refusal.value) == outcome
    else:
        assert parse_device_patch(body) == outcome


def test_a_rotation_may_bring_its_key() -> None:
    """The server makes the key unless the client has one; resolvers are as for a session."""
    assert parse_rotation({}, {SERVERS}) == Rotation(None, None)
    assert parse_rotation({"client_public_key": KEY_TEXT, "dns": False}, {SERVERS}) == Rotation(KEY, ())
    with pytest.raises(InvalidRequest, match="client_public_key"):
        parse_rotation({"client_public_key": keys.encode(SERVERS)}, {SERVERS})


AN_ID = "dev_5f2b81d0c3a94e6f7a1d2e3c"
QUERIES: dict[str, tuple[list[tuple[str, str]], DeviceQuery | str]] = {
    "nothing": ([], DeviceQuery(None, 50)),
    "a page": ([("limit", "7"), ("before", AN_ID)], DeviceQuery(AN_ID, 7)),
    "the largest page": ([("limit", "200")], DeviceQuery(None, 200)),
    "unknown": ([("live", "perhaps"), ("live", "no")], DeviceQuery(None, 50)),
    "too large a page": ([("limit", "201")], "limit must be 1 to 200"),
    "no page": ([("limit", "0")], "limit must be 1 to 200"),
    "twice": ([("limit", "7"), ("limit", "7")], "limit must be given once"),
    "a session": ([("before", "ses_b0897940b5aa508cb4c22562")], "before must be the id of a device"),
    "an empty id": ([("before", "")], "before must be the id of a device"),
}


@pytest.mark.parametrize(("pairs", "outcome"), QUERIES.values(), ids=QUERIES)
def test_pages_are_asked_for_as_those_of_sessions(pairs: list[tuple[str, str]], outcome: DeviceQuery | str) -> None:
    """Limit and bounds are those of sessions; what is wrong is named."""
    if isinstance(outcome, str):
        with pytest.raises(InvalidRequest) as refusal:
            parse_device_query(pairs)
        assert str(refusal.value) == outcome
    else:
        assert parse_device_query(pairs) == outcome


# Answers ---------------------------------------------------------------------------------------------

SEEN = Observed("192.0.2.1", A_DEVICE.endpoint, 100_000)
NEW = {
    "id": "dev_1",
    "name": "phone",
    "region": "fsn",
    "public_ip": "192.0.2.1",
    "public_key": keys.encode(A_DEVICE.public_key),
    "created_at": "1970-01-01T00:00:01Z",
    "state": "idle",
    "bytes_in": 0,
    "bytes_out": 0,
    "seconds": 0,
}
USED = structs.replace(A_DEVICE, bytes_in=10, bytes_out=20, counted_ms=1_600, last_handshake_at=40_000)
TOTALS = {"bytes_in": 10, "bytes_out": 20, "seconds": 1, "last_handshake_at": "1970-01-01T00:00:40Z"}
LIVE = structs.replace(SEEN, session_id="ses_1", used=Amount(1_600, 1, 2), last_handshake_at=50_000)
SUMS = {"bytes_in": 11, "bytes_out": 22, "seconds": 3, "last_handshake_at": "1970-01-01T00:00:50Z"}

ANSWERS: dict[str, tuple[DeviceStatus, dict[str, Any]]] = {
    "a new device": (DeviceStatus.of(A_DEVICE, device.IDLE, SEEN), {}),
    "one that was used": (DeviceStatus.of(USED, device.IDLE, SEEN), TOTALS),
    "one that is in use": (
        DeviceStatus.of(USED, device.CONNECTED, LIVE),
        SUMS | {"state": "connected", "session_id": "ses_1"},
    ),
    "its session has no handshake yet": (
        DeviceStatus.of(USED, device.CONNECTED, structs.replace(LIVE, used=Amount(), last_handshake_at=None)),
        TOTALS | {"state": "connected", "session_id": "ses_1"},
    ),
    "the clock was put back": (
        DeviceStatus.of(USED, device.IDLE, structs.replace(SEEN, now_ms=39_000)),
        TOTALS | {"last_handshake_at": "1970-01-01T00:00:39Z"},
    ),
    "paused": (DeviceStatus.of(A_DEVICE, device.PAUSED, SEEN), {"state": "paused"}),
    "removed": (DeviceStatus.of(A_DEVICE, device.REMOVED, SEEN), {"state": "removed"}),
    "held": (
        DeviceStatus.of(A_DEVICE, Condition(DeviceState.HELD, HeldReason.DRAINED), SEEN),
        {"state": "held", "held_reason": "drained"},
    ),
    "held until then": (
        DeviceStatus.of(A_DEVICE, Condition(DeviceState.HELD, HeldReason.QUOTA_EXCEEDED, 5_001), SEEN),
        {"state": "held", "held_reason": "quota_exceeded", "held_until": "1970-01-01T00:00:06Z"},
    ),
    "the exit has moved": (
        DeviceStatus.of(A_DEVICE, device.IDLE, structs.replace(SEEN, public_ip="::1", endpoint="[::1]:51820")),
        {"public_ip": "::1", "stale": ["endpoint"]},
    ),
}


@pytest.mark.parametrize(("answer", "differs"), ANSWERS.values(), ids=ANSWERS)
def test_an_answer_has_what_there_is_to_say(answer: DeviceStatus, differs: dict[str, Any]) -> None:
    """Totals are those of all sessions; what is not so is left out."""
    assert json.loads(msgspec.json.encode(DeviceList([answer]))) == {"devices": [NEW | differs]}


def test_a_new_device_comes_with_its_file() -> None:
    """The file is in this answer alone."""
    made = DeviceCreated.of(A_DEVICE, "192.0.2.1", "[Interface]\n")
    assert json.loads(msgspec.json.encode(made)) == {
        "id": "dev_1",
        "name": "phone",
        "region": "fsn",
        "public_ip": "192.0.2.1",
        "wg_config": "[Interface]\n",
        "created_at": "1970-01-01T00:00:01Z",
        "tier": "free",
    }


def test_answers_fit_their_schema() -> None:
    """What is answered is what the types of the fields say, as the OpenAPI document will have it."""
    schema = msgspec.json.schema(DeviceStatus)["$defs"]["DeviceStatus"]
    assert set(schema["properties"]) >= {"stale", "session_id", "held_until", "held_reason"}
    assert set(schema["required"]) == set(NEW)
