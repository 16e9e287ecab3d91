"""Implements `wg-appliance install`: turns a host without the appliance into a working exit."""

from __future__ import annotations

import json
import socket
from dataclasses import dataclass
from typing import TYPE_CHECKING

from appliance.config import template
from appliance.config.load import parse_settings, read_settings
from appliance.domain.errors import HostError
from appliance.ops.install import facts, host, next_steps, plan, service
from appliance.ops.install.layout import SERVICE
from appliance.ops.install.step import carry_out
from appliance.store.state_dir import StateDir

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from appliance.config.settings import KeyPath, Settings
    from appliance.ops.install.layout import Layout
    from appliance.ops.install.plan import Program

READY_S = 60.0
FIRST_ACCOUNT = "owner"


@dataclass(frozen=True, slots=True)
class Wanted:
    """The operator's options; None: use the host's own value."""

    public_ip: str | None = None
    region: str | None = None


def install(layout: Layout, program: Program, wanted: Wanted, say: Callable[[str], None], *, rehearse: bool) -> None:
    """Installs the appliance. Checks that this host can be an exit before it changes anything.

    Raises ApplianceError if a check or a step fails.
    """
    installed = layout.installed_version()
    if installed not in (None, program.version):
        raise HostError(
            f"wg-appliance {installed} is installed; this is {program.version}: run upgrade instead of install"
        )
    text = _config_text(wanted)
    settings = _settings(layout, text)
    state = StateDir(settings.node.state_dir)
    facts.require_address(settings)
    userspace = plan.has_userspace(layout) or facts.needs_userspace(settings)
    facts.require_interface(settings, state, userspace=userspace)
    if service.is_down():
        facts.require_ports(settings)
    say("tunnel: " + ("wireguard-go" if userspace else "the kernel's WireGuard"))
    for line in _not_heeded(layout, wanted):
        say(line)
    steps = plan.install(layout, program, settings, text, userspace=userspace)
    changed = carry_out(steps, say, rehearse=rehearse)
    if rehearse:
        say(f"service {SERVICE}: {'to be started' if changed else 'as it should be'}")
        return
    _start(settings, say, anew=bool(changed))
    _prove(layout, say)
    _first_token(layout, say)
    behind_nat = settings.node.public_ip is None and facts.public_address() is None
    for line in next_steps.lines(settings, facts.firewalls(), behind_nat=behind_nat):
        say(line)


def _settings(layout: Layout, text: str) -> Settings:
    """Returns the settings of the present configuration, else of the one to be written."""
    if layout.config.exists():
        return read_settings(layout.config, {})
    return parse_settings(text, {}, socket.gethostname(), str(layout.config))


def _config_text(wanted: Wanted) -> str:
    address, region = wanted.public_ip or facts.public_address(), wanted.region or facts.region()
    values: Mapping[KeyPath, object] = {
        path: str(value) for path, value in ((("node", "public_ip"), address), (("node", "region"), region)) if value
    }
    return template.default_text(values)


def _not_heeded(layout: Layout, wanted: Wanted) -> Iterator[str]:
    """Yields a notice per option that is ignored: options are for a new configuration, a present one is kept."""
    if layout.config.exists():
        for key, value in (("public_ip", wanted.public_ip), ("region", wanted.region)):
            if value is not None:
                yield f'{layout.config} is there, and stays as it is: set {key} = "{value}" in [node] there yourself'


def _start(settings: Settings, say: Callable[[str], None], *, anew: bool) -> None:
    """Restarts the service if something has changed, or if it is not ready."""
    if not anew and service.wait_ready(settings.api, 0) is None:
        say(f"service {SERVICE}: ready")
        return
    service.reload_units()
    before = service.restart()
    fault = service.wait_ready(settings.api, READY_S, after=before)
    if fault is not None:
        raise HostError(f"{fault}; see journalctl -u {SERVICE}, and wg-appliance doctor")
    say(f"service {SERVICE}: started, and ready")


def _prove(layout: Layout, say: Callable[[str], None]) -> None:
    """Runs the self-test against the running exit. Raises HostError if it fails, with its last line of output."""
    for line in host.run(str(layout.command), "selftest").splitlines():
        say(f"selftest: {line}")


def _first_token(layout: Layout, say: Callable[[str], None]) -> None:
    """Creates the operator's own token, without limits, if there are no tokens yet."""
    command = str(layout.command)
    if json.loads(host.run(command, "token", "list", "--json"))["tokens"]:
        return
    secret = host.run(command, "token", "create", "--account", FIRST_ACCOUNT, "--tier", "paid", "--label", "install")
    say(f"token of the account {FIRST_ACCOUNT}, shown this once: {secret.strip()}")
