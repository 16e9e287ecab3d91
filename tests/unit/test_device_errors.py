"""What clients are told where a device cannot be had: a status, a message for people and a word for programs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

import pytest

from appliance.domain.errors import ApplianceError, DeviceLimitReached, DeviceNameTaken, DeviceNotFound, KeyInUse
from appliance.server.api.errors import from_domain
from tests.support.api.answers import code_of

if TYPE_CHECKING:
    from litestar import Request

REFUSALS = {
    "unknown": (DeviceNotFound(), 404, "device not found", "device_not_found"),
    "its name is another's": (DeviceNameTaken(), 409, "device name taken", "device_name_taken"),
    "its key is another's": (KeyInUse(), 409, "key in use", "key_in_use"),
    "one too many": (DeviceLimitReached(), 403, "device limit reached", "device_limit"),
}


@pytest.mark.parametrize(("error", "status", "message", "code"), REFUSALS.values(), ids=REFUSALS)
def test_each_refusal_has_its_status_message_and_code(
    error: ApplianceError, status: int, message: str, code: str
) -> None:
    """The body has these two fields alone, and no header tells of trying again."""
    answer = from_domain(cast("Request[Any, Any, Any]", None), error)
    assert answer.status_code == status
    assert answer.content == {"error": message, "code": code}
    assert code_of(status, message) == code
    assert answer.headers == {}
