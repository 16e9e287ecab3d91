"""Tells whether this process can still read the program that it runs: root that has become another user may not."""

from __future__ import annotations

import os
import pwd
import sys
from pathlib import Path

PACKAGE = Path(__file__).absolute().parents[1]


def hidden() -> str:
    """Says which folder or file of the program this user cannot read, and what to do; "" if it can read all."""
    above = (*reversed(PACKAGE.parents), *reversed(Path(sys.prefix).absolute().parents), Path(sys.prefix))
    unread = next((each for each in above if not os.access(each, os.X_OK, effective_ids=True)), None)
    if unread is None:
        unread = next((each for each in (PACKAGE, *PACKAGE.rglob("*")) if not _readable(each)), None)
    if unread is None:
        return ""
    return (
        f"the user {_name()}, to whom the state directory belongs, cannot read {unread}, a part of this program: "
        f"chmod go+rX {unread}, or put the program where that user can read it"
    )


def _readable(path: Path) -> bool:
    return os.access(path, os.R_OK | (os.X_OK if path.is_dir() else 0), effective_ids=True)


def _name() -> str:
    try:
        return pwd.getpwuid(os.geteuid()).pw_name
    except KeyError:
        return str(os.geteuid())
