"""A device of alice's, the client that has its file, and what the exit's own counters say of its peer."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING, Any

from tests.support.tunnel.sessions import client_key
from tests.support.tunnel.waiting import until
from tests.support.tunnel.world import EXIT_IP

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.support.tunnel.appliance_process import Appliance
    from tests.support.tunnel.client import Client

ACCOUNT = "alice"
ANSWER = 92  # bytes of the message that answers a handshake; one that begins it has 148, and a keepalive 32


class DeviceInUse:
    """`config`: its file, as it was handed out once."""

    def __init__(self, appliance: Appliance, client: Client, config: str, name: str = "phone") -> None:
        self.appliance = appliance
        self.client = client
        self.config = config
        self.key = client_key(config)
        self.name = f"{ACCOUNT}/{name}"
        self.token = appliance.token(ACCOUNT)
        self._gone = (0, 0)  # what interfaces counted that are gone

    def shown(self) -> dict[str, Any]:
        """As `device show` has it."""
        shown: dict[str, Any] = json.loads(self.appliance.admin("device", "show", self.name, "--json"))
        return shown

    def sessions(self) -> list[dict[str, Any]]:
        """Of its account, newest first."""
        answer = self.appliance.api("GET", "/v1/sessions", token=self.token)
        assert answer.status == 200, answer
        listed: list[dict[str, Any]] = answer.body["sessions"]
        return listed

    def begins(self) -> float:
        """Its client's tunnel comes up and carries; returns the seconds from the one to the other."""
        self.client.wg_quick(self.config)
        up = time.monotonic()
        assert self.client.address_seen() == EXIT_IP
        return time.monotonic() - up

    def connected(self) -> dict[str, Any]:
        """Its session, once a look has found the handshake."""
        return until(lambda: next((s for s in self.sessions() if "terminated_at" not in s), {}), "it has a session")

    def ends(self, session: str) -> dict[str, Any]:
        """DELETE of its session; the final figures."""
        return self.appliance.close(session, self.token)

    def sleeps(self, sessions: int) -> None:
        """Its client's tunnel goes, and so many sessions have ended as idle."""
        self.client.down()
        until(lambda: self._reasons() == sessions * ["idle"], "its session has ended as idle")

    def _reasons(self) -> list[str | None]:
        return [session.get("terminated_reason") for session in self.sessions()]

    def without_interface(self, loses: Callable[[], object]) -> None:
        """What `loses` the exit's interface is done while the client is away."""
        self._gone = self.moved()
        loses()

    def moved(self) -> tuple[int, int]:
        """Bytes in and out by the counters of the interface, and of those that are gone."""
        real = self.appliance.transfer(self.key)
        return self._gone[0] + real.received, self._gone[1] + real.sent

    def only_answered(self) -> bool:
        """Whether its client has sent what answers handshakes and nothing else: it was the exit that began."""
        received = self.appliance.transfer(self.key).received
        return received > 0 and received % ANSWER == 0

    def handshake(self) -> int:
        """When the exit had the last one, in seconds since the epoch; 0: this peer has had none, or there is none."""
        run = self.appliance.space.run("wg", "show", self.appliance.interface, "latest-handshakes", check=False)
        return next((int(line.split()[1]) for line in run.stdout.splitlines() if line.startswith(self.key)), 0)
