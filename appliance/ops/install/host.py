"""Runs the programs that install, start and ask for what the host has: apt-get, useradd, systemctl."""

from __future__ import annotations

import os

from appliance.domain.errors import HostError
from appliance.network import programs

TIMEOUT_S = 600.0  # apt-get over a slow line


def run(*command: str) -> str:
    """Runs a command that asks nothing, and returns its stdout. Raises HostError if it fails."""
    environ = {**os.environ, "DEBIAN_FRONTEND": "noninteractive", "LC_ALL": "C"}
    return programs.run(*command, environ=environ, timeout_s=TIMEOUT_S)


def succeeds(*command: str) -> bool:
    try:
        run(*command)
    except HostError:
        return False
    return True


def install_packages(names: list[str]) -> None:
    """Installs packages; updates the package lists of a fresh host only if the first try fails.

    Raises HostError: if the second try fails too.
    """
    command = ("apt-get", "install", "-y", "--no-install-recommends", *names)
    try:
        run(*command)
    except HostError:
        run("apt-get", "update")
        run(*command)


def has_package(name: str) -> bool:
    try:
        return run("dpkg-query", "-W", "-f=${db:Status-Status}", name) == "installed"
    except HostError:
        return False
