"""Measures the round-trip time to an API."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from appliance.client.api.dialer import DIAL_S

if TYPE_CHECKING:
    from appliance.client.api.dialer import Dialer

TRIES = 3


def round_trip_s(dialer: Dialer) -> float:
    """Returns the shortest of TRIES TCP connects, one round trip each, without TLS or the API's own work.

    Raises OSError if a connection fails.
    """
    taken = []
    dialer.dial(DIAL_S).close()  # resolves the name, and fills ARP and route caches
    for _ in range(TRIES):
        begun = time.perf_counter()
        dialer.dial(DIAL_S).close()
        taken.append(time.perf_counter() - begun)
    return min(taken)
