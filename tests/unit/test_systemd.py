"""What is told to systemd, and how it is addressed."""

from __future__ import annotations

import logging
import os
import secrets
import time
from typing import TYPE_CHECKING

import pytest

from appliance.server.systemd import Systemd
from tests.support.systemd_socket import systemd_socket

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path


def test_each_message_is_one_datagram_of_lines(tmp_path: Path) -> None:
    """Each is one datagram of variables, one a line, however many lines a status has."""
    path = tmp_path / "notify"
    with systemd_socket(path) as told:
        systemd = Systemd({"NOTIFY_SOCKET": str(path)})
        systemd.status("starting\nup")
        systemd.ready("ready")
        before = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
        systemd.reloading()
        systemd.alive()
        systemd.stopping("stopping")
        assert [message for message in told.messages if "RELOADING" not in message] == [
            {"STATUS": "starting up"},
            {"READY": "1", "STATUS": "ready"},
            {"WATCHDOG": "1"},
            {"STOPPING": "1", "STATUS": "stopping"},
        ]
        reloading = told.messages[2]
    assert reloading["RELOADING"] == "1"
    assert before <= int(reloading["MONOTONIC_USEC"]) <= time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000


def test_an_at_sign_stands_for_the_zero_byte() -> None:
    """An @ stands for the zero byte that an abstract name begins with."""
    name = f"wg-appliance-{secrets.token_hex(4)}"
    with systemd_socket(f"\0{name}") as told:
        Systemd({"NOTIFY_SOCKET": f"@{name}"}).alive()
        assert told.messages == [{"WATCHDOG": "1"}]


@pytest.mark.parametrize("environ", [{}, {"NOTIFY_SOCKET": ""}, {"NOTIFY_SOCKET": "vsock:2:1"}])
def test_nobody_listens(environ: Mapping[str, str], caplog: pytest.LogCaptureFixture) -> None:
    """Not started by systemd, or by one that is out of reach: nothing is said, and nothing fails."""
    systemd = Systemd(environ)
    systemd.ready("ready")
    assert not systemd.listens
    assert not caplog.records


def test_an_unserved_socket_costs_one_log_line(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A socket that nobody serves costs a line in the log, which names what was not said."""
    with caplog.at_level(logging.WARNING):
        Systemd({"NOTIFY_SOCKET": str(tmp_path / "gone")}).ready("ready")
    assert "systemd could not be notified of READY=, STATUS: " in caplog.text


def test_a_systemd_that_reads_nothing_holds_nothing_up(tmp_path: Path) -> None:
    """A systemd that reads nothing holds nobody up for good."""
    path = tmp_path / "notify"
    with systemd_socket(path) as told:
        systemd = Systemd({"NOTIFY_SOCKET": str(path)})
        # The queue of a datagram socket is net.unix.max_dgram_qlen long, 10 at least.
        for _ in range(11):
            systemd.status("x" * 20_000)
        assert told.messages


@pytest.mark.parametrize(
    ("environ", "seconds"),
    [
        ({"WATCHDOG_USEC": "180000000"}, 180.0),
        ({"WATCHDOG_USEC": "500000", "WATCHDOG_PID": str(os.getpid())}, 0.5),
        ({"WATCHDOG_USEC": "500000", "WATCHDOG_PID": "1"}, None),
        ({"WATCHDOG_USEC": "0"}, None),
        ({"WATCHDOG_USEC": "soon"}, None),
        ({"WATCHDOG_USEC": "-1"}, None),
        ({}, None),
    ],
)
def test_the_watchdog_time_is_ours_unless_given_to_another_process(
    environ: Mapping[str, str], seconds: float | None
) -> None:
    """The time that systemd gives, unless it gives it to another process."""
    assert Systemd(environ).watchdog_s == seconds
