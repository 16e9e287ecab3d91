"""Where the exit's API is and who we are there: from the command line, the environment, or files of the user's."""

from __future__ import annotations

import os
import stat
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from appliance.client.api.dialer import is_same_exit
from appliance.domain.errors import HostError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from appliance.client.sudo_user import Invoker

ENV_API, ENV_TOKEN = "WG_APPLIANCE_API", "WG_APPLIANCE_TOKEN"
API, TOKEN = "api", "token"


@dataclass(frozen=True, slots=True)
class Access:
    """None: nobody has said. `elsewhere`: the exit that the saved token is for, where it is another one."""

    url: str | None
    token: str | None = field(repr=False)
    elsewhere: str | None = None


def folder(invoker: Invoker, environ: Mapping[str, str]) -> Path:
    """https://specifications.freedesktop.org/basedir-spec; behind sudo the variable is not the user's."""
    configured = "" if invoker.changed else environ.get("XDG_CONFIG_HOME", "")
    return (Path(configured) if configured else invoker.home / ".config") / "wg-appliance"


def find(url: str | None, token: str | None, environ: Mapping[str, str], saved: Path) -> Access:
    """`url` and `token` as given, else the environment's, else those in the folder `saved`, whose token is for the exit
    that was saved with it and for no other."""
    url, found = url or environ.get(ENV_API), token or environ.get(ENV_TOKEN)
    elsewhere = None
    if not url or not found:
        theirs = _read(saved / API, private=False)
        url = url or theirs
        if not found and (theirs is None or (url is not None and is_same_exit(url, theirs))):
            found = _read(saved / TOKEN, private=True)
        elif not found and (saved / TOKEN).exists():
            elsewhere = theirs
    if found and not (found.isascii() and found.isprintable() and " " not in found):
        raise HostError("the token is not one: it has characters that no token has")
    return Access(url or None, found or None, elsewhere)


def read_token(file: Path) -> str:
    """Raises HostError where there is none, or where others can read it."""
    found = _read(file, private=True)
    if not found:
        raise HostError(f"no token in {file}")
    return found


def save(access: Access, saved: Path) -> list[Path]:
    """For the next time, where nobody else reads it. The files that were written: both, or none."""
    saved.mkdir(mode=0o700, parents=True, exist_ok=True)
    theirs = _read(saved / API, private=False)
    values = {saved / API: access.url, saved / TOKEN: access.token}
    with ExitStack() as stack:
        ready = {
            path: stack.enter_context(_aside(path, f"{value}\n")) for path, value in values.items() if value is not None
        }
        if theirs is None or access.url is None or not is_same_exit(access.url, theirs):
            (saved / TOKEN).unlink(missing_ok=True)  # at no moment it is beside the URL of another exit
        for path, new in ready.items():
            new.replace(path)
    return list(ready)


def write_private(path: Path, text: str, *, replace: bool = True) -> None:
    """Mode 0600 from its beginning on, and never half of it. Raises FileExistsError where it may not replace one."""
    with _aside(path, text) as new:
        if replace:
            new.replace(path)
        else:
            path.hardlink_to(new)


@contextmanager
def _aside(path: Path, text: str) -> Iterator[Path]:
    """A file that may take the place of `path`; gone afterwards where it does not."""
    new = path.with_name(f".{path.name}.{os.getpid()}")
    with os.fdopen(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600), "w") as file:
        try:
            file.write(text)
            file.flush()
            yield new
        finally:
            new.unlink(missing_ok=True)


def _read(file: Path, *, private: bool) -> str | None:
    try:
        with file.open(encoding="utf-8") as opened:
            if private and stat.S_IMODE(os.fstat(opened.fileno()).st_mode) & 0o077:
                raise HostError(f"{file} can be read by others: chmod 600 {file}")
            return opened.read().strip() or None
    except FileNotFoundError:
        return None
    except UnicodeDecodeError as error:
        raise HostError(f"{file} is no text") from error
