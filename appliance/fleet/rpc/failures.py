"""Carries errors from the exit that refuses to the one whose client is told. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from appliance.domain.errors import (
    DeviceLimitReached,
    DeviceNameTaken,
    DeviceNotFound,
    InvalidRequest,
    InvalidToken,
    KeyInUse,
    LiveSessionLimitReached,
    NoActiveNodeInRegion,
    NoActiveNodes,
    PeerApplyFailed,
    QuotaExceeded,
    SessionNotFound,
    StoreUnavailable,
    SubnetExhausted,
)
from appliance.domain.quota import Quota  # noqa: TC001 (msgspec reads annotations at run time)
from appliance.domain.tiers import Tier  # noqa: TC001 (as above)

if TYPE_CHECKING:
    from collections.abc import Callable

    from appliance.domain.errors import ApplianceError

LONGEST_MESSAGE = 200
LARGEST = 2**47  # of a quota's figures: an instant in ms is in the year 6429 then

# Those that say all they have to say by what they are.
_PLAIN: dict[str, Callable[[], ApplianceError]] = {
    kind.__name__: kind
    for kind in (
        InvalidToken,
        LiveSessionLimitReached,
        DeviceLimitReached,
        SessionNotFound,
        DeviceNotFound,
        DeviceNameTaken,
        KeyInUse,
        NoActiveNodes,
        SubnetExhausted,
        PeerApplyFailed,
        StoreUnavailable,
    )
}


class Failure(msgspec.Struct, frozen=True, omit_defaults=True):
    """Describes an error by the name of its class, and what else its client is told."""

    kind: str
    message: str = ""
    available: tuple[str, ...] = ()
    tier: Tier | None = None
    quota: Quota | None = None


def described(error: Exception) -> Failure:
    """Describes an error; one that no client is told of is a failed apply."""
    kind = type(error).__name__
    if isinstance(error, InvalidRequest):
        return Failure(InvalidRequest.__name__, message=str(error))
    if isinstance(error, NoActiveNodeInRegion):
        return Failure(kind, available=error.available)
    if isinstance(error, QuotaExceeded):
        return Failure(kind, tier=error.tier, quota=error.quota.told)
    return Failure(kind if kind in _PLAIN else PeerApplyFailed.__name__)


def error_of(failure: Failure, region: str = "") -> ApplianceError:
    """Returns the error to raise; PeerApplyFailed for one that is unknown here. `region`: that was asked for."""
    if failure.kind in _PLAIN:
        return _PLAIN[failure.kind]()
    if failure.kind == InvalidRequest.__name__:
        return InvalidRequest(failure.message[:LONGEST_MESSAGE])
    if failure.kind == NoActiveNodeInRegion.__name__:
        return NoActiveNodeInRegion(region, failure.available)
    if failure.kind == QuotaExceeded.__name__ and failure.tier is not None and failure.quota is not None:
        quota = msgspec.structs.replace(failure.quota, grant=None)
        if all(0 <= figure <= LARGEST for figure in msgspec.structs.astuple(quota) if figure is not None):
            return QuotaExceeded(failure.tier, quota)
        return PeerApplyFailed()
    return PeerApplyFailed()
