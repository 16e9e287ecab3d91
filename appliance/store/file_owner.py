"""Switches root to the owner of the files it works on; files made by root would lock the owner out.

Modules needed afterwards must be imported before: the owner may have no access to the program's folder (/root). A
caller that does not know which modules those are passes `rehearse`, which runs the work without effect. It is called
only if the owner is another user.
"""

from __future__ import annotations

import os
import pwd
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path


def become_owner(path: Path, rehearse: Callable[[], object]) -> None:
    """Switches root permanently to the uid, gid and groups of the owner of `path`. Raises OSError."""
    if os.geteuid() != 0:
        return
    owner = path.stat()
    if _is_own(owner):
        return
    rehearse()
    gid, groups = _groups(owner)
    os.setgroups(groups)
    os.setgid(gid)
    os.setuid(owner.st_uid)


@contextmanager
def acting_as_owner(path: Path, rehearse: Callable[[], object] = lambda: None) -> Iterator[None]:
    """Switches the whole process to the owner of `path` and back to root afterwards. Raises OSError."""
    owner = path.stat()
    if _is_own(owner):
        yield
        return
    rehearse()
    roots_gid, roots_groups = os.getegid(), os.getgroups()
    gid, groups = _groups(owner)
    os.setgroups(groups)
    os.setegid(gid)
    os.seteuid(owner.st_uid)
    try:
        yield
    finally:
        os.seteuid(0)
        os.setegid(roots_gid)
        os.setgroups(roots_groups)


def _is_own(owner: os.stat_result) -> bool:
    """Tells whether no switch applies: root owns the file, or this process is not root and cannot switch."""
    return os.geteuid() != 0 or owner.st_uid == 0


def _groups(owned: os.stat_result) -> tuple[int, list[int]]:
    """Returns the owner's primary group and all its groups; for a uid without a name, the file's group only."""
    try:
        user = pwd.getpwuid(owned.st_uid)
    except KeyError:
        return owned.st_gid, []
    return user.pw_gid, os.getgrouplist(user.pw_name, user.pw_gid)
