"""How far away an API is."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from appliance.client.api.dialer import DIAL_S

if TYPE_CHECKING:
    from appliance.client.api.dialer import Dialer

TRIES = 3


def round_trip_s(dialer: Dialer) -> float:
    """The shortest of some connections, which take one each, without TLS or the API's own work. Raises OSError."""
    taken = []
    dialer.dial(DIAL_S).close()  # the name is resolved, and the way is known
    for _ in range(TRIES):
        begun = time.perf_counter()
        dialer.dial(DIAL_S).close()
        taken.append(time.perf_counter() - begun)
    return min(taken)
