"""Defines the errors of the domain, each with the stable message that a client or operator reads.

    ApplianceError
        Unauthenticated             for the caller of the API
            MissingToken
            InvalidToken
        TooManyRequests
        InvalidRequest
            InvalidJson
        LiveSessionLimitReached
        DeviceLimitReached
        QuotaExceeded
        SessionNotFound
        DeviceNotFound
        DeviceNameTaken
        KeyInUse
        Unavailable
            NoActiveNodes
            NoActiveNodeInRegion
            SubnetExhausted
            PeerApplyFailed
            StoreUnavailable
        ConfigError                 for the operator
        StoreError
        HostError
        BackupError
        NotFound
        Conflict
        TunnelError                 from the WireGuard device
            MalformedDump
            DumpInterrupted
        EgressError                 from the firewall and the sysctls
        FleetError                  from the other exits of a fleet
            CutOff
                ConnectFailed
            NotPermitted
            NoResponder
            NotAnswered
            StreamFull
            RpcFailed
            JoinRefused

Nothing here depends on HTTP or exit statuses. `appliance.server.api.errors` maps the errors to statuses of HTTP,
`appliance.cli` to exit statuses.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from appliance.domain.quota import Quota
    from appliance.domain.tiers import Tier


class ApplianceError(Exception):
    """Is the base of all errors raised on purpose. `str(error)` is safe to show: it contains no secrets."""


# For the caller of the API -------------------------------------------------------------------------


class Unauthenticated(ApplianceError):
    """Raised if the request has no bearer token, or one that is not valid."""


class MissingToken(Unauthenticated):
    def __init__(self) -> None:
        super().__init__("missing token")


class InvalidToken(Unauthenticated):
    def __init__(self) -> None:
        super().__init__("invalid token")


class TooManyRequests(ApplianceError):
    """Raised if a rate limit is exceeded. `retry_after`: seconds until the next request is allowed."""

    def __init__(self, retry_after: int) -> None:
        super().__init__("too many requests")
        self.retry_after = retry_after


class InvalidRequest(ApplianceError):
    """Raised if the content of the request is not valid. The message names the field."""


class InvalidJson(InvalidRequest):
    def __init__(self) -> None:
        super().__init__("invalid json")


class LiveSessionLimitReached(ApplianceError):
    def __init__(self) -> None:
        super().__init__("live session limit reached")


class DeviceLimitReached(ApplianceError):
    def __init__(self) -> None:
        super().__init__("device limit reached")


class QuotaExceeded(ApplianceError):
    """Raised if the account has used up a window. `tier`: the account's; `quota`: how much it used, and until when."""

    def __init__(self, tier: Tier, quota: Quota) -> None:
        super().__init__("quota exceeded")
        self.tier = tier
        self.quota = quota


class SessionNotFound(ApplianceError):
    """Raised if the id is unknown, or another account's: callers must not be able to distinguish the two."""

    def __init__(self) -> None:
        super().__init__("session not found")


class DeviceNotFound(ApplianceError):
    """Raised if the id is unknown, another account's, or of a device that was removed: the caller cannot tell which."""

    def __init__(self) -> None:
        super().__init__("device not found")


class DeviceNameTaken(ApplianceError):
    def __init__(self) -> None:
        super().__init__("device name taken")


class KeyInUse(ApplianceError):
    """Raised if a device of the same account has the key, or, where a device is to get it, a live session has."""

    def __init__(self) -> None:
        super().__init__("key in use")


class Unavailable(ApplianceError):
    """Raised if the exit cannot serve the request now; trying again later may help."""


class NoActiveNodes(Unavailable):
    def __init__(self) -> None:
        super().__init__("no active nodes")


class NoActiveNodeInRegion(Unavailable):
    """Raised if the region has no active node. `available`: the codes of the regions that have one, sorted."""

    def __init__(self, region: str, available: tuple[str, ...]) -> None:
        super().__init__(f"no active node in region {region}")
        self.available = available


class SubnetExhausted(Unavailable):
    def __init__(self) -> None:
        super().__init__("subnet exhausted")


class PeerApplyFailed(Unavailable):
    def __init__(self) -> None:
        super().__init__("peer apply failed; node may be disconnected")


class StoreUnavailable(Unavailable):
    """Raised if the store does not answer (locked, full, damaged). The cause is chained, for the log."""

    def __init__(self) -> None:
        super().__init__("store unavailable")


# For the operator ----------------------------------------------------------------------------------


class ConfigError(ApplianceError):
    """Raised if a setting is unknown, or its value is not allowed. The message names key, value and what is allowed."""


class StoreError(ApplianceError):
    """Raised if the store cannot be opened: corrupt, from a newer version, or not readable by this user."""


class HostError(ApplianceError):
    """Raised if the host lacks something the appliance needs: root, WireGuard, a free port, a default route."""


class BackupError(ApplianceError):
    """Raised if the file is not a backup, is incomplete, or cannot be read by this version."""


class NotFound(ApplianceError):
    """Raised if an admin command names an account, token or session that does not exist."""


class Conflict(ApplianceError):
    """Raised if an admin command contradicts what is stored (a name already taken, another tier)."""


# From the WireGuard device -------------------------------------------------------------------------


class TunnelError(ApplianceError):
    """Raised if the WireGuard device refused a request, or does not answer."""


class MalformedDump(TunnelError):
    """Raised if the bytes of a device dump are not what the protocol allows."""


class DumpInterrupted(TunnelError):
    """Raised if the device kept changing under the dump (NLM_F_DUMP_INTR) until the retries ran out."""


# From the firewall and the sysctls -----------------------------------------------------------------


class EgressError(ApplianceError):
    """Raised if NAT, forwarding or a block could not be set up; the message says which and why."""


# From the other exits of a fleet -------------------------------------------------------------------


class FleetError(ApplianceError):
    """Raised if another exit or a hub did not do what it was asked."""


class CutOff(FleetError):
    """Raised if there is no connection to any hub."""


class ConnectFailed(CutOff):
    """Raised if a hub cannot be connected to. The message says why and what to try. `reason`: a fleet Hindrance."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


class OlderHub(FleetError):
    """Raised if a hub is of an older generation than one that was seen: it is not followed."""


class NotPermitted(FleetError):
    """Raised if the hub does not let this exit send or receive on a subject."""


class NoResponder(FleetError):
    """Raised if nobody listens to a request, or there is no stream for a message."""


class NotAnswered(FleetError):
    """Raised if no answer has come in time: what was asked may be done all the same."""


class NotKnown(NotAnswered):
    """Raised if another exit's version does not know what it was asked."""


class StreamFull(FleetError):
    """Raised if the exit's stream is full."""


class RpcFailed(FleetError):
    """Raised if another exit answered that it did not do what it was asked. `code`: a fleet RpcCode."""

    def __init__(self, code: str, text: str) -> None:
        super().__init__(text)
        self.code = code


class JoinRefused(FleetError):
    """Raised if this host cannot join a fleet as it is. The message says why and what to do.

    `names`: of own accounts that are in the way, if they are.
    """

    def __init__(self, message: str, names: tuple[str, ...] = ()) -> None:
        super().__init__(message)
        self.names = names
