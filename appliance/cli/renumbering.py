"""Renumbers the devices of an exit that does not run, for `wg-appliance node renumber`."""

from __future__ import annotations

import shlex
import socket
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from appliance.cli import admin, device_file, output
from appliance.cli.device_fields import WORDS, DeviceFields
from appliance.domain.errors import HostError
from appliance.network.exit_node import build_exit
from appliance.sessions import renumbering
from appliance.store.state_dir import STOP_FIRST

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from ipaddress import IPv4Address, IPv6Address
    from pathlib import Path

    from appliance.sessions.renumbering import Moved, Renumbering

RUNS = f"the server is running, or about to start again; {STOP_FIRST}"


def renumber(config_file: Path | None, *, yes: bool, as_json: bool) -> None:
    """Renumbers and lists. Raises HostError while the server runs; ConfigError as `sessions.renumbering` does."""
    device_file.rehearse()
    with admin.opened(config_file) as (a, runner):
        if a.state.is_served():
            raise HostError(RUNS)
        exit_ = build_exit(a.settings.wireguard, a.state.private_key())
        endpoint = device_file.known_endpoint(a)
        plan = runner.run(renumbering.planned(a.store, exit_, a.settings, endpoint))
        if plan.moved:
            output.confirm(_question(plan), yes=yes)
            with a.state.serving():
                plan = runner.run(renumbering.renumber(a.store, exit_, a.settings, endpoint, a.now))
    if as_json:
        output.write_json({"devices": [_json(each, DeviceFields(a.settings.wireguard)) for each in plan.outdated]})
    elif plan.outdated:
        output.write_table(("DEVICE", "WAS", "NOW", "CHANGED"), map(_cells, plan.outdated), "")
    for line in _remarks(plan, a.settings.wireguard.interface):
        output.remark(line)


def _question(plan: Renumbering) -> str:
    files, devices = len(plan.outdated), len(plan.moved)
    whose = "Their files" if files == devices else f"{files} of their files"
    lost = f"{whose} will be good no more." if files else "Their files stay good."
    return f"{' and '.join(plan.changes)}: take {_devices(devices)} along? {lost}"


def _remarks(plan: Renumbering, interface: str) -> Iterator[str]:
    if not plan.changes:
        yield "nothing to do: interface, subnets and server key are what they were when the server last ran"
        return
    if not plan.moved:
        yield f"nothing to do: there are no devices; the server takes {' and '.join(plan.changes)} over as it starts"
        return
    yield f"{_devices(len(plan.moved))} taken along: {' and '.join(plan.changes)}"
    if plan.outdated:
        d = plan.outdated[0].device
        again = f"wg-appliance device rotate {shlex.quote(f'{d.account}/{d.name}')}"
        one, many = (
            "1 file is good no more; make it anew by",
            f"{len(plan.outdated)} files are good no more; make each anew",
        )
        yield f"{f'{many}, as by' if len(plan.outdated) > 1 else one}: {again}"
    else:
        yield "their files stay good"
    yield "the server is not running: this takes effect when it starts"
    if plan.interface != interface and plan.interface is not None and _is_there(plan.interface):
        yield f"{plan.interface} is still there, and the server cannot start beside it: ip link del {plan.interface}"
    if plan.drained:
        yield "the exit is drained: wg-appliance node resume lets devices in again"


def _is_there(interface: str) -> bool:
    with suppress(OSError):
        return socket.if_nametoindex(interface) > 0
    return False


def _devices(count: int) -> str:
    return "1 device" if count == 1 else f"{count} devices"


def _cells(moved: Moved) -> Sequence[object]:
    d = moved.device
    no_longer = ", ".join(WORDS[each] for each in moved.outdated)
    return f"{d.account}/{d.name}", _joined(moved.was), _joined(moved.now), no_longer


def _joined(addresses: Sequence[IPv4Address | IPv6Address]) -> str:
    return ", ".join(map(str, addresses))


def _json(moved: Moved, fields: DeviceFields) -> dict[str, Any]:
    by_version = {each.version: str(each) for each in moved.was}
    before = {"address_before": by_version[4], "address6_before": by_version.get(6)}
    return fields.identity(moved.device) | before | {"outdated": list(moved.outdated)}
