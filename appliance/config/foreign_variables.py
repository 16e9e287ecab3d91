"""Tells environment variables that only look like the appliance's from misspelled ones of its own. Pure.

Container platforms set variables named after a service, and one may be called wg-appliance, or wg-appliance-api: see
https://kubernetes.io/docs/tutorials/services/connect-applications-service/#environment-variables
"""

from __future__ import annotations

import difflib
import re
from typing import TYPE_CHECKING

from appliance.config.settings import KEYS, SECTIONS

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping

PREFIX = "WG_APPLIANCE_"
NAMES = {PREFIX + "_".join(path).upper(): path for path in KEYS}
# WG_APPLIANCE_SERVICE_HOST, WG_APPLIANCE_API_SERVICE_PORT_HTTPS, WG_APPLIANCE_PORT_443_TCP_ADDR; and of those named
# ..._PORT the ones whose value is a URL.
_OF_A_PLATFORM = re.compile(r".*_(SERVICE_(HOST|PORT(_\w+)?)|PORT_[0-9]+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?)")
_PORT_URL = re.compile(r"(tcp|udp|sctp)://.*")
_SECTIONS = tuple(PREFIX + "_".join(path).upper() + "_" for path in SECTIONS)
ALIKE = 0.8  # 1: the same


def foreign(environ: Mapping[str, str], known: Collection[str]) -> list[str]:
    """Returns the names, sorted, that are not `known` and not meant for the appliance."""
    ours = (name for name in environ if name.startswith(PREFIX) and name not in NAMES and name not in known)
    return sorted(name for name in ours if _is_foreign(name, environ[name]))


def alike(name: str) -> str | None:
    """Returns the variable that a misspelled one was meant to be; None: none is like it."""
    return next(iter(difflib.get_close_matches(name, NAMES, 1)), None)


def warnings(names: Iterable[str]) -> list[str]:
    """Returns a line for each variable that is left alone."""
    return [
        f"{printable(name)} looks like a setting of wg-appliance and is none: it is left alone; settings are "
        f"{PREFIX}<SECTION>_<KEY>"
        for name in names
    ]


def printable(name: str) -> str:
    return name if re.fullmatch(r"[A-Za-z0-9_]+", name) else ascii(name)


def _is_foreign(name: str, value: str) -> bool:
    if _OF_A_PLATFORM.fullmatch(name) or (name.endswith("_PORT") and _PORT_URL.fullmatch(value)):
        return True
    if name.startswith(_SECTIONS):
        return False
    rests = [each.removeprefix(PREFIX) for each in NAMES]
    return not difflib.get_close_matches(name.removeprefix(PREFIX), rests, 1, ALIKE)
