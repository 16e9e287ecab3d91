"""The real process as systemd would run it: what it says, and what it takes over when it is told to reload."""

from __future__ import annotations

import os
import signal
from typing import TYPE_CHECKING

import pytest

from tests.support.systemd_socket import SystemdSocket, systemd_socket
from tests.support.tunnel.waiting import until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.support.tunnel.appliance_process import Appliance

WATCHDOG_USEC = 2_000_000


@pytest.fixture
def systemd(tmp_path: Path) -> Iterator[SystemdSocket]:
    with systemd_socket(tmp_path / "notify") as listening:
        yield listening


@pytest.fixture
def service(start_appliance: Callable[..., Appliance], systemd: SystemdSocket, tmp_path: Path) -> Appliance:  # noqa: ARG001 - has to listen
    return start_appliance(environment={"NOTIFY_SOCKET": str(tmp_path / "notify"), "WATCHDOG_USEC": str(WATCHDOG_USEC)})


def test_a_service_s_life(service: Appliance, systemd: SystemdSocket) -> None:
    """Starting, ready, alive again and again, and stopping: in this order."""
    until(lambda: systemd.all("READY"), "ready")
    until(lambda: len(systemd.all("WATCHDOG")) >= 3, "alive three times")
    assert systemd.status.startswith("ready; sessions live: 0; last tick ")
    service.stop()
    said = [name for message in systemd.messages for name in ("READY", "WATCHDOG", "STOPPING") if name in message]
    assert said == ["READY", *["WATCHDOG"] * systemd.all("WATCHDOG").count("1"), "STOPPING"]
    assert systemd.messages[0] == {"STATUS": "starting: checking the store"}


def test_ended_by_the_watchdog(service: Appliance) -> None:
    """Aborted, as systemd ends a process that it did not hear of, it says where every thread was."""
    os.kill(service.pid, signal.SIGABRT)
    until(lambda: not service.running(), "it has ended")
    assert "most recent call first" in service.log()


def test_reload_takes_over_egress(service: Appliance, systemd: SystemdSocket) -> None:
    """SIGHUP: the firewall table is the new configuration's when the service says that it is ready again."""

    def table() -> str:
        return service.space.run("nft", "list", "table", "inet", "wg_appliance").stdout

    until(lambda: systemd.all("READY"), "ready")
    assert "198.51.100.0/24" not in table()
    service.configure(egress={"extra_block": ["198.51.100.0/24"], "block_smtp": False})
    service.reload()
    until(lambda: len(systemd.all("READY")) == 2, "ready again")
    assert "198.51.100.0/24" in table()
    assert "2525" not in table()
    assert [name for message in systemd.messages for name in message if name in {"READY", "RELOADING"}] == [
        *("READY", "RELOADING", "READY")
    ]
    assert "needs a restart" not in service.log()


def test_a_session_outlives_a_reload(service: Appliance, systemd: SystemdSocket) -> None:
    """A reload with nothing changed touches neither the table nor a session."""
    token = service.token()
    session = service.open(token)
    service.reload()
    until(lambda: len(systemd.all("READY")) == 2, "ready again")
    assert service.live_sessions()[0]["id"] == session["id"]
    assert service.log().count("nftables table inet wg_appliance applied") == 1
