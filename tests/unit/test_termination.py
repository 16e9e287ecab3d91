"""Which sessions end, and for which reason."""

from __future__ import annotations

from dataclasses import replace

import pytest
from msgspec import structs

from appliance.config.load import parse_settings
from appliance.domain import termination
from appliance.domain.clock import Moment
from appliance.domain.entities import Reason
from appliance.domain.quota import Quota
from tests.support.unit.a_session import A_SESSION

TIER = parse_settings("", {}, "host").tiers["free"]
EXPIRES, QUIET = A_SESSION.expires_at, A_SESSION.quiet_since_ms
FRESH = Moment(0, QUIET, "boot")
HOUR = 3_600_000

ENDINGS = [
    ("fresh", FRESH, 300, None),
    ("a second before the cutoff", Moment(EXPIRES - 1000, QUIET, "boot"), 300, None),
    ("a millisecond before the cutoff", Moment(EXPIRES - 1, QUIET, "boot"), 300, None),
    ("at the cutoff", Moment(EXPIRES, QUIET, "boot"), 300, Reason.EXPIRED),
    ("a millisecond after the cutoff", Moment(EXPIRES + 1, QUIET, "boot"), 300, Reason.EXPIRED),
    ("long after it", Moment(EXPIRES * 9, QUIET, "boot"), 300, Reason.EXPIRED),
    ("expired in another boot", Moment(EXPIRES, QUIET, "another"), 300, Reason.EXPIRED),
    ("expired where nobody is idle", Moment(EXPIRES, QUIET, "boot"), 0, Reason.EXPIRED),
    ("quiet for a millisecond less than the timeout", Moment(0, QUIET + 299_999, "boot"), 300, None),
    ("quiet for exactly the timeout", Moment(0, QUIET + 300_000, "boot"), 300, None),
    ("quiet for a millisecond more", Moment(0, QUIET + 300_001, "boot"), 300, Reason.IDLE),
    ("quiet for a second more", Moment(0, QUIET + 301_000, "boot"), 300, Reason.IDLE),
    ("the smallest timeout", Moment(0, QUIET + 1000, "boot"), 1, None),
    ("past the smallest timeout", Moment(0, QUIET + 1001, "boot"), 1, Reason.IDLE),
    ("timeout off", Moment(0, QUIET + 10**12, "boot"), 0, None),
    ("another boot", Moment(0, QUIET + 10**12, "another"), 300, None),
    ("another boot, sooner in it than what was seen", Moment(0, 0, "another"), 300, None),
    ("the wall clock set forward, below the cutoff", Moment(EXPIRES - 1, QUIET + 300_000, "boot"), 300, None),
    ("the wall clock far back", Moment(-(10**12), QUIET, "boot"), 300, None),
    ("the wall clock back, quiet for too long", Moment(-HOUR, QUIET + 300_001, "boot"), 300, Reason.IDLE),
    ("expired and idle", Moment(EXPIRES, QUIET + 300_001, "boot"), 300, Reason.EXPIRED),
]


@pytest.mark.parametrize(("now", "timeout", "reason"), [e[1:] for e in ENDINGS], ids=[e[0] for e in ENDINGS])
def test_expiry_goes_by_the_wall_clock_and_idleness_by_the_boot_clock(
    now: Moment, timeout: int, reason: Reason | None
) -> None:
    """Expiry goes by the wall clock, at its very instant; idleness by the boot clock of one boot, past the timeout."""
    assert termination.decide(A_SESSION, replace(TIER, idle_timeout=timeout), None, now) == reason


BELOW = Quota(999, 1000, 0, 59_999, 60, 0)
BYTES = structs.replace(BELOW, bytes_used=1000)
SECONDS = structs.replace(BELOW, time_used_ms=60_000)
UNMETERED = Quota(2**63 - 1, 0, 0, 2**63 - 1, 0, 0)
IDLE = Moment(0, QUIET + 300_001, "boot")
EXPIRED = Moment(EXPIRES, QUIET, "boot")
ORDER = [
    ("below both limits", BELOW, FRESH, None),
    ("unmetered", UNMETERED, FRESH, None),
    ("bytes used up", BYTES, FRESH, Reason.QUOTA_EXCEEDED),
    ("seconds used up", SECONDS, FRESH, Reason.QUOTA_EXCEEDED),
    ("used up in another boot", BYTES, replace(IDLE, boot_id="another"), Reason.QUOTA_EXCEEDED),
    ("used up, and idle", SECONDS, IDLE, Reason.QUOTA_EXCEEDED),
    ("used up, and expired", BYTES, EXPIRED, Reason.EXPIRED),
    ("used up, expired and idle", BYTES, replace(IDLE, wall_ms=EXPIRES), Reason.EXPIRED),
    ("below both limits, and idle", BELOW, IDLE, Reason.IDLE),
    ("below both limits, and expired", BELOW, EXPIRED, Reason.EXPIRED),
]


@pytest.mark.parametrize(("quota", "now", "reason"), [each[1:] for each in ORDER], ids=[each[0] for each in ORDER])
def test_the_promised_cutoff_comes_first_and_idleness_last(quota: Quota, now: Moment, reason: Reason | None) -> None:
    """A used-up window ends a session; the cutoff that its client was told comes first, idleness last."""
    assert termination.decide(A_SESSION, replace(TIER, idle_timeout=300), quota, now) == reason


def test_a_handshake_starts_idleness_anew() -> None:
    """The timeout counts from when the session was last heard of, not from when it was made."""
    heard = structs.replace(A_SESSION, quiet_since_ms=QUIET + 300_000)
    assert termination.decide(heard, TIER, None, replace(IDLE, boot_ms=QUIET + 600_000)) is None
    assert termination.decide(heard, TIER, None, replace(IDLE, boot_ms=QUIET + 600_001)) is Reason.IDLE
