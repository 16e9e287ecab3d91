"""Another program keeps undoing what the appliance puts right."""

from __future__ import annotations

import re
import time
from typing import TYPE_CHECKING

from tests.support.tunnel.waiting import until
from tests.support.tunnel.watched_exit import watched_exit
from tests.support.tunnel.world import EXIT_IP

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.support.tunnel.watched_exit import WatchedExit

TAMPER = "nft delete table inet wg_appliance; sysctl -qw net.ipv4.conf.all.send_redirects=1; ip link set {wg} mtu 1300"
LOOP = f"while :; do {TAMPER}; sleep 0.05; done"
KINDS = ("firewall", "sysctl", "interface")
SECONDS = 6
AGAIN = "applied again: it was changed"


def test_a_contention_is_slowed_down_named_and_over_when_the_other_stops(
    once: str, tmp_path: Path, show: Callable[[str], None]
) -> None:
    """Table, sysctls and interface are changed twenty times a second: each is put right at most every two seconds or
    so, for as long as it lasts; the log names it once, and whoever does it where that can be seen; so do doctor and
    the metrics. /readyz stays 200. Once the other stops, all is as it was, and that it is over is told."""
    with watched_exit(once, tmp_path) as exit_:
        appliance, before = exit_.appliance, exit_.facts()
        loop = appliance.space.start("sh", "-c", LOOP.replace("{wg}", appliance.interface))
        try:
            until(lambda: _contended(exit_) == set(KINDS), "the metrics tell all three")
            begun, repairs = time.monotonic(), appliance.log().count(AGAIN)
            until(lambda: time.monotonic() - begun > SECONDS, "it has gone on for a while")
            until(lambda: appliance.log().count(AGAIN) > repairs, "it is put right meanwhile")
            repairs, took = appliance.log().count(AGAIN) - repairs, time.monotonic() - begun
            assert appliance.api("GET", "/readyz").status == 200
            (found,) = [line for line in appliance.attempt("doctor").stdout.splitlines() if " contention " in line]
        finally:
            loop.kill()
            loop.wait(timeout=60)
        until(lambda: exit_.facts() == before, "all is as it was")
        assert exit_.members[0].client.address_seen() == EXIT_IP
        until(lambda: _contended(exit_) == set(), "it is over")
        told = re.findall(
            r"contentions: (.*): (?:changed again and again by (.*); put|not changed by)", appliance.log()
        )
        show(f"{repairs} repairs of the table in {took:.1f} s; {found.strip()}")
        assert 1 <= repairs <= took
        assert found.startswith("warning")
        assert len(told) == 2 * len(KINDS), told
        assert {by.partition(" ")[0] for what, by in told if by and "table" in what} <= {"nft", "another"}


def _contended(exit_: WatchedExit) -> set[str]:
    shown = exit_.sh("curl -sS --noproxy '*' http://127.0.0.1:9586/metrics")
    return set(re.findall(r'^wg_appliance_contended\{kind="(\w+)"\} 1\.0$', shown, re.MULTILINE))
