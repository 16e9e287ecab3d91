"""Root working on a store that belongs to another user: as that user, or the files made would lock it out."""

from __future__ import annotations

import os
import pwd
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path


def become_owner(path: Path) -> None:
    """As root: take on the uid, gid and groups of the owner of `path`, for good. Raises OSError.

    What is imported later may be out of the owner's reach: have it imported before.
    """
    if os.geteuid() != 0:
        return
    found = path.stat()
    if found.st_uid == 0:
        return
    try:
        user = pwd.getpwuid(found.st_uid)
    except KeyError:
        os.setgroups([])
        os.setgid(found.st_gid)
    else:
        os.initgroups(user.pw_name, user.pw_gid)
        os.setgid(user.pw_gid)
    os.setuid(found.st_uid)
