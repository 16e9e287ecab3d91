"""Records what the installer found on the host and changed, so that uninstalling can restore it."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING, Any

from appliance.config.state_file import sync_folder

if TYPE_CHECKING:
    from pathlib import Path


class Record:
    """Keeps the record in a small JSON file owned by root: the service's user must not control what root restores."""

    def __init__(self, path: Path) -> None:
        self._path = path

    @property
    def sysctls(self) -> dict[str, str]:
        """Returns the sysctls before the installation by a version that set any: (path below /proc/sys, value)."""
        return dict(self._read().get("sysctls", {}))

    @property
    def packages(self) -> list[str]:
        """Returns the packages that were missing and have been installed."""
        return list(self._read().get("packages", []))

    @property
    def folders(self) -> list[str]:
        """Returns the folders that were created, but which other programs may use too."""
        return list(self._read().get("folders", []))

    def note_folders(self, paths: list[str]) -> None:
        self._write({"folders": sorted({*self.folders, *paths})})

    def note_packages(self, names: list[str]) -> None:
        self._write({"packages": sorted({*self.packages, *names})})

    def _read(self) -> dict[str, Any]:
        try:
            content: dict[str, Any] = json.loads(self._path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return {}
        return content

    def _write(self, changed: dict[str, Any]) -> None:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(self._path, json.dumps(self._read() | changed, indent=2) + "\n", 0o600)


def write_whole(path: Path, text: str, mode: int) -> None:
    """Writes a file atomically: under another name first, and on disk on return. A crash leaves the old or the new."""
    new = path.with_name(f".{path.name}.new")
    descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, mode)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        os.fchmod(descriptor, mode)  # independent of the umask
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    new.replace(path)
    sync_folder(path.parent)
