"""Controls the service through systemctl, and checks through its API that it works."""

from __future__ import annotations

import time
from http import HTTPStatus
from pathlib import Path
from typing import TYPE_CHECKING

from appliance.domain.errors import HostError
from appliance.ops.install import host
from appliance.ops.install.layout import HUB_SERVICE, SERVICE
from appliance.ops.selftest.api_client import LocalApi

if TYPE_CHECKING:
    from appliance.config.settings import ApiSettings

POLL_S = 0.2
ERROR = "wg-appliance: error: "  # the prefix of a failed command's last line


def restart() -> str:
    """Starts or restarts the service without waiting for it. Returns the invocation id of the run before."""
    before = _property("InvocationID")
    host.run("systemctl", "reset-failed", SERVICE)
    host.run("systemctl", "restart", "--no-block", SERVICE)
    return before


def stop() -> None:
    host.run("systemctl", "stop", SERVICE)


def reload_units() -> None:
    host.run("systemctl", "daemon-reload")


def is_down() -> bool:
    """Tells whether the service neither runs nor is being started or restarted."""
    return _property("ActiveState") in ("inactive", "failed")


def wait_ready(api: ApiSettings, seconds: float, after: str = "") -> str | None:
    """Waits until the service is ready, in another run than `after`. Returns None, or after `seconds` the fault."""
    deadline = time.monotonic() + seconds
    while (fault := _fault(api, after)) is not None:
        if time.monotonic() > deadline:
            return fault
        time.sleep(POLL_S)
    return None


def _fault(api: ApiSettings, after: str) -> str | None:
    state = _property("ActiveState")
    if state != "active":
        return f"the service is {state}{_last_error()}"
    if _property("InvocationID") == after:
        return "the service has not started anew"
    try:
        LocalApi(api).ask("GET", "/readyz").require(HTTPStatus.OK)
    except HostError as error:
        return str(error)
    return None


def running_version() -> str | None:
    """Returns the version of the running program: each version has a folder of its own."""
    program = _running_program(SERVICE)
    return None if program is None else program.parent.name


def running_hub() -> Path | None:
    """Returns the program that the hub's unit runs, which may have been removed meanwhile; None: it does not run."""
    return _running_program(HUB_SERVICE)


def restart_hub() -> None:
    host.run("systemctl", "restart", HUB_SERVICE)


def _running_program(unit: str) -> Path | None:
    try:
        return Path(f"/proc/{int(_property('MainPID', unit) or 0)}/exe").readlink()
    except FileNotFoundError:
        return None


def _property(name: str, unit: str = SERVICE) -> str:
    return host.run("systemctl", "show", "--value", f"--property={name}", unit).strip()


def _last_error() -> str:
    """Returns the error message with which the service has ended, if any."""
    lines = host.run("journalctl", "--unit", SERVICE, "--lines", "50", "--output", "cat", "--no-pager").splitlines()
    found = [line.removeprefix(ERROR) for line in lines if line.startswith(ERROR)]
    return f" ({found[-1]})" if found else ""
