"""Root working on files that belong to another user: as that user, or the files made would lock it out.

What the work imports has to be there before: the owner may have no access to where the program is (/root). Whoever
cannot know what that is gives `rehearse`, which does what is to come, without effect. It is called only where the
owner is another.
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
    """As root: take on the uid, gid and groups of the owner of `path`, for good. Raises OSError."""
    if os.geteuid() != 0:
        return
    found = path.stat()
    if _is_own(found):
        return
    rehearse()
    gid, groups = _groups(found)
    os.setgroups(groups)
    os.setgid(gid)
    os.setuid(found.st_uid)


@contextmanager
def acting_as_owner(path: Path, rehearse: Callable[[], object] = lambda: None) -> Iterator[None]:
    """As `become_owner`, and root again afterwards. The whole process changes. Raises OSError."""
    found = path.stat()
    if _is_own(found):
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


def _is_own(found: os.stat_result) -> bool:
    """Root's own, too; whoever is not root can become nobody else."""
    return os.geteuid() != 0 or found.st_uid == 0


def _groups(owned: os.stat_result) -> tuple[int, list[int]]:
    """The owner's own group, and all of them; for a uid that has no name, the file's alone."""
    try:
        user = pwd.getpwuid(owned.st_uid)
    except KeyError:
        return owned.st_gid, []
    return user.pw_gid, os.getgrouplist(user.pw_name, user.pw_gid)
