"""Who owns what root works on. Files that root made would lock the service's user out."""

from __future__ import annotations

import os
import pwd
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@contextmanager
def acting_as_owner(path: Path) -> Iterator[None]:
    """As root: with the uid, gid and groups of the owner of `path` while the block runs. Raises OSError.

    The whole process changes. Everything that the block imports has to be imported before: the owner may have no access
    to where the program is.
    """
    found = path.stat()
    if os.geteuid() != 0 or found.st_uid == 0:
        yield
        return
    gid, groups = _groups(found.st_uid, found.st_gid)
    before = os.getegid(), os.getgroups()
    os.setgroups(groups)
    os.setegid(gid)
    os.seteuid(found.st_uid)
    try:
        yield
    finally:
        os.seteuid(0)
        os.setegid(before[0])
        os.setgroups(before[1])


def _groups(uid: int, gid: int) -> tuple[int, list[int]]:
    """The user's own; for a uid that has no name, the file's alone."""
    try:
        user = pwd.getpwuid(uid)
    except KeyError:
        return gid, []
    return user.pw_gid, os.getgrouplist(user.pw_name, user.pw_gid)
