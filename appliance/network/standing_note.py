"""Notes the addresses in use: a diagnosis compares them with the host's, and the next start with what it finds."""

from __future__ import annotations

import logging
from ipaddress import ip_address
from typing import TYPE_CHECKING

from appliance.config import state_file
from appliance.network.firewall.rules import Translation
from appliance.network.public_address import Standing

if TYPE_CHECKING:
    from pathlib import Path

log = logging.getLogger(__name__)


def note(file: Path, standing: Standing) -> None:
    """Writes the standing atomically. Only logs a failure: serving does not depend on it."""
    noted = {
        "public_ip": str(standing.address),
        "owned": standing.owned,
        "translation": [[interface, str(address)] for interface, address in standing.translation.by_interface],
        "ways": {str(version): interface for version, interface in standing.ways.items()},
    }
    try:
        state_file.write_json(file, noted)
    except OSError as error:
        log.warning("cannot note the addresses in use in %s: %s", file, error.strerror)


def read(file: Path) -> Standing | None:
    """Returns the noted standing; None if there is none that can be read."""
    try:
        noted = state_file.read_json(file)
        translation = Translation(tuple((str(name), ip_address(text)) for name, text in noted["translation"]))
        ways = {int(version): str(interface) for version, interface in noted["ways"].items()}
        return Standing(ip_address(noted["public_ip"]), bool(noted["owned"]), translation, ways)
    except (OSError, ValueError, LookupError, TypeError, AttributeError):
        return None
