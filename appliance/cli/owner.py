"""Root working on a store that belongs to another user: as that user, or the files made would lock it out."""

from __future__ import annotations

import os
import pwd
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path


def become_owner(path: Path, rehearse: Callable[[], object]) -> None:
    """As root: take on the uid, gid and groups of the owner of `path`, for good. Raises OSError.

    `rehearse` is called just before, where the owner is another: it does what is to come, without effect, so that
    whatever is imported on first use is there. The owner may have no access to where the program is (/root).
    """
    if os.geteuid() != 0:
        return
    found = path.stat()
    if found.st_uid == 0:
        return
    rehearse()
    gid, groups = _groups(found)
    os.setgroups(groups)
    os.setgid(gid)
    os.setuid(found.st_uid)


@contextmanager
def acting_as_owner(path: Path, rehearse: Callable[[], object]) -> Iterator[None]:
    """As `become_owner`, and root again afterwards. Raises OSError."""
    found = path.stat()
    if os.geteuid() != 0 or found.st_uid == 0:
        yield
        return
    rehearse()
    roots_gid, roots_groups = os.getegid(), os.getgroups()
    gid, groups = _groups(found)
    os.setgroups(groups)
    os.setegid(gid)
    os.seteuid(found.st_uid)
    try:
        yield
    finally:
        os.seteuid(0)
        os.setegid(roots_gid)
        os.setgroups(roots_groups)


def _groups(owned: os.stat_result) -> tuple[int, list[int]]:
    """The owner's own group, and all of them."""
    try:
        user = pwd.getpwuid(owned.st_uid)
    except KeyError:
        return owned.st_gid, []
    return user.pw_gid, os.getgrouplist(user.pw_name, user.pw_gid)
