"""Describes the fields of answers for the OpenAPI document: meaning, form and an example."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta

from appliance.domain.device import DeviceState, HeldReason, StalePart
from appliance.domain.device_name import LONGEST
from appliance.domain.entities import Reason
from appliance.domain.tiers import Tier
from appliance.server.api.error_codes import ErrorCode

INSTANT = r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ$"


def _instant(meaning: str, example: str = "2026-11-25T14:20:00Z") -> Meta:
    return Meta(description=f"{meaning}; RFC 3339, UTC", pattern=INSTANT, examples=[example])


def _count(meaning: str, example: int) -> Meta:
    return Meta(description=meaning, ge=0, examples=[example])


SessionId = Annotated[
    str, Meta(description="opaque", pattern="^ses_[0-9a-f]{24}$", examples=["ses_b0897940b5aa508cb4c22562"])
]
RegionCode = Annotated[
    str, Meta(description="a region's code", pattern="^[a-z0-9][a-z0-9-]{0,31}$", examples=["local"])
]
PublicIp = Annotated[str, Meta(description="the address that the traffic appears from", examples=["203.0.113.1"])]
TierNow = Annotated[Tier, Meta(description="the account's tier", examples=["free"])]
TierThen = Annotated[Tier, Meta(description="the account's tier when the session was created", examples=["free"])]

CreatedAt = Annotated[str, _instant("when it was created", "2026-11-25T14:20:00Z")]
ExpiresAt = Annotated[str, _instant("hard cutoff", "2026-12-25T14:20:00Z")]
HandshakeAt = Annotated[str, _instant("last handshake seen", "2026-11-25T14:22:05Z")]
TerminatedAt = Annotated[str, _instant("when it ended", "2026-11-25T15:01:42Z")]
ResetsAt = Annotated[str, _instant("when the window starts anew; with none open, now and its length")]

WgConfig = Annotated[
    str,
    Meta(
        description="a whole wg-quick file; a private key that the server made is here and nowhere else",
        examples=[
            "[Interface]\n"
            "PrivateKey = <made by the server, or put in by you>\n"
            "Address = 10.101.0.2/32, fd65:7869:7400::2/128\n"
            "\n"
            "[Peer]\n"
            "PublicKey = <the exit's>\n"
            "Endpoint = 203.0.113.1:51820\n"
            "AllowedIPs = 0.0.0.0/0, ::/0\n"
            "PersistentKeepalive = 25\n"
        ],
    ),
]
BytesIn = Annotated[int, _count("received from the client: its upload", 1_048_576)]
BytesOut = Annotated[int, _count("sent to the client: its download", 52_428_800)]
Seconds = Annotated[int, _count("in which its tunnel could carry: from a handshake until 180 s after it", 125)]
BytesUsed = Annotated[int, _count("of the window, both directions", 53_477_376)]
BytesLimit = Annotated[int, _count("of the window, both directions; 0: unmetered", 5_368_709_120)]
SecondsUsed = Annotated[int, _count("of all sessions in the window, as their `seconds` count", 125)]
SecondsLimit = Annotated[int, _count("of sessions in the window; 0: unmetered", 7200)]
MaxSession = Annotated[int, _count("seconds from creation to the hard cutoff", 2_592_000)]
Millicents = Annotated[int, _count("1/1000 of a cent, rounded down; on paid, where a price is configured", 21_000)]
Currency = Annotated[str, Meta(description="ISO 4217, lower case", pattern="^[a-z]{3}$", examples=["eur"])]
TerminatedReason = Annotated[
    str,
    Meta(
        description=f"why it ended: {', '.join(Reason)}, or in an admin's own words",
        min_length=1,
        max_length=200,
        examples=["closed"],
    ),
]

DeviceId = Annotated[
    str, Meta(description="opaque", pattern="^dev_[0-9a-f]{24}$", examples=["dev_5f2b81d0c3a94e6f7a1d2e3c"])
]
DeviceName = Annotated[
    str,
    Meta(
        description="unique in the account; printable, without / and without white space at its ends",
        min_length=1,
        max_length=LONGEST,
        examples=["phone"],
    ),
]
PublicKey = Annotated[
    str, Meta(description="WireGuard public key, base64", examples=["mGbrFQRqhL2gEBYRAFHKIKNzQQxALqUD5ZUUbYfQ8UQ="])
]
StateOfDevice = Annotated[
    DeviceState,
    Meta(
        description="idle: without a session until its next handshake; connected; paused: by its owner; held: may not "
        "connect now, see held_reason; removed: in the answer to DELETE",
        examples=["idle"],
    ),
]
ReasonHeld = Annotated[HeldReason, Meta(description="why it may not connect now", examples=["quota_exceeded"])]
HeldUntil = Annotated[str, _instant("when it may connect again, where that is known")]
Stale = Annotated[
    list[StalePart],
    Meta(
        description="what its file says that is no longer so; rotate makes a new one. With an old address or "
        "server key it does not work",
        examples=[["endpoint"]],
    ),
]
DeviceBytesIn = Annotated[int, _count("received from the client in all of its sessions: its upload", 1_048_576)]
DeviceBytesOut = Annotated[int, _count("sent to the client in all of its sessions: its download", 52_428_800)]
DeviceSeconds = Annotated[int, _count("of all of its sessions", 125)]

SessionsDeviceId = Annotated[
    str,
    Meta(
        description="of the device whose session it is",
        pattern="^dev_[0-9a-f]{24}$",
        examples=["dev_5f2b81d0c3a94e6f7a1d2e3c"],
    ),
]
SessionsDeviceName = Annotated[
    str, Meta(description="its name now, or the last one that it had before it was removed", examples=["phone"])
]
PauseHint = Annotated[
    str,
    Meta(
        description="in the answer to DELETE of a device's session: how to keep the device out",
        examples=[
            "its device may connect again; to keep it out: "
            'PATCH /v1/devices/dev_5f2b81d0c3a94e6f7a1d2e3c {"paused": true}'
        ],
    ),
]

NodeCount = Annotated[int, Meta(description="active nodes", ge=1, examples=[1])]
ErrorText = Annotated[str, Meta(description="short and stable, for people", examples=["session not found"])]
Code = Annotated[ErrorCode, Meta(description="stable, for programs", examples=["session_not_found"])]
Hint = Annotated[str, Meta(description="what may help", examples=["try again after 2026-11-25T14:20:00Z"])]
Regions = Annotated[list[RegionCode], Meta(description="regions that have an active node", examples=[["local"]])]
