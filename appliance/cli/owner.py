"""Root working on a store that belongs to another user: as that user, or the files made would lock it out."""

from __future__ import annotations

import os
import pwd
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable
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
    try:
        user = pwd.getpwuid(found.st_uid)
    except KeyError:
        os.setgroups([])
        os.setgid(found.st_gid)
    else:
        os.initgroups(user.pw_name, user.pw_gid)
        os.setgid(user.pw_gid)
    os.setuid(found.st_uid)
