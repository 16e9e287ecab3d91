"""Manages the state directory: the store, the server's private key and the lock of the running server."""

from __future__ import annotations

import fcntl
import os
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

from appliance.config import state_file
from appliance.domain.errors import HostError, InvalidRequest
from appliance.network.wireguard import keys

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


LOCK_ATTEMPTS, LOCK_PAUSE_S = 10, 0.02
STOP_FIRST = "stop it first: systemctl stop wg-appliance"


class StateDir:
    def __init__(self, path: Path) -> None:
        self.path = path
        self.store = path / "store.sqlite"
        self.sysctls = path / "sysctls.json"
        self.conntrack = path / "conntrack.json"
        self.nftables = path / "nftables.json"
        self.admission = path / "admission.json"
        self.wireguard_go_log = path / "wireguard-go.log"
        self.contended = path / "contended.json"
        self.running = path / "running.json"
        self.addresses = path / "addresses.json"  # in use, like the settings in running.json
        self.key = path / "server.key"
        self.interface_keys = path / "interface.json"
        self.unfinished_restore = path / "restore.unfinished"  # exists while the files may be partly restored
        self.peer_lives = path / "peer-lives"
        self.fleet_status = path / "fleet" / "status.json"  # noted each second by a server in a fleet
        self._membership = path / "fleet" / "membership.json"
        self._lock = path / "serve.lock"

    @property
    def in_fleet(self) -> bool:
        """Tells whether this host is in a fleet; False too where that may not be looked at. See fleet.membership."""
        try:
            return self._membership.exists()
        except PermissionError:
            return False

    def create(self) -> bool:
        """Creates the directory if missing, accessible to its owner only. Returns True if created. Raises HostError."""
        try:
            if self.path.is_dir():
                return False
            self.path.mkdir(mode=0o700, parents=True)
        except OSError as error:
            raise HostError(f"cannot create node.state_dir {self.path}: {error.strerror}") from error
        return True

    def create_store(self) -> None:
        """Creates an empty store file if missing, accessible to its owner only. Raises HostError.

        SQLite gives -wal and -shm the same mode.
        """
        try:
            os.close(os.open(self.store, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
        except FileExistsError:
            return
        except OSError as error:
            raise HostError(f"cannot create the store {self.store}: {error.strerror}") from error

    def private_key(self) -> bytes:
        """Returns the server's key, generated on first use. Raises HostError, naming the file, if it holds no key."""
        try:
            self._create_key()
        except OSError as error:
            raise HostError(f"cannot create the server key {self.key}: {error.strerror}") from error
        return self.read_key()

    def read_key(self) -> bytes:
        """Returns the server's key. Raises HostError, naming the file, if it is missing or holds no key."""
        try:
            text = state_file.read_text(self.key, follow=True).strip()
            return keys.parse_public_key(text, "key")
        except (InvalidRequest, UnicodeDecodeError) as error:
            raise HostError(f"{self.key} holds no WireGuard private key (base64 of 32 bytes)") from error
        except OSError as error:
            raise HostError(f"cannot read the server key {self.key}: {error.strerror}") from error

    @property
    def has_key(self) -> bool:
        return self.key.exists()

    def _create_key(self) -> None:
        if self.key.exists():
            return
        # Written to a temporary file first: a crash leaves no partial key.
        new = self.key.with_suffix(f".{os.getpid()}")
        descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            with os.fdopen(descriptor, "w", encoding="ascii") as file:
                file.write(keys.encode(keys.generate_private_key()) + "\n")
                file.flush()
                os.fsync(file.fileno())
            os.link(new, self.key)
        except FileExistsError:
            return  # another process was first; its key is used
        finally:
            new.unlink()

    @property
    def is_hub(self) -> bool:
        """Tells whether this host is a hub of its fleet; False too where that may not be looked at."""
        try:
            return (self.path / "fleet" / "hub.json").exists()
        except PermissionError:
            return False

    def require_whole(self) -> None:
        """Raises HostError if a restore was interrupted while it moved the new files into place."""
        if self.unfinished_restore.exists():
            raise HostError(
                f"a restore into {self.path} was cut short; run it again: wg-appliance restore FILE "
                "(what was there before it is in the newest before-restore folder)"
            )

    @contextmanager
    def serving(self) -> Iterator[None]:
        """Holds the lock of the one server on this state. Raises HostError if another server holds it."""
        with self._open_lock() as descriptor:
            for attempt in range(LOCK_ATTEMPTS):
                try:
                    fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except BlockingIOError as error:
                    # `is_served` in an admin command holds the lock briefly too.
                    if attempt == LOCK_ATTEMPTS - 1:
                        message = f"another wg-appliance is already serving {self.path}; {STOP_FIRST}"
                        raise HostError(message) from error
                    time.sleep(LOCK_PAUSE_S)
            yield

    def is_served(self) -> bool:
        """Tells whether a server is running on this state now. Raises HostError if the lock cannot be opened."""
        if not self._lock.exists():
            return False
        with self._open_lock() as descriptor:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                return True
        return False

    @contextmanager
    def _open_lock(self) -> Iterator[int]:
        try:
            descriptor = os.open(self._lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        except OSError as error:
            raise HostError(f"cannot open {self._lock}: {error.strerror}") from error
        try:
            yield descriptor
        finally:
            os.close(descriptor)
