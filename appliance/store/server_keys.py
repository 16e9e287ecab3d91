"""Tells under which keys the tunnel's interface is this state directory's: server.key, and what it was before.

server.key may be replaced while the tunnel stands, by a restore or by hand; until the server has set the new one, the
interface has the old one. The record holds the keys that were set in this boot: no interface outlives it. Without a
record (after an upgrade, on another host) server.key and what a restore has kept aside decide.
"""

from __future__ import annotations

import logging
from contextlib import suppress
from typing import TYPE_CHECKING

from appliance.config import state_file
from appliance.domain.errors import HostError, InvalidRequest
from appliance.network.record_place import place_of
from appliance.network.wireguard import keys
from appliance.store.state_dir import StateDir

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

log = logging.getLogger(__name__)

KEPT_BY_RESTORES = "before-restore-*"


class ServerKeys:
    """Reads and records public keys. `boot_id`: of this boot."""

    def __init__(self, state: StateDir, boot_id: str) -> None:
        self._state = state
        self._boot_id = boot_id

    def public_keys(self) -> frozenset[bytes]:
        """Returns the public keys of server.key, of the record and of what restores have kept; none without a state."""
        kept = (StateDir(folder) for folder in self._state.path.glob(KEPT_BY_RESTORES))
        return frozenset({*self._recorded(), *_of_files([self._state, *kept])})

    def note(self, public_keys: Iterable[bytes]) -> None:
        """Replaces the record. Only logs a failure: it matters only if server.key is replaced."""
        file = self._state.interface_keys
        content: dict[str, object] = {"boot_id": self._boot_id, "public_keys": sorted(map(keys.encode, public_keys))}
        try:
            content["directory"] = place_of(file)
            state_file.write_json(file, content)
        except OSError as error:
            log.warning("cannot note the interface's keys in %s: %s", file, error.strerror)

    def _recorded(self) -> Iterator[bytes]:
        for text in _content(self._state.interface_keys, self._boot_id):
            with suppress(InvalidRequest):
                yield keys.parse_public_key(text, "public_keys")


def _of_files(states: Iterable[StateDir]) -> Iterator[bytes]:
    for state in states:
        with suppress(HostError):
            yield keys.public_key(state.read_key())


def _content(file: Path, boot_id: str) -> list[object]:
    try:
        content = state_file.read_json(file)
        current = content["boot_id"] == boot_id and content["directory"] == place_of(file)
        return list(content["public_keys"]) if current else []
    except (OSError, ValueError, LookupError, TypeError):
        return []
