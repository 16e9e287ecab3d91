"""Implements `TunnelDevice` for wireguard-go: UAPI socket for the device, rtnetlink for the interface."""

from __future__ import annotations

import os
import socket
import time
from dataclasses import replace
from typing import TYPE_CHECKING

from appliance.domain.errors import TunnelError
from appliance.network.wireguard import link, link_state, uapi
from appliance.network.wireguard.batch import send_batches
from appliance.network.wireguard.tunnel import PutPeer
from appliance.network.wireguard.wireguard_go import POLL_S, PROGRAM, START_TIMEOUT_S, WireguardGo

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from appliance.network.wireguard.tunnel import DeviceChange, Dump, Link, LinkChange, PeerChange, RemotePeer

KIND = "tun"  # what rtnetlink calls such an interface
UP_TIMEOUT_S = 10.0
VANISH_TIMEOUT_S = 5.0
# Peers in one request: it takes wireguard-go up to half a millisecond for each, all before it answers.
AT_ONCE = 1000


class UserspaceDevice:
    """Controls a WireGuard interface served by wireguard-go.

    Uses a wireguard-go already running for the interface as it is. `log_path` is where a started one writes its
    errors; None drops them. If a systemd `unit` runs wireguard-go, waits for it instead of starting one.
    """

    backend = "userspace"
    dump_retries = 0  # wireguard-go answers under its own lock

    def __init__(self, interface_name: str, log_path: Path | None = None, unit: str | None = None) -> None:
        self.interface_name = interface_name
        self._unit = unit
        self._process = WireguardGo(interface_name, log_path)
        # The peers that an interface made here has had, until it is dumped; None: not known.
        self._had: set[bytes] | None = None

    def link(self) -> Link | None:
        self._process.reap()
        interface = link_state.read_link(self.interface_name, KIND)
        return interface if interface is not None and self._process.answers() else None

    def change_link(self, change: LinkChange) -> None:
        before = self.link()
        if change.create and before is None:
            self._had = set()
            if self._unit is None:
                self._await_vanished()
                self._process.start()
            else:
                self._await_unit(self._unit)
        link.change_link(self.interface_name, change)
        if change.up and not (before is not None and before.up):
            self._await_listening()

    def configure(self, change: DeviceChange) -> None:
        self._process.ask(uapi.device_request(change))

    def dial(self, remote: RemotePeer, private_key: bytes | None = None) -> None:
        self._process.ask(uapi.dial_request(remote, private_key))

    def dump(self) -> Dump:
        self._had = None
        answer = self._process.ask(uapi.GET)
        try:
            ifindex = socket.if_nametoindex(self.interface_name)
        except OSError as error:
            raise TunnelError(f"{self.interface_name}: there is no such interface") from error
        return answer.dump(ifindex)

    def apply(self, changes: Sequence[PeerChange]) -> None:
        if not changes:
            return
        if self._had is not None:
            changes = _as_new(changes, self._had)
        pieces = (changes[first : first + AT_ONCE] for first in range(0, len(changes), AT_ONCE))
        send_batches(self.interface_name, pieces, self._set_peers)

    def delete(self) -> None:
        process = self._process.process()
        if process is None:
            self._await_vanished()
            self._process.remove_stale_socket()
            return
        try:
            link.delete_link(self.interface_name, KIND)
            self._process.wait_until_gone(process)
        finally:
            os.close(process)

    def close(self) -> None:
        self._process.reap()

    def _set_peers(self, changes: Sequence[PeerChange], again: bool) -> None:
        self._process.ask(uapi.peers_request(changes, again=again))

    def _await_vanished(self) -> None:
        """Waits until the interface is gone: a killed wireguard-go stops answering a moment before."""
        deadline = time.monotonic() + VANISH_TIMEOUT_S
        while link_state.read_link(self.interface_name, KIND) is not None:
            if time.monotonic() > deadline:
                raise TunnelError(
                    f"{self.interface_name}: an interface of this name is there, without a {PROGRAM} behind it"
                )
            time.sleep(POLL_S)

    def _await_unit(self, unit: str) -> None:
        """Waits until wireguard-go answers: systemd restarts it when it ends; an ending one may still answer."""
        deadline = time.monotonic() + START_TIMEOUT_S
        while self.link() is None:
            if time.monotonic() > deadline:
                raise TunnelError(f"{self.interface_name}: {PROGRAM} does not answer; see systemctl status {unit}")
            time.sleep(POLL_S)

    def _await_listening(self) -> None:
        """Waits until wireguard-go has bound its UDP port: it does so when it learns that the interface is up.

        Until then it only stores a configured port, and does not report one that is taken.
        """
        deadline = time.monotonic() + UP_TIMEOUT_S
        while not self._process.ask(uapi.GET).listen_port:
            if time.monotonic() > deadline:
                raise TunnelError(f"{self.interface_name}: {PROGRAM} did not come up within {UP_TIMEOUT_S:.0f} s")
            time.sleep(POLL_S)


def _as_new(changes: Sequence[PeerChange], had: set[bytes]) -> Sequence[PeerChange]:
    """Returns the changes of an interface that has had only these peers: none is removed before it is put for the first
    time. Adds the peers of the changes to them.

    To remove a peer that is not there, wireguard-go makes it first, which is most of what adding one takes.
    """
    found: list[PeerChange] = []
    for change in changes:
        is_first = change.public_key not in had
        had.add(change.public_key)
        found.append(replace(change, fresh=False) if isinstance(change, PutPeer) and is_first else change)
    return found
