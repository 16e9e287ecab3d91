"""Reads for how long a handshake lets a tunnel carry: WireGuard's time, or a shorter one that tests set."""

from __future__ import annotations

import logging
import re
from typing import TYPE_CHECKING

from appliance.domain.carrying import REJECT_AFTER_MS
from appliance.domain.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Mapping

VARIABLE = "WG_APPLIANCE_TEST_REJECT_AFTER"  # seconds; only the server reads it

log = logging.getLogger(__name__)


def reject_after_ms(environ: Mapping[str, str]) -> int:
    """Returns the time in ms, and warns that it is set. Raises ConfigError for an impossible one."""
    text = environ.get(VARIABLE)
    if text is None:
        return REJECT_AFTER_MS
    most = REJECT_AFTER_MS // 1000
    seconds = int(text) if re.fullmatch(r"[0-9]{1,3}", text, re.ASCII) else 0
    if not 1 <= seconds <= most:
        raise ConfigError(f"{VARIABLE} = {text!r}: must be a whole number of seconds, 1 to {most}")
    log.warning("%s is set: a handshake counts for %d s; this is for tests only", VARIABLE, seconds)
    return seconds * 1000
