"""Reads and writes a backup's file: a plain tar with a manifest and the members that it names, in this order only.

tarfile writes it. It is read header by header, because tarfile would interpret and unpack extensions of the format
before the caller can check what a member is.
"""

from __future__ import annotations

import hashlib
import io
import tarfile
from contextlib import contextmanager
from typing import IO, TYPE_CHECKING, Annotated, BinaryIO

import msgspec

from appliance.domain.errors import BackupError
from appliance.ops.backup.fleet_files import FILES, FOLDER

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

FORMAT, WITHOUT_FLEET = 2, 1  # a backup that has no files of a fleet is one that earlier versions restore
MANIFEST, CONFIG, KEY, STORE = "manifest.json", "config.toml", "server.key", "store.sqlite"
FLEET = {f"{FOLDER}/{name}": name for name in FILES}
# A store may have any size: it is hashed while it is written to disk, and ends where the file does.
LIMITS = {MANIFEST: 2**16, CONFIG: 2**20, KEY: 2**10, **dict.fromkeys(FLEET, 2**20), STORE: 2**62}
PIECE = 2**20


class Member(msgspec.Struct, frozen=True):
    size: Annotated[int, msgspec.Meta(ge=0)]
    sha256: str


class Manifest(msgspec.Struct, frozen=True):
    """Holds the manifest. `appliance`: the version that made the backup. `schema`: the store's."""

    format: int
    appliance: str
    schema: int
    made_at: str
    members: dict[str, Member]


def digest(file: BinaryIO) -> Member:
    """Returns the manifest's entry for a member with this content."""
    sha256, size = hashlib.sha256(), 0
    while piece := file.read(PIECE):
        sha256.update(piece)
        size += len(piece)
    file.seek(0)
    return Member(size, sha256.hexdigest())


def write(to: IO[bytes], manifest: Manifest, members: Mapping[str, BinaryIO]) -> None:
    encoded = msgspec.json.format(msgspec.json.encode(manifest)) + b"\n"
    # Only this format supports 8 GiB and more without an extra header before the header.
    with tarfile.open(fileobj=to, mode="w", format=tarfile.GNU_FORMAT) as tar:
        _add(tar, MANIFEST, len(encoded), io.BytesIO(encoded))
        for name, content in members.items():
            _add(tar, name, manifest.members[name].size, content)


def _add(tar: tarfile.TarFile, name: str, size: int, content: BinaryIO) -> None:
    header = tarfile.TarInfo(name)
    header.size, header.mode = size, 0o600
    tar.addfile(header, content)


@contextmanager
def open_backup(path: Path) -> Iterator[Backup]:
    """Opens a backup. Raises BackupError if it is not a backup, or is damaged as far as it was read. Raises OSError:
    if it cannot be read."""
    with path.open("rb") as file:
        yield Backup(path, file)


def is_backup(path: Path) -> bool:
    """Tells whether the file starts like a backup of any version. Raises OSError if it cannot be read."""
    with path.open("rb") as file:
        return _is_first(file.read(tarfile.BLOCKSIZE))


class Backup:
    """Reads an open backup. All but the store has been read; `copy_store` comes next.

    `config`: None: there was no file. `fleet`: the host's files of its fleet, by name.
    """

    def __init__(self, path: Path, file: BinaryIO) -> None:
        self.path = path
        self._file = file
        self.manifest = self._manifest()
        self.config = self._content(CONFIG) if CONFIG in self.manifest.members else None
        self.key = self._content(KEY)
        self.fleet = {name: self._content(each) for each, name in FLEET.items() if each in self.manifest.members}

    def copy_store(self, to: BinaryIO) -> None:
        for piece in self._pieces(STORE):
            to.write(piece)
        if self._file.read(tarfile.BLOCKSIZE) != bytes(tarfile.BLOCKSIZE):
            raise self.damaged("its end is missing")

    def _manifest(self) -> Manifest:
        block = self._file.read(tarfile.BLOCKSIZE)
        if not _is_first(block):
            raise BackupError(f"{self.path} is no backup of wg-appliance")
        text = b"".join(self._read(self._size(MANIFEST, block)))
        try:
            made_with = msgspec.json.decode(text, type=_MadeWith)
            if made_with.format > FORMAT:
                raise self.too_new(made_with.appliance)
            manifest = msgspec.json.decode(text, type=Manifest)
        except (msgspec.MsgspecError, UnicodeDecodeError) as error:
            raise self.damaged(f"{MANIFEST}: {error}") from error
        names = [*manifest.members]
        if not {KEY, STORE} <= {*names} or names != [name for name in LIMITS if name in names and name != MANIFEST]:
            raise self.damaged(f"{MANIFEST} names other members than a backup has")
        return manifest

    def too_new(self, version: str) -> BackupError:
        return BackupError(f"{self.path} was made by wg-appliance {version}, which is newer than this one: install it")

    def _content(self, name: str) -> bytes:
        return b"".join(self._pieces(name))

    def _pieces(self, name: str) -> Iterator[bytes]:
        """Yields the next member's content. Raises BackupError at its end, if it differs from the manifest."""
        size, sha256 = self._size(name, self._file.read(tarfile.BLOCKSIZE)), hashlib.sha256()
        for piece in self._read(size):
            sha256.update(piece)
            yield piece
        if self.manifest.members[name] != Member(size, sha256.hexdigest()):
            raise self.damaged(f"{name} is not what was saved")

    def _size(self, name: str, block: bytes) -> int:
        if len(block) < tarfile.BLOCKSIZE:
            raise self.damaged("it ends too soon")
        try:
            header = tarfile.TarInfo.frombuf(block, "utf-8", "strict")
        except (tarfile.HeaderError, UnicodeDecodeError) as error:
            raise self.damaged(f"{name} is missing") from error
        if header.name != name or header.type != tarfile.REGTYPE or not 0 <= header.size <= LIMITS[name]:
            raise self.damaged(f"{name} is missing")
        return header.size

    def _read(self, size: int) -> Iterator[bytes]:
        """Yields `size` bytes, and skips the padding to whole blocks."""
        left = size
        while left:
            piece = self._file.read(min(left, PIECE))
            if not piece:
                raise self.damaged("it ends too soon")
            left -= len(piece)
            yield piece
        self._file.read(-size % tarfile.BLOCKSIZE)

    def damaged(self, finding: str) -> BackupError:
        return BackupError(f"the backup {self.path} is damaged: {finding}; take another one")


class _MadeWith(msgspec.Struct):
    """Holds what the manifests of all versions have in common."""

    format: int
    appliance: str


def _is_first(block: bytes) -> bool:
    return block.startswith(f"{MANIFEST}\0".encode()) and block[257:262] == b"ustar"  # tar(5)
