"""All of the machine's traffic into the tunnel, by wg-quick(8)."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from contextlib import suppress
from typing import TYPE_CHECKING

from appliance import host_network
from appliance.client.access import write_private
from appliance.client.config_file import resolvers
from appliance.client.device import end_wireguard_go
from appliance.client.dialling import read_offer
from appliance.client.left_behind import config_of
from appliance.client.tunnel import Figures, read_figures
from appliance.errors import ApplianceError, HostError
from appliance.wireguard import link

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

WG_QUICK = "wg-quick"
WG_QUICK_S = 120.0


class WholeMachine:
    default_resolvers: Sequence[str] = ()  # the machine's own go on

    def __init__(self, interface: str, environ: Mapping[str, str]) -> None:
        self._interface = interface
        self._environ = environ
        self._file = config_of(interface)

    def check(self) -> None:
        if shutil.which(WG_QUICK) is None:
            raise HostError(
                f"{WG_QUICK} is missing: apt-get install wireguard-tools; or run one program through the tunnel, "
                "which does not need it: connect -- COMMAND"
            )

    def up(self, config: str) -> None:
        if resolvers(config) and shutil.which("resolvconf") is None:
            raise HostError(
                f"the exit names resolvers ({', '.join(resolvers(config))}), for which {WG_QUICK} needs resolvconf: "
                "apt-get install openresolv; or go on with this machine's own: --dns none"
            )
        self._refuse_own_exit(config)
        write_private(self._file, config)
        self._run("up")

    def change(self, config: str) -> None:
        self._run("down")
        self.up(config)

    def figures(self) -> Figures:
        return read_figures(self._interface)

    def mark(self) -> int | None:
        """The one that wg-quick has chosen."""
        shown = subprocess.run(  # noqa: S603 (a name of ours)
            ["wg", "show", self._interface, "fwmark"],  # noqa: S607 (of wg-quick's package)
            capture_output=True,
            text=True,
            check=False,
        ).stdout.strip()
        with suppress(ValueError):
            return int(shown, 0)
        return None  # "off"

    def down(self) -> list[str]:
        failed = []
        try:
            kind = link.link_kind(self._interface)
            if kind is not None and self._file.exists():
                self._run("down")
            elif kind is not None:
                link.delete_link(self._interface, kind)
        except ApplianceError as error:
            failed.append(str(error))
        try:
            end_wireguard_go(self._interface)
        except ApplianceError as error:
            failed.append(str(error))
        self._file.unlink(missing_ok=True)
        return failed

    def _refuse_own_exit(self, config: str) -> None:
        """Whose way to the internet would lead into its own tunnel."""
        dialled = read_offer(config).endpoint.host
        if any(interface.ip == dialled for _, interface in host_network.host_interfaces(without=self._interface)):
            raise HostError("this machine is the exit; connect from another, or one program alone: connect -- COMMAND")

    def _run(self, action: str) -> None:
        """Signals of the terminal are not for it: half an action is worse than one to be undone.

        Into a file: the wireguard-go that it may start keeps its output open.
        """
        with tempfile.TemporaryFile() as said:
            done = subprocess.run(  # noqa: S603 (a file of ours)
                [WG_QUICK, action, str(self._file)],
                stdin=subprocess.DEVNULL,
                stdout=said,
                stderr=said,
                start_new_session=True,
                env=dict(self._environ),
                timeout=WG_QUICK_S,
                check=False,
            )
            if done.returncode != 0:
                said.seek(0)
                lines = said.read().decode(errors="replace").split("\n")
                words = [line for line in lines if line and not line.startswith(("[#]", "[!]"))] or lines
                raise HostError(f"{WG_QUICK} {action} failed: {' '.join(words).strip()}")
