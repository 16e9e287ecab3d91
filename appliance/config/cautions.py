"""Finds settings that are allowed and hardly meant. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

    from appliance.config.settings import Settings

# A tunnel in use shakes hands every two minutes (REKEY_AFTER_TIME), and may be a minute late.
SHORTEST_IDLE_S = 180


def cautions(settings: Settings) -> Iterator[str]:
    """Yields a line for each kind, with what to try after the last semicolon."""
    keepalive = settings.wireguard.keepalive
    timeouts = {f"tiers.{name}.idle_timeout": tier.idle_timeout for name, tier in settings.tiers.items()}
    # Without keepalives a client that sends nothing does not shake hands, and looks as one that is gone.
    quiet = [key for key, timeout in timeouts.items() if timeout and (keepalive == 0 or keepalive >= timeout)]
    if quiet:
        yield (
            f"wireguard.keepalive = {keepalive} beside {_listed(quiet, timeouts)}: sessions of clients that send "
            "nothing end as idle, though their tunnels are up; set wireguard.keepalive = 25, or the timeouts 0"
        )
    short = [key for key, timeout in timeouts.items() if 0 < timeout < SHORTEST_IDLE_S]
    if short:
        yield (
            f"{_listed(short, timeouts)}: WireGuard shakes hands every two minutes, so that sessions in use end as "
            f"idle; set {SHORTEST_IDLE_S}s or more, or 0"
        )
    if settings.fleet.servers:
        yield "fleet.servers: this version's fleets have hubs alone, and do not dial these; set fleet.servers = []"


def _listed(keys: list[str], timeouts: dict[str, int]) -> str:
    return ", ".join(f"{key} = {timeouts[key]}s" for key in keys)
