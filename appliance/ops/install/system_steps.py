"""Defines the steps that change the system: its packages, users, sysctls and services. See step.py."""

from __future__ import annotations

import pwd
from dataclasses import dataclass
from typing import TYPE_CHECKING

from appliance.ops.install import host

if TYPE_CHECKING:
    from pathlib import Path

    from appliance.ops.install.record import Record


@dataclass(frozen=True, slots=True)
class Packages:
    """Installs Debian packages. They are kept when the appliance is removed: other programs may need them by then."""

    names: tuple[str, ...]
    record: Record

    @property
    def what(self) -> str:
        return f"packages {', '.join(self.names)}"

    def missing(self) -> list[str]:
        return [name for name in self.names if not host.has_package(name)]

    def change(self) -> str | None:
        missing = self.missing()
        return f"installed ({', '.join(missing)})" if missing else None

    def apply(self) -> None:
        missing = self.missing()
        host.install_packages(missing)
        self.record.note_packages(missing)

    def remove(self) -> bool:
        return False


@dataclass(frozen=True, slots=True)
class SystemUser:
    """Creates a user, and a group of the same name, that cannot log in."""

    name: str
    home: Path

    @property
    def what(self) -> str:
        return f"user {self.name}"

    def _exists(self) -> bool:
        try:
            pwd.getpwnam(self.name)
        except KeyError:
            return False
        return True

    def change(self) -> str | None:
        return None if self._exists() else "created"

    def apply(self) -> None:
        options = ("--system", "--user-group", "--no-create-home", "--home-dir", str(self.home))
        host.run("useradd", *options, "--shell", "/usr/sbin/nologin", self.name)

    def remove(self) -> bool:
        if not self._exists():
            return False
        host.run("userdel", self.name)
        return True


@dataclass(frozen=True, slots=True)
class EnabledUnit:
    """Enables a unit, so that it starts at each boot. `now`: it is started too; the appliance's is by its command."""

    name: str
    now: bool = False

    @property
    def what(self) -> str:
        return f"service {self.name}"

    def change(self) -> str | None:
        return None if host.succeeds("systemctl", "is-enabled", "--quiet", self.name) else "enabled"

    def apply(self) -> None:
        host.run("systemctl", "daemon-reload")
        host.run("systemctl", "enable", *(["--now"] if self.now else []), self.name)

    def remove(self) -> bool:
        if not host.succeeds("systemctl", "cat", self.name):
            return False
        host.run("systemctl", "disable", "--now", self.name)
        return True
