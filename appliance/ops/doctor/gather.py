"""Reads the facts of this host. Changes nothing; what may not be read is None."""

from __future__ import annotations

import os
import stat
import time
from pathlib import Path
from typing import TYPE_CHECKING, ParamSpec

from appliance.config import applied
from appliance.domain.clock import HostClock
from appliance.domain.errors import HostError, TunnelError
from appliance.network import interfaces, programs
from appliance.network.admission import choice
from appliance.network.admission.admission import Admission, listed_rules
from appliance.network.firewall import nft, nft_json, sysctls
from appliance.network.programs import ProgramFailed
from appliance.network.wireguard.backend import dump_existing, read_host
from appliance.ops.doctor import system_clock, udp_sockets
from appliance.ops.doctor.facts import (
    AdmissionFacts,
    Disk,
    Facts,
    Firewall,
    ForwardingFacts,
    Machine,
    Network,
    StateFacts,
    StateFile,
    UdpPort,
)
from appliance.ops.doctor.firewall import PROGRAMS
from appliance.store import inspection, migration

if TYPE_CHECKING:
    from collections.abc import Callable

    from appliance.config.load import Settings
    from appliance.store.state_dir import StateDir

P = ParamSpec("P")

PROC_SYS = Path("/proc/sys")
LEGACY_TABLES = {"ip": Path("/proc/net/ip_tables_names"), "ip6": Path("/proc/net/ip6_tables_names")}


def gather(settings: Settings, config_file: Path, state: StateDir, become_owner: Callable[[], object]) -> Facts:
    """Reads all facts. `become_owner`: called after all that may need root, because only its owner opens the store."""
    interface, port = settings.wireguard.interface, settings.wireguard.listen_port
    root = os.geteuid() == 0
    wireguard = read_host(interface)
    network = _network(interface)
    udp = UdpPort(udp_sockets.holders(port), _device_port(interface))
    forwarding = _forwarding(state, root=root)
    firewall = _firewall()
    admitted = _admission(interface, state)
    now = HostClock().now()
    disk = _disk(state.path)
    seen = _state(state, become_owner)
    return Facts(
        settings=settings,
        config_file=config_file,
        machine=Machine(root, now, system_clock.synchronised(), disk),
        state=seen,
        wireguard=wireguard,
        network=network,
        udp=udp,
        forwarding=forwarding,
        firewall=firewall,
        admission=admitted,
    )


def _admission(interface: str, state: StateDir) -> AdmissionFacts | None:
    mark = choice.noted(state.admission)
    try:
        rules = tuple(listed_rules())
    except OSError:
        return None
    return AdmissionFacts(rules, mark, mark is not None and Admission(interface, mark).filter_stands())


def _forwarding(state: StateDir, *, root: bool) -> ForwardingFacts:
    writable = os.access(PROC_SYS / "net/ipv4/ip_forward", os.W_OK) if root else None
    return ForwardingFacts(sysctls.Forwarding(PROC_SYS, state.sysctls, "").read(), writable)


def _network(interface: str) -> Network:
    return Network(
        uplinks=interfaces.uplinks(),
        addresses=tuple(interfaces.host_interfaces(without=interface)),
        routes=tuple(interfaces.host_routes(without=interface)),
        has_ipv6=interfaces.has_ipv6(),
        ipv6_off=interfaces.ipv6_is_off(),
    )


def _device_port(interface: str) -> int | None:
    """Returns the tunnel's UDP port if it is up and may be queried."""
    try:
        return dump_existing(interface).listen_port
    except (HostError, TunnelError):
        return None


def _firewall() -> Firewall:
    ruleset, fault = _output(nft.listing, nft.LIST_WHOLE)
    if ruleset is not None and not nft_json.is_listing(ruleset):
        ruleset, fault = None, "nft -j list ruleset printed no JSON"
    iptables, legacy = {}, {}
    for family, program in PROGRAMS.items():
        if ruleset is not None and nft_json.has_foreign_matches(ruleset, family):
            saved, _ = _output(programs.run, f"{program}-nft-save", "-t", "filter")
            if saved is not None:
                iptables[family] = saved
        if _has_legacy_filter(LEGACY_TABLES[family]):
            legacy[family], _ = _output(programs.run, f"{program}-legacy-save", "-t", "filter")
    return Firewall(ruleset, fault, iptables, legacy)


def _has_legacy_filter(names: Path) -> bool:
    try:
        return "filter" in names.read_text(encoding="ascii").split()
    except OSError:
        return False  # this kernel has no such tables, or they may not be read


def _output(run: Callable[P, str], *args: P.args, **kwargs: P.kwargs) -> tuple[str | None, str | None]:
    """Returns what a program printed, or why it did not."""
    try:
        return run(*args, **kwargs), None
    except ProgramFailed as error:
        return None, str(error)


def _disk(path: Path) -> Disk | None:
    """Reads the file system that has, or will have, the state directory."""
    try:
        there = next(folder for folder in (path, *path.parents) if folder.exists())
        found = os.statvfs(there)
    except OSError:
        return None
    return Disk(
        free=found.f_bavail * found.f_frsize,
        total=found.f_blocks * found.f_frsize,
        free_inodes=found.f_favail if found.f_files else None,
        read_only=bool(found.f_flag & os.ST_RDONLY),
    )


def _state(state: StateDir, become_owner: Callable[[], object]) -> StateFacts | None:
    try:
        if not state.path.exists():
            return StateFacts((), served=False, running=None, running_s=None, store=None)
        files = tuple(_file(path) for path in (state.path, state.key, state.store) if path.exists())
        served = state.is_served()
        noted = applied.read(state.running)
        age = None if noted is None else time.time() - state.running.stat().st_mtime
        newest = migration.migrations()[-1][0]
        become_owner()
        found = inspection.inspect(state.store, newest) if state.store.exists() else None
        return StateFacts(files, served, noted, age, found)
    except (OSError, HostError):
        return None


def _file(path: Path) -> StateFile:
    found = path.stat()
    return StateFile(path, found.st_uid, stat.S_IMODE(found.st_mode))
