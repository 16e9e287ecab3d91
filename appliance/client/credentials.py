"""Finds the API's URL and the token: on the command line, in the environment, or in the user's files."""

from __future__ import annotations

import os
import stat
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from appliance.client.api.dialer import is_same_exit, parse_url
from appliance.domain.errors import HostError, InvalidRequest

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from appliance.client.sudo_user import Invoker

ENV_API, ENV_TOKEN = "WG_APPLIANCE_API", "WG_APPLIANCE_TOKEN"
API, TOKEN, INSECURE = "api", "token", "insecure-http"


@dataclass(frozen=True, slots=True)
class Access:
    """Holds URL and token; None if not given.

    `elsewhere`: the URL of the exit that the saved token is for, if another. `insecure_http`: it was saved that the
    token may go to this exit in clear text.
    """

    url: str | None
    token: str | None = field(repr=False)
    elsewhere: str | None = None
    insecure_http: bool = False


def folder(invoker: Invoker, environ: Mapping[str, str]) -> Path:
    """Returns the directory of the saved files (https://specifications.freedesktop.org/basedir-spec).

    Behind sudo, XDG_CONFIG_HOME is not the user's and is ignored.
    """
    configured = "" if invoker.changed else environ.get("XDG_CONFIG_HOME", "")
    return (Path(configured) if configured else invoker.home / ".config") / "wg-appliance"


def find(url: str | None, token: str | None, environ: Mapping[str, str], saved: Path) -> Access:
    """Returns `url` and `token` if given, else those of the environment, else those saved in the directory `saved`.

    A saved token is used only for the exit that was saved with it.
    Raises HostError if the token has invalid characters, or its file can be read by others.
    """
    url, token = url or environ.get(ENV_API), token or environ.get(ENV_TOKEN)
    elsewhere = None
    if not url or not token:
        saved_url = _read(saved / API, private=False)
        url = url or saved_url
        if not token and (saved_url is None or (url is not None and is_same_exit(url, saved_url))):
            token = _read(saved / TOKEN, private=True)
        elif not token and (saved / TOKEN).exists():
            elsewhere = saved_url
    if token and not (token.isascii() and token.isprintable() and " " not in token):
        raise HostError("the token is invalid: it has characters that no token has")
    return Access(url or None, token or None, elsewhere, bool(url) and _may_be_insecure(str(url), saved))


def _may_be_insecure(url: str, saved: Path) -> bool:
    """Tells whether it was saved that a token may go to this URL in clear text. Looks only where it would."""
    try:
        if not parse_url(url).sends_token_in_clear_text:
            return False
    except InvalidRequest:
        return False
    insecure_for = _read(saved / INSECURE, private=False)
    return insecure_for is not None and is_same_exit(url, insecure_for)


def read_token(file: Path) -> str:
    """Reads a token file. Raises HostError if it is missing or empty, or can be read by others."""
    token = _read(file, private=True)
    if not token:
        raise HostError(f"no token in {file}")
    return token


def save(access: Access, saved: Path) -> list[Path]:
    """Saves URL, token and permission for clear text with mode 0600, all or none. Returns the files written."""
    saved.mkdir(mode=0o700, parents=True, exist_ok=True)
    saved_url = _read(saved / API, private=False)
    insecure_for = access.url if access.insecure_http else None
    values = {saved / API: access.url, saved / TOKEN: access.token, saved / INSECURE: insecure_for}
    with ExitStack() as stack:
        ready = {
            path: stack.enter_context(_temporary_file(path, f"{value}\n"))
            for path, value in values.items()
            if value is not None
        }
        if saved_url is None or access.url is None or not is_same_exit(access.url, saved_url):
            (saved / TOKEN).unlink(missing_ok=True)  # the old token must never be next to another exit's URL
            (saved / INSECURE).unlink(missing_ok=True)
        for path, new in ready.items():
            new.replace(path)
    return list(ready)


def write_private(path: Path, text: str, *, replace: bool = True) -> None:
    """Writes a file atomically, with mode 0600 from the start.

    Raises FileExistsError if the file exists and `replace` is False.
    """
    with _temporary_file(path, text) as new:
        if replace:
            new.replace(path)
        else:
            path.hardlink_to(new)


@contextmanager
def _temporary_file(path: Path, text: str) -> Iterator[Path]:
    """Makes a temporary file that may replace `path`; removes it afterwards if it has not."""
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
