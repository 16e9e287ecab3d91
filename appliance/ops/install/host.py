"""Runs the host's own tools: apt-get, useradd, systemctl. Commands are lists of words, never run by a shell."""

from __future__ import annotations

import os
import subprocess

from appliance.domain.errors import HostError

TIMEOUT_S = 600  # apt-get over a slow line


def run(*command: str, timeout: float = TIMEOUT_S) -> str:
    """Runs a command and returns its stdout. Raises HostError: if it fails, with the last line of its output."""
    try:
        done = subprocess.run(  # noqa: S603 (fixed words and our own paths)
            command,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            timeout=timeout,
            check=False,
            env=os.environ | {"DEBIAN_FRONTEND": "noninteractive", "LC_ALL": "C"},
        )
    except FileNotFoundError as error:
        raise HostError(f"{command[0]} is not there") from error
    except subprocess.TimeoutExpired as error:
        raise HostError(f"{' '.join(command)}: did not end within {timeout:.0f} s") from error
    if done.returncode != 0:
        said = (done.stderr.strip() or done.stdout.strip()).splitlines()
        raise HostError(f"{' '.join(command)}: {said[-1] if said else f'exit status {done.returncode}'}")
    return done.stdout


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
