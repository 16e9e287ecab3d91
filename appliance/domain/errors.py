"""The domain's errors: one tree, each with the stable message a client or operator reads.

Nothing here knows HTTP or exit codes. `appliance.server.api.errors` maps the tree to status codes and
`appliance.cli` maps it to exit statuses; both do so in one table.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from appliance.domain.quota import Quota
    from appliance.domain.tiers import Tier


class ApplianceError(Exception):
    """Anything this project raises on purpose. `str(error)` is safe to show: no secrets, no stack."""


# What a caller may be told about its request ------------------------------------------------------


class Unauthenticated(ApplianceError):
    """No bearer token, or one that does not count any more."""


class MissingToken(Unauthenticated):
    def __init__(self) -> None:
        super().__init__("missing token")


class InvalidToken(Unauthenticated):
    def __init__(self) -> None:
        super().__init__("invalid token")


class TooManyRequests(ApplianceError):
    """`retry_after`: in so many seconds one more is allowed."""

    def __init__(self, retry_after: int) -> None:
        super().__init__("too many requests")
        self.retry_after = retry_after


class InvalidRequest(ApplianceError):
    """The request's content is at fault; the message names the field."""


class LiveSessionLimitReached(ApplianceError):
    def __init__(self) -> None:
        super().__init__("live session limit reached")


class QuotaExceeded(ApplianceError):
    """The account has used up a window; `tier` is its tier, `quota` says how much and until when."""

    def __init__(self, tier: Tier, quota: Quota) -> None:
        super().__init__("quota exceeded")
        self.tier = tier
        self.quota = quota


class SessionNotFound(ApplianceError):
    """An unknown id, or another account's: the two must not be told apart."""

    def __init__(self) -> None:
        super().__init__("session not found")


class Unavailable(ApplianceError):
    """The exit cannot serve this now; trying again later may help."""


class NoActiveNodes(Unavailable):
    def __init__(self) -> None:
        super().__init__("no active nodes")


class NoActiveNodeInRegion(Unavailable):
    """`available` holds the codes of the regions that do have an active node, sorted."""

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
    """The store does not answer (locked, full, damaged). The cause is chained, for the log."""

    def __init__(self) -> None:
        super().__init__("store unavailable")


# What an operator is told -------------------------------------------------------------------------


class ConfigError(ApplianceError):
    """A setting is unknown, of the wrong type or impossible; names the key, the value and what is allowed."""


class StoreError(ApplianceError):
    """The store cannot be opened: corrupt, from a newer version, not ours to read."""


class HostError(ApplianceError):
    """The host lacks something the appliance needs: root, WireGuard, a free port, a default route."""


class BackupError(ApplianceError):
    """The file is no backup, not a whole one, or one that this version cannot read."""


class NotFound(ApplianceError):
    """An admin command named an account, token or session that does not exist."""


class Conflict(ApplianceError):
    """An admin command contradicts what is stored (a name already taken, another tier)."""


# What the kernel or wireguard-go said ---------------------------------------------------------------


class TunnelError(ApplianceError):
    """The WireGuard device did not do what it was asked, or does not answer."""


class MalformedDump(TunnelError):
    """The bytes of a device dump are not what the protocol allows."""


class DumpInterrupted(TunnelError):
    """The device kept changing under the dump (NLM_F_DUMP_INTR) until the retries ran out."""


# What the firewall and the sysctls said -------------------------------------------------------------


class EgressError(ApplianceError):
    """NAT, forwarding or a block could not be put in place; the message says which and why."""
