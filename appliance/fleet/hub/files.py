"""Writes the files of a hub's nats-server: configuration, certificate and key. Blocking.

Where `install` has put the unit wg-appliance-hub.service, they are in its state directory, in a folder that the
appliance writes and the unit's user reads. Elsewhere they are in state_dir/fleet/hub, and `serve` runs the server.
"""

from __future__ import annotations

import logging
import os
import shutil
import ssl
from dataclasses import dataclass
from typing import TYPE_CHECKING

from appliance.config.state_file import sync_folder
from appliance.domain.errors import FleetError, HostError
from appliance.fleet.hub import former_streams
from appliance.fleet.hub.certificates import CertifiedKey, Validity, validity
from appliance.fleet.hub.config import ServerFiles
from appliance.fleet.membership.identity import FOLDER
from appliance.network import programs
from appliance.ops.install.layout import Layout
from appliance.store.file_owner import have_one_owner

if TYPE_CHECKING:
    from pathlib import Path

log = logging.getLogger(__name__)

CHECK_S = 10.0


@dataclass(frozen=True, slots=True)
class HubPlace:
    """Locates a hub's files. `by_unit`: systemd runs the server."""

    folder: Path
    streams: Path
    by_unit: bool

    @property
    def config(self) -> Path:
        return self.folder / "hub.conf"

    @property
    def certificate(self) -> Path:
        return self.folder / "leaf.pem"

    @property
    def key(self) -> Path:
        return self.folder / "leaf.key"

    @property
    def authority(self) -> Path:
        return self.folder / "ca.pem"

    @property
    def log(self) -> Path | None:
        return None if self.by_unit else self.folder / "nats-server.log"

    @property
    def files(self) -> ServerFiles:
        """Returns what the configuration names."""
        return ServerFiles(
            str(self.certificate), str(self.key), str(self.streams), str(self.log or ""), str(self.authority)
        )


def hub_place(state_dir: Path, layout: Layout | None = None) -> HubPlace:
    """Returns where the files are on this host. The unit's folder counts if it is the state directory's owner's.

    Raises HostError.
    """
    installed = layout or Layout()
    folder = installed.hub_config  # its group is the unit's, and so is that of files in it
    try:
        if folder.is_dir() and have_one_owner(folder, state_dir):
            return HubPlace(folder, installed.hub / "jetstream", by_unit=True)
    except OSError as error:
        raise HostError(f"cannot look at {folder}: {error.strerror}") from error
    own = state_dir / FOLDER / "hub"
    return HubPlace(own, own / "jetstream", by_unit=False)


class HubFiles:
    """Reads and replaces the files; a file is whole at any moment. Raises HostError for what cannot be written."""

    def __init__(self, place: HubPlace) -> None:
        self.place = place
        self._mode = 0o640 if place.by_unit else 0o600

    def create_folder(self) -> None:
        try:
            self.place.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise HostError(f"cannot create {self.place.folder}: {error.strerror}") from error

    def leaf(self) -> Validity | None:
        """Returns when the hub's certificate is valid; None: there is none that can be used, so make one."""
        try:
            return validity(self.place.certificate.read_text(encoding="ascii")) if self.place.key.exists() else None
        except (OSError, ValueError):
            return None

    def config(self) -> str | None:
        """Returns the configuration as it was last written; None: it was not."""
        try:
            return self.place.config.read_text(encoding="utf-8")
        except FileNotFoundError:
            return None
        except (OSError, UnicodeDecodeError) as error:
            raise HostError(f"cannot read {self.place.config}: {error}") from error

    def put_leaf(self, leaf: CertifiedKey) -> None:
        """Replaces certificate and key. Between the two renames a reload would be refused, which changes nothing."""
        key, certificate = self._new(self.place.key, leaf.key), self._new(self.place.certificate, leaf.certificate)
        try:
            ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(certificate, key)
        except ssl.SSLError as error:
            raise FleetError(f"the new certificate does not fit its key: {error}") from error
        self._in_place(key, self.place.key)
        self._in_place(certificate, self.place.certificate)

    def forget_leaf(self) -> None:
        """Removes the certificate, so that another one is due."""
        try:
            self.place.certificate.unlink(missing_ok=True)
        except OSError as error:
            raise HostError(f"cannot remove {self.place.certificate}: {error.strerror}") from error

    def put_authority(self, ca: str) -> bool:
        """Replaces the certificates (PEM) by which other hubs are known, if they differ; tells whether they did."""
        try:
            if self.place.authority.read_text(encoding="ascii") == ca:
                return False
        except (OSError, UnicodeDecodeError):
            """It is written anew."""
        self._in_place(self._new(self.place.authority, ca), self.place.authority)
        return True

    def put_config(self, text: str, program: Path) -> None:
        """Replaces the configuration. Raises FleetError, and keeps the old one, if nats-server would refuse it."""
        new = self._new(self.place.config, text)
        try:
            programs.run(str(program), "-t", "-c", str(new), timeout_s=CHECK_S)
        except programs.ProgramFailed as error:
            raise FleetError(f"the hub's new configuration is not taken over: {error}") from error
        self._config_in_place(new, text)

    def put_back(self, text: str) -> None:
        """Writes a configuration that was in force, without a look at it."""
        self._config_in_place(self._new(self.place.config, text), text)

    def remove_former_streams(self) -> None:
        """Removes streams of hubs or fleets that are no more, while a server goes by the configuration.

        Where the unit runs the server, the unit removes them when its server ends. Does not raise: streams that stay
        take room, and harm nobody.
        """
        try:
            config = self.config()
            if self.place.by_unit:
                self._note_streams(former_streams.in_use(config, self.place.streams))
                return
            for folder in former_streams.former(config, self.place.streams):
                shutil.rmtree(folder)
                log.info("the streams in %s are removed: other hosts are the hubs now", folder)
        except (OSError, HostError) as error:
            log.warning("former streams in %s are not removed: %s", self.place.streams, error)

    def remove(self) -> None:
        """Removes configuration, certificates and key, as the host is no hub any more: no server starts then.

        One that the unit runs is stopped, and its streams are removed then.
        """
        try:
            for file in (self.place.config, self.place.key, self.place.certificate, self.place.authority):
                file.unlink(missing_ok=True)
            if self.place.by_unit:
                self._note_streams(former_streams.NONE)
            self.ask_restart()
            if not self.place.by_unit:
                shutil.rmtree(self.place.streams, ignore_errors=True)
        except OSError as error:
            raise HostError(f"cannot remove what is in {self.place.folder}: {error.strerror}") from error

    def ask_restart(self) -> None:
        """Has systemd start the server, or start it anew, or stop it if there is no configuration any more.

        For what no reload takes over: a fleet that is made or given up, a cluster. Does nothing where no unit runs it.
        """
        if self.place.by_unit:
            restart = self.place.folder / "restart"  # wg-appliance-hub-restart.path
            self._in_place(self._new(restart, ""), restart)

    def _config_in_place(self, new: Path, text: str) -> None:
        """Puts a configuration in place. Without a note, as for a moment here, the unit removes no streams."""
        used = former_streams.in_use(text, self.place.streams)
        if self.place.by_unit and not self._is_noted(used):
            self._note.unlink(missing_ok=True)
        self._in_place(new, self.place.config)
        if self.place.by_unit:
            self._note_streams(used)

    @property
    def _note(self) -> Path:
        return self.place.folder / former_streams.NOTE

    def _is_noted(self, streams: str | None) -> bool:
        try:
            return streams is not None and self._note.read_text(encoding="ascii") == former_streams.note(streams)
        except (OSError, UnicodeDecodeError):
            return False

    def _note_streams(self, streams: str | None) -> None:
        if streams is not None and not self._is_noted(streams):
            self._in_place(self._new(self._note, former_streams.note(streams)), self._note)

    def _new(self, file: Path, text: str) -> Path:
        new = file.with_name(f"{file.name}.new")
        try:
            new.unlink(missing_ok=True)
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
            descriptor = os.open(new, flags, self._mode)
            with os.fdopen(descriptor, "w", encoding="utf-8") as opened:
                os.fchmod(descriptor, self._mode)  # whatever the umask is
                opened.write(text)
                opened.flush()
                os.fsync(descriptor)
        except OSError as error:
            raise HostError(f"cannot write {new}: {error.strerror}") from error
        return new

    def _in_place(self, new: Path, file: Path) -> None:
        try:
            new.replace(file)
            sync_folder(file.parent)
        except OSError as error:
            raise HostError(f"cannot replace {file}: {error.strerror}") from error
