"""What one sample of a peer adds to its session."""

from __future__ import annotations

from msgspec import structs

from appliance.domain.clock import Moment
from appliance.domain.entities import Baseline
from appliance.metering.meter import read_session
from appliance.network.wireguard.tunnel import PeerState
from tests.support.unit.a_session import A_SESSION

NOW = Moment(wall_ms=9_000_000, boot_ms=77_000, boot_id="boot")
QUIET = PeerState(A_SESSION.public_key, frozenset(), rx_bytes=0, tx_bytes=0, last_handshake_ns=0)
BASELINE = Baseline("boot", 4, 10, 20)


def test_a_peer_that_has_not_moved_costs_no_write() -> None:
    """A peer that has not moved costs no write: neither a new one nor one at its baseline."""
    assert read_session(A_SESSION, QUIET, None, 4, NOW) is None
    assert read_session(A_SESSION, structs.replace(QUIET, rx_bytes=10, tx_bytes=20), BASELINE, 4, NOW) is None


def test_bytes_without_a_handshake() -> None:
    """Bytes are billed; what is known of handshakes and quiet stays."""
    known = structs.replace(A_SESSION, handshake_seen_ns=5 * 10**9, last_handshake_at=5000)
    sample = structs.replace(QUIET, rx_bytes=13, tx_bytes=20, last_handshake_ns=5 * 10**9)
    found = read_session(known, sample, BASELINE, 4, NOW)
    assert found is not None
    assert (found.amount.bytes_in, found.amount.bytes_out) == (3, 0)
    assert (found.after.last_handshake_at, found.after.handshake_seen_ns) == (5000, 5 * 10**9)
    assert (found.after.quiet_since_ms, found.after.quiet_boot_id) == (A_SESSION.quiet_since_ms, "boot")


def test_any_change_of_the_handshake_time_is_a_handshake() -> None:
    """Any change of the handshake time is a handshake, one back in time too; quiet counts from now."""
    for seen, shown in ((0, 10**9), (10**9, 2 * 10**9), (2 * 10**9, 10**9)):
        known = structs.replace(A_SESSION, handshake_seen_ns=seen, quiet_boot_id="before")
        found = read_session(known, structs.replace(QUIET, last_handshake_ns=shown), None, 4, NOW)
        assert found is not None
        assert (found.after.last_handshake_at, found.after.handshake_seen_ns) == (shown // 10**6, shown)
        assert (found.after.quiet_since_ms, found.after.quiet_boot_id) == (77_000, "boot")


def test_a_vanished_handshake_keeps_the_last_one_known() -> None:
    """A peer that was added again shows no handshake: that is none, and the last one known stays."""
    known = structs.replace(A_SESSION, handshake_seen_ns=10**9, last_handshake_at=1000)
    assert read_session(known, QUIET, None, 4, NOW) is None
    found = read_session(known, structs.replace(QUIET, rx_bytes=1), None, 4, NOW)
    assert found is not None
    assert (found.after.last_handshake_at, found.after.handshake_seen_ns) == (1000, 10**9)
    assert found.after.quiet_since_ms == A_SESSION.quiet_since_ms


def test_all_counters_of_a_new_interface_are_new() -> None:
    """Another ifindex: all the sample shows is new, and the baseline is of the new interface."""
    found = read_session(A_SESSION, structs.replace(QUIET, rx_bytes=12, tx_bytes=24), BASELINE, 5, NOW)
    assert found is not None
    assert (found.amount.bytes_in, found.amount.bytes_out, found.baseline) == (12, 24, Baseline("boot", 5, 12, 24))
