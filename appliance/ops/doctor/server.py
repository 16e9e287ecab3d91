"""Checks the running server: whether it runs, takes sessions, ticks, and uses the current configuration. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

from appliance.config.reloadable import differing, is_taken_over
from appliance.config.settings import by_key
from appliance.ops.doctor.finding import RESTART, START, Finding, failed, ok, unseen, warning

if TYPE_CHECKING:
    from appliance.ops.doctor.facts import Facts, StateFacts

RESUME = "wg-appliance node resume"
RELOAD = "systemctl reload wg-appliance"
NAMED_AT_MOST = 4


def server(facts: Facts) -> Finding:
    if facts.state is None:
        return unseen("server", "whether the server runs")
    if not facts.state.served:
        return failed("server", "it is not running", f"{START}; journalctl -u wg-appliance -n 20")
    if facts.state.store is not None and facts.state.store.drained:
        return warning("server", "running, but drained: it takes no new sessions", RESUME)
    return ok("server", "running")


def tick(facts: Facts) -> Finding:
    """Checks when the counters were last read and stored."""
    if facts.state is None:
        return unseen("tick", "the last tick")
    if not facts.state.served:
        return warning("tick", "the server is not running", START)
    age = _tick_age(facts, facts.state)
    patience, started = facts.settings.meter.patience, facts.state.running_s
    if age is not None and age <= patience:
        return ok("tick", f"{age} s ago")
    if started is not None and 0 <= started <= patience:  # less than 0: the wall clock was set back since
        return ok("tick", "the first one is about to come")
    last = "there was none since the boot" if age is None else f"the last one was {age} s ago"
    return failed(
        "tick", f"{last}: no use is billed and no session is ended", f"{RESTART}; journalctl -u wg-appliance -n 20"
    )


def _tick_age(facts: Facts, state: StateFacts) -> int | None:
    """Returns the seconds since the last stored tick; None if there was none since the boot."""
    heartbeat, now = None if state.store is None else state.store.heartbeat, facts.machine.now
    if heartbeat is None or heartbeat.boot_id != now.boot_id:
        return None
    return max(0, now.boot_ms - heartbeat.boot_ms) // 1000


def contention(facts: Facts) -> Finding:
    """Checks whether another program keeps changing what the server puts right."""
    if facts.state is None:
        return unseen("contention", "what other programs keep changing")
    if facts.state.contended:
        mend = "stop what changes it; journalctl -u wg-appliance shows since when"
        return warning("contention", "; ".join(facts.state.contended), mend)
    return ok("contention", "no other program keeps changing what is the server's")


def drift(facts: Facts) -> Finding:
    """Checks for configured settings that the running server has not applied."""
    if facts.state is None:
        return unseen("drift", "what the server runs with")
    if not facts.state.served:
        return warning("drift", "the server is not running", START)
    if facts.state.running is None:
        return warning("drift", "the server has not noted what it runs with", RESTART)
    noted, configured = facts.state.running, by_key(facts.settings)
    keys = differing(noted, configured)
    if not keys:
        return ok("drift", f"the server runs with what {facts.config_file} says")
    words = [f"{key} (runs with {noted.get(key, 'none')}, configured {configured.get(key, 'none')})" for key in keys]
    more = f" and {len(keys) - NAMED_AT_MOST} more" if keys[NAMED_AT_MOST:] else ""
    mend = RELOAD if all(map(is_taken_over, keys)) else RESTART
    return warning("drift", f"not taken over: {', '.join(words[:NAMED_AT_MOST])}{more}", mend)
