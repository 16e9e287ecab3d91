"""Keeps who this host is in a fleet, in state_dir/fleet: its keys, its membership, and a hub's own secrets.

    keys.json         the node's id and keys, made once, before the host is in any fleet
    membership.json   the fleet, as a hub has told; it exists exactly while the host is in a fleet
    hub.json          a hub's users and the fleet's authority of certificates

Commands that root runs call this as the directory's owner (store.file_owner). Each file is whole at any moment, and on
the disk when it was written: a hub knows a host by keys that a power cut must not take from it.
"""

from __future__ import annotations

import os
import secrets
from typing import TYPE_CHECKING, TypeVar

import msgspec

from appliance.config import state_file
from appliance.config.state_file import sync_folder
from appliance.domain.errors import HostError
from appliance.fleet.link.nkey import NKey
from appliance.fleet.membership.members import Role  # noqa: TC001 (msgspec reads it)
from appliance.network.wireguard import keys as curve25519

if TYPE_CHECKING:
    from pathlib import Path

T = TypeVar("T")

FOLDER = "fleet"
FOLDER_MODE = 0o700


class HubAddress(msgspec.Struct, frozen=True):
    """Tells where a hub listens, as HOST:PORT, and the name in its certificate."""

    address: str
    server_name: str


class Membership(msgspec.Struct, frozen=True):
    """Holds the fleet that this host is in. `ca`: PEM. `fleet_key`: all members', and of nobody else."""

    fleet_id: str
    name: str  # of this host, when it joined
    role: Role
    hubs: tuple[HubAddress, ...]
    ca: str
    fleet_key: bytes

    def __repr__(self) -> str:
        return f"Membership({self.fleet_id!r}, {self.name!r}, {self.role!r}, {self.hubs!r})"


class NodeKeys(msgspec.Struct, frozen=True):
    """Holds what never leaves this host. `seed`: of its NKEY. `xkey`: X25519, with which rpc to it is opened."""

    node_id: str
    seed: str
    xkey: bytes

    def __repr__(self) -> str:
        return f"NodeKeys({self.node_id!r})"

    @property
    def nkey(self) -> str:
        return NKey.from_seed(self.seed).public

    @property
    def public_xkey(self) -> bytes:
        return curve25519.public_key(self.xkey)


class NextAuthority(msgspec.Struct, frozen=True):
    """Holds the authority that follows the present one (PEM), and since when (ms) members are told to trust it.

    `signs_since`: from when on it has signed the hub's certificate; None: it has not yet.
    """

    certificate: str
    key: str
    told_since: int
    signs_since: int | None = None

    def __repr__(self) -> str:
        return "NextAuthority(...)"


class HubSecrets(msgspec.Struct, frozen=True):
    """Holds a hub's own: the seeds of its users in the accounts HUB and SYS, and the CA's key (PEM).

    `next_authority`: None: the fleet has one authority.
    """

    hub_seed: str
    system_seed: str
    ca_key: str
    next_authority: NextAuthority | None = None

    def __repr__(self) -> str:
        return "HubSecrets(...)"


def new_keys() -> NodeKeys:
    return NodeKeys(f"nod_{secrets.token_hex(12)}", NKey.new().seed, curve25519.generate_private_key())


def new_fleet_id() -> str:
    return f"flt_{secrets.token_hex(12)}"


def new_fleet_key() -> bytes:
    return secrets.token_bytes(32)


class FleetFolder:
    """Reads and writes the files. Raises HostError, naming the file, for what cannot be read or written."""

    def __init__(self, state_dir: Path) -> None:
        self.path = state_dir / FOLDER
        self.membership_file = self.path / "membership.json"
        self._keys = self.path / "keys.json"
        self._hub = self.path / "hub.json"

    @property
    def is_member(self) -> bool:
        """Tells whether the host is in a fleet."""
        return self.membership_file.exists()

    def membership(self) -> Membership | None:
        """Returns None if the host is in no fleet."""
        return _read(self.membership_file, Membership)

    def membership_mark(self) -> tuple[int, ...]:
        """Returns what differs once the file of the membership was written or removed."""
        return _mark(self.membership_file)

    def save_membership(self, membership: Membership) -> None:
        """Makes the host a member: the last step of joining, as a server that finds the file takes part."""
        self._write(self.membership_file, membership)

    def keys(self) -> NodeKeys:
        """Returns the node's keys, made if there are none. They stay when the host leaves, and so does its id."""
        present = _read(self._keys, NodeKeys)
        if present is None:
            present = new_keys()
            self._write(self._keys, present)
        return present

    def hub_secrets(self) -> HubSecrets | None:
        """Returns None if this host is no hub."""
        return _read(self._hub, HubSecrets)

    def hub_secrets_mark(self) -> tuple[int, ...]:
        """Returns what differs once the file of a hub's secrets was written or removed."""
        return _mark(self._hub)

    @property
    def has_hub_secrets(self) -> bool:
        return self._hub.exists()

    def forget_hub_secrets(self) -> None:
        """Removes them, if there are any: this host is no hub any more."""
        _forget(self._hub)

    def save_hub_secrets(self, of_hub: HubSecrets) -> None:
        self._write(self._hub, of_hub)

    def leave(self) -> None:
        """Forgets the fleet. The node keeps its id, and gets new keys: those that it had were let in once."""
        for file in (self.membership_file, self._hub):
            _forget(file)
        if (present := _read(self._keys, NodeKeys)) is not None:
            self._write(self._keys, msgspec.structs.replace(new_keys(), node_id=present.node_id))

    def _write(self, file: Path, value: msgspec.Struct) -> None:
        try:
            if not self.path.is_dir():
                self.path.mkdir(mode=FOLDER_MODE)
                sync_folder(self.path.parent)
            state_file.write_json(file, msgspec.to_builtins(value), on_disk=True)
            sync_folder(self.path)
        except OSError as error:
            raise HostError(f"cannot write {file}: {error.strerror}") from error


def _mark(file: Path) -> tuple[int, ...]:
    try:
        found = file.lstat()
    except OSError:
        return ()
    return found.st_ino, found.st_mtime_ns, found.st_ctime_ns, found.st_size


def _forget(file: Path) -> None:
    try:
        state_file.forget(file)
    except OSError as error:
        raise HostError(f"cannot remove {file}: {error.strerror}") from error


def _read(file: Path, kind: type[T]) -> T | None:
    try:
        return msgspec.convert(state_file.read_json(file), kind)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise HostError(f"cannot read {file}: {os.strerror(error.errno or 0)}") from error
    except (ValueError, msgspec.ValidationError) as error:
        raise HostError(f"{file} is damaged; put it back from a backup, or leave the fleet and join again") from error
