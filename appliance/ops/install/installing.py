"""Implements `wg-appliance install`: turns a host without the appliance into a working exit."""

from __future__ import annotations

import json
import socket
from dataclasses import dataclass
from typing import TYPE_CHECKING

from appliance.config import template
from appliance.config.load import parse_settings, read_settings
from appliance.domain.errors import HostError
from appliance.network.programs import ProgramFailed
from appliance.ops.install import facts, host, next_steps, plan, service
from appliance.ops.install.layout import SERVICE
from appliance.ops.install.step import apply_steps
from appliance.store.state_dir import StateDir

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

    from appliance.config.settings import KeyPath, Settings
    from appliance.ops.install.layout import Layout
    from appliance.ops.install.plan import Program

READY_S = 60.0
FIRST_ACCOUNT = "owner"


@dataclass(frozen=True, slots=True)
class InstallOptions:
    """Holds the operator's options. None: use the host's own value."""

    public_ip: str | None = None
    region: str | None = None


def install(
    layout: Layout, program: Program, options: InstallOptions, report: Callable[[str], None], *, dry_run: bool
) -> None:
    """Installs the appliance. Checks that this host can be an exit before it changes anything.

    Raises ApplianceError if a check or a step fails.
    """
    installed = layout.installed_version()
    if installed not in (None, program.version):
        raise HostError(
            f"wg-appliance {installed} is installed; this is {program.version}: run upgrade instead of install"
        )
    text = _config_text(options)
    settings = _settings(layout, text)
    state = StateDir(settings.node.state_dir)
    facts.require_address(settings)
    userspace = plan.has_userspace(layout) or facts.needs_userspace(settings)
    facts.require_interface(settings, state, userspace=userspace)
    if service.is_down():
        facts.require_ports(settings)
    report("tunnel: " + ("wireguard-go" if userspace else "the kernel's WireGuard"))
    for line in _ignored_options(layout, options):
        report(line)
    steps = plan.install(layout, program, settings, text, userspace=userspace)
    changed = apply_steps(steps, report, dry_run=dry_run)
    if dry_run:
        report(f"service {SERVICE}: {'to be started' if changed else 'as it should be'}")
        return
    _start(settings, report, anew=bool(changed))
    prove(layout.command, report)
    _first_token(layout, report)
    behind_nat = settings.node.public_ip is None and facts.public_address() is None
    for line in next_steps.lines(settings, facts.firewalls(), behind_nat=behind_nat):
        report(line)


def _settings(layout: Layout, text: str) -> Settings:
    """Returns the settings of the present configuration, else of the one to be written."""
    if layout.config.exists():
        return read_settings(layout.config, {})
    return parse_settings(text, {}, socket.gethostname(), str(layout.config))


def _config_text(options: InstallOptions) -> str:
    address, region = options.public_ip or facts.public_address(), options.region or facts.region()
    values: Mapping[KeyPath, object] = {
        path: str(value) for path, value in ((("node", "public_ip"), address), (("node", "region"), region)) if value
    }
    return template.default_text(values)


def _ignored_options(layout: Layout, options: InstallOptions) -> Iterator[str]:
    """Yields a notice for each option that is ignored because a configuration exists: that one is kept."""
    if layout.config.exists():
        for key, value in (("public_ip", options.public_ip), ("region", options.region)):
            if value is not None:
                yield f'{layout.config} exists and is kept: set {key} = "{value}" in its [node] yourself'


def _start(settings: Settings, report: Callable[[str], None], *, anew: bool) -> None:
    """Restarts the service if something has changed, or if it is not ready."""
    if not anew and service.wait_ready(settings.api, 0) is None:
        report(f"service {SERVICE}: ready")
        return
    service.reload_units()
    before = service.restart()
    fault = service.wait_ready(settings.api, READY_S, after=before)
    if fault is not None:
        raise HostError(f"{fault}; see journalctl -u {SERVICE}, and wg-appliance doctor")
    report(f"service {SERVICE}: started, and ready")


def prove(command: Path, report: Callable[[str], None]) -> None:
    """Runs the self-test on the running exit, and reports what it says. Raises HostError if it fails."""
    try:
        said = host.run(str(command), "selftest")
    except ProgramFailed as error:
        for line in error.said.splitlines():
            report(f"selftest: {line}")
        raise
    for line in said.splitlines():
        report(f"selftest: {line}")


def _first_token(layout: Layout, report: Callable[[str], None]) -> None:
    """Creates the operator's own token, without limits, if there are no tokens yet."""
    command = str(layout.command)
    if json.loads(host.run(command, "token", "list", "--json"))["tokens"]:
        return
    secret = host.run(command, "token", "create", "--account", FIRST_ACCOUNT, "--tier", "paid", "--label", "install")
    report(f"token of the account {FIRST_ACCOUNT}, shown this once: {secret.strip()}")
