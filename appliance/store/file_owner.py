"""Switches root to the owner of the directory it works in; files made by root would lock the owner out.

The directory's owner, not a file's: it can put links there to files that are root's. What root does in the directory
it does with that owner's rights, which are all that a link gives then.

Modules needed afterwards must be imported before: the owner may have no access to the program's folder (/root). A
caller that does not know which modules those are passes `rehearse`, which runs the work without effect. It is called
only if the owner is another user.
"""

from __future__ import annotations

import os
import pwd
import stat
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path


def become_owner(directory: Path, rehearse: Callable[[], object]) -> None:
    """Switches root permanently to the uid, gid and groups of the owner of `directory`. Raises OSError."""
    if os.geteuid() != 0:
        return
    owner = _owner(directory)
    if _is_own(owner):
        return
    rehearse()
    gid, groups = _groups(owner)
    os.setgroups(groups)
    os.setgid(gid)
    os.setuid(owner.st_uid)


@contextmanager
def acting_as_owner(directory: Path, rehearse: Callable[[], object] = lambda: None) -> Iterator[None]:
    """Switches the whole process to the owner of `directory` and back to root afterwards. Raises OSError."""
    owner = _owner(directory)
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


def have_one_owner(directory: Path, other: Path) -> bool:
    """Tells whether two directories belong to one user. Raises OSError."""
    return _owner(directory).st_uid == _owner(other).st_uid


def _owner(directory: Path) -> os.stat_result:
    """Returns whose the directory is; of a link to it, whose the link is, unless that is root's own."""
    found = directory.lstat()
    return directory.stat() if stat.S_ISLNK(found.st_mode) and found.st_uid == 0 else found


def _is_own(owner: os.stat_result) -> bool:
    """Tells whether no switch applies: root owns the directory, or this process is not root and cannot switch."""
    return os.geteuid() != 0 or owner.st_uid == 0


def _groups(owned: os.stat_result) -> tuple[int, list[int]]:
    """Returns the owner's primary group and all its groups; for a uid without a name, the directory's group only."""
    try:
        user = pwd.getpwuid(owned.st_uid)
    except KeyError:
        return owned.st_gid, []
    return user.pw_gid, os.getgrouplist(user.pw_name, user.pw_gid)
