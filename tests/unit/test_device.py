"""What state a device is in, and why it is held."""

from __future__ import annotations

import re
from itertools import product

import pytest
from msgspec import structs

from appliance.domain import device, ids
from appliance.domain.device import Circumstances, Condition, DeviceState, HeldReason, Outdated
from appliance.domain.entities import WORDS
from appliance.domain.quota import Quota
from tests.support.unit.a_device import A_DEVICE

BELOW = Quota(999, 1000, 5_000, 59_999, 60, 7_000)
BYTES = structs.replace(BELOW, bytes_used=1000)
SECONDS = structs.replace(BELOW, time_used_ms=60_000)
BOTH = structs.replace(BYTES, time_used_ms=60_000)


def held(reason: HeldReason, until: int | None = None) -> Condition:
    return Condition(DeviceState.HELD, reason, until)


DISABLED, ENDED = held(HeldReason.ACCOUNT_DISABLED), held(HeldReason.ACCOUNT_ENDED)
DRAINED, TOO_MANY = held(HeldReason.DRAINED), held(HeldReason.LIVE_SESSION_LIMIT)
NO_BYTES, NO_SECONDS = held(HeldReason.QUOTA_EXCEEDED, 5_000), held(HeldReason.QUOTA_EXCEEDED, 7_000)

STATES = {
    "nothing is the matter": (Circumstances(), device.IDLE),
    "it has a session": (Circumstances(connected=True), device.CONNECTED),
    "below its quota": (Circumstances(quota=BELOW), device.IDLE),
    "no bytes are left": (Circumstances(quota=BYTES), NO_BYTES),
    "no seconds are left": (Circumstances(quota=SECONDS), NO_SECONDS),
    "neither is left": (Circumstances(quota=BOTH), NO_SECONDS),
    "its session is to end at the quota": (Circumstances(quota=BYTES, connected=True), NO_BYTES),
    "one session less than may be": (Circumstances(live=1, live_limit=2), device.IDLE),
    "as many sessions as may be": (Circumstances(live=2, live_limit=2), TOO_MANY),
    "more, as the limit was lowered": (Circumstances(live=3, live_limit=2), TOO_MANY),
    "any number of sessions": (Circumstances(live=99, live_limit=0), device.IDLE),
    "its own session is one of them": (Circumstances(live=2, live_limit=2, connected=True), device.CONNECTED),
    "the limit is below what runs": (Circumstances(live=2, live_limit=1, connected=True), device.CONNECTED),
    "a drain": (Circumstances(drained=True), DRAINED),
    "a drain leaves its session": (Circumstances(drained=True, connected=True), device.CONNECTED),
    "a drain, at the quota": (Circumstances(drained=True, quota=BYTES), DRAINED),
    "a drain, its session at the quota": (Circumstances(drained=True, quota=BYTES, connected=True), NO_BYTES),
    "a pause": (Circumstances(paused=True), device.PAUSED),
    "a pause ends its session": (Circumstances(paused=True, connected=True), device.PAUSED),
    "disabled": (Circumstances(disabled=True), DISABLED),
    "disabled, its session is ending": (Circumstances(disabled=True, connected=True), DISABLED),
    "ended": (Circumstances(ended=True), ENDED),
}


@pytest.mark.parametrize(("now", "condition"), STATES.values(), ids=STATES)
def test_a_device_has_the_state_of_its_circumstances(now: Circumstances, condition: Condition) -> None:
    """What holds a device is named, with its end where that is known."""
    assert device.decide(now) == condition


# As the reference has them, each with what makes it so.
PRECEDENCE = (
    ({"disabled": True}, DISABLED),
    ({"ended": True}, ENDED),
    ({"paused": True}, device.PAUSED),
    ({"drained": True}, DRAINED),
    ({"quota": BYTES}, NO_BYTES),
    ({"live": 1, "live_limit": 1}, TOO_MANY),
)


@pytest.mark.parametrize("which", [*product((False, True), repeat=len(PRECEDENCE))])
def test_of_several_reasons_the_first_counts(which: tuple[bool, ...]) -> None:
    """Of any set of reasons the one that comes first in their order is told, and none of what belongs to another."""
    chosen = [pair for pair, is_so in zip(PRECEDENCE, which, strict=True) if is_so]
    now = Circumstances(**{name: value for facts, _ in chosen for name, value in facts.items()})  # type: ignore[arg-type]
    assert device.decide(now) == (chosen[0][1] if chosen else device.IDLE)


def test_reasons_are_in_the_order_in_which_they_count() -> None:
    """The words stand in the order in which they outweigh each other, and no admin's text can be one of them."""
    assert [condition.held_reason for _, condition in PRECEDENCE if condition.held_reason] == list(HeldReason)
    assert set(HeldReason) < WORDS


def test_a_device_that_may_connect_has_a_peer() -> None:
    """Idle and connected devices have a peer, others none."""
    conditions = {condition.state: condition.has_peer for condition in (device.IDLE, device.CONNECTED, DRAINED)}
    conditions |= {condition.state: condition.has_peer for condition in (device.PAUSED, device.REMOVED)}
    assert conditions == {state: state in ("idle", "connected") for state in DeviceState}


def test_a_file_is_stale_once_the_exit_has_moved() -> None:
    """A file is stale in what it says that is no longer so."""
    assert A_DEVICE.stale("192.0.2.1:51820") == ()
    assert A_DEVICE.stale("192.0.2.9:51820") == ("endpoint",)
    assert A_DEVICE.stale("[2001:db8::1]:51820") == ("endpoint",)
    assert A_DEVICE.stale(None) == ()
    outdated = structs.replace(A_DEVICE, outdated=Outdated.SERVER_KEY | Outdated.ADDRESS6 | Outdated.ADDRESS)
    assert outdated.stale("192.0.2.9:51820") == ("address", "address6", "server_key", "endpoint")
    assert outdated.stale(None) == ("address", "address6", "server_key")


def test_ids_of_devices_are_their_own() -> None:
    """A device's id says what it is, and is not guessed."""
    made = {ids.device_id() for _ in range(1000)}
    assert len(made) == 1000
    assert all(re.fullmatch("dev_[0-9a-f]{24}", each) for each in made)
