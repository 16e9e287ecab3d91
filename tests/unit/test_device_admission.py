"""Who may have a device, with which name and key."""

from __future__ import annotations

from typing import Any

import pytest

from appliance.domain import device_admission
from appliance.domain.errors import DeviceLimitReached, DeviceNameTaken, InvalidRequest, KeyInUse

ANOTHERS = (InvalidRequest, "client_public_key is in use by another account")
OWN = (KeyInUse, "key in use")
TAKEN = (DeviceNameTaken, "device name taken")
FULL = (DeviceLimitReached, "device limit reached")

ASKED: dict[str, tuple[dict[str, Any], tuple[type[Exception], str] | None]] = {
    "nothing": ({}, None),
    "a first device": ({"most": 3}, None),
    "one less than there may be": ({"count": 2, "most": 3}, None),
    "as many as there may be": ({"count": 3, "most": 3}, FULL),
    "more, as fewer are allowed now": ({"count": 9, "most": 3}, FULL),
    "any number": ({"count": 10**6, "most": 0}, None),
    "no devices": ({"count": 0, "most": None}, FULL),
    "a name that is taken": ({"namesake": True}, TAKEN),
    "a key of its own": ({"key_holders": ["acc_1"]}, OWN),
    "a key of its own device and session": ({"key_holders": ["acc_1", "acc_1"]}, OWN),
    "another's key": ({"key_holders": ["acc_2"]}, ANOTHERS),
    "a key of both": ({"key_holders": ["acc_1", "acc_2"]}, ANOTHERS),
    # As requests are refused: 400, then 409, then 403.
    "another's key, a name and one too many": (
        {"key_holders": ["acc_2"], "namesake": True, "count": 3, "most": 3},
        ANOTHERS,
    ),
    "a key of its own, a name and one too many": (
        {"key_holders": ["acc_1"], "namesake": True, "count": 3, "most": 3},
        OWN,
    ),
    "a name and one too many": ({"namesake": True, "count": 3, "most": 3}, TAKEN),
}


@pytest.mark.parametrize(("asked", "refused"), ASKED.values(), ids=ASKED)
def test_what_cannot_be_had_is_refused(asked: dict[str, Any], refused: tuple[type[Exception], str] | None) -> None:
    """A key is one peer's, a name one device's of an account, and an account has as many devices as its tier allows."""
    error = device_admission.refusal("acc_1", **asked)
    assert (None if error is None else (type(error), str(error))) == refused
