"""Gives one thread, and what it starts, its own name resolution: a mount namespace with its own resolv.conf."""

from __future__ import annotations

import ctypes
import os
from pathlib import Path
from typing import TYPE_CHECKING

from appliance.client.run_records import write_beside
from appliance.domain.errors import HostError

if TYPE_CHECKING:
    from collections.abc import Sequence

RESOLV_CONF = Path("/etc/resolv.conf")
# Sockets by which the host's own resolver would answer, outside the tunnel: nss-resolve(8), nscd(8).
OTHER_WAYS = (Path("/run/systemd/resolve"), Path("/run/nscd"))

_CLONE_NEWNS = 0x00020000  # linux/sched.h
_MS_BIND, _MS_REC, _MS_SLAVE = 0x1000, 0x4000, 0x80000  # linux/mount.h


def give_own_resolvers(addresses: Sequence[str], file: Path) -> None:
    """Moves the calling thread to a mount namespace whose resolv.conf names `addresses`.

    Creates `file`, which the caller removes in the end.
    Raises HostError if the mount namespace or a mount fails.
    """
    write_beside(file, "".join(f"nameserver {address}\n" for address in addresses))
    file.chmod(0o644)
    libc = ctypes.CDLL(None, use_errno=True)
    _check(libc.unshare(_CLONE_NEWNS), "make a mount namespace")
    # Later mounts of the host are still seen here; mounts made here are not seen there.
    _mount(libc, "none", Path("/"), "", _MS_REC | _MS_SLAVE)
    for folder in OTHER_WAYS:
        if folder.is_dir():
            _mount(libc, "tmpfs", folder, "tmpfs", 0)
    target = RESOLV_CONF.resolve()
    if not target.exists():  # a symbolic link to a file that a tmpfs has just hidden
        try:
            target.touch(mode=0o644)
        except OSError as error:
            raise HostError(f"{RESOLV_CONF} is no file, and cannot be made one: {error.strerror}") from error
    _mount(libc, str(file), target, "", _MS_BIND)


def _mount(libc: ctypes.CDLL, source: str, target: Path, kind: str, flags: int) -> None:
    done = libc.mount(source.encode(), os.fsencode(target), kind.encode(), ctypes.c_ulong(flags), None)
    _check(done, f"mount {source} on {target}")


def _check(done: int, what: str) -> None:
    if done != 0:
        raise HostError(f"cannot {what}: {os.strerror(ctypes.get_errno())}; a container may not have CAP_SYS_ADMIN")
