"""Finds the user who runs the client: behind sudo, the user who called sudo."""

from __future__ import annotations

import os
import pwd
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from appliance.domain.errors import HostError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

OURS = ("WG_APPLIANCE_TOKEN", "_PYI_")  # prefixes: the token, and variables of the PyInstaller bootloader


@dataclass(frozen=True, slots=True)
class Invoker:
    """Describes the user who runs the client. `changed`: this process runs as another user."""

    uid: int
    gid: int
    name: str
    home: Path
    shell: str
    changed: bool

    def groups(self) -> list[int]:
        return os.getgrouplist(self.name, self.gid)

    def environment(self, environ: Mapping[str, str]) -> dict[str, str]:
        """Returns the environment for a program run as this user, without the client's own variables."""
        variables = {name: value for name, value in environ.items() if not name.startswith(OURS)}
        if self.changed:
            variables |= {"HOME": str(self.home), "USER": self.name, "LOGNAME": self.name, "SHELL": self.shell}
        return variables

    @contextmanager
    def acting(self) -> Iterator[None]:
        """Acts as this user (effective uid, gid and groups), for access to the user's files."""
        if not self.changed:
            yield
            return
        own_groups, own_gid, own_uid = os.getgroups(), os.getegid(), os.geteuid()
        os.setgroups(self.groups())
        os.setegid(self.gid)
        os.seteuid(self.uid)
        try:
            yield
        finally:
            os.seteuid(own_uid)
            os.setegid(own_gid)
            os.setgroups(own_groups)


def find_invoker(environ: Mapping[str, str]) -> Invoker:
    """Finds the user from SUDO_UID, which sudo(8) sets and which counts only if this process is root.

    Raises HostError if SUDO_UID names no user.
    """
    own = os.geteuid()
    named = environ.get("SUDO_UID", "")
    uid = int(named) if own == 0 and named.isascii() and named.isdigit() else own
    try:
        user = pwd.getpwuid(uid)
    except KeyError as error:
        if uid != own:
            raise HostError(f"SUDO_UID is {uid}, and there is no such user") from error
        return Invoker(uid, os.getegid(), str(uid), Path(environ.get("HOME", "/")), "/bin/sh", changed=False)
    home = Path(user.pw_dir if uid != own else environ.get("HOME", user.pw_dir))
    return Invoker(uid, user.pw_gid, user.pw_name, home, user.pw_shell or "/bin/sh", changed=uid != own)
