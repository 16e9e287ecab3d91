"""Reads the facts of this host. Changes nothing; what may not be read is None."""

from __future__ import annotations

import os
import socket
import stat
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, ParamSpec

from appliance.config import applied
from appliance.config.own_ports import own_ports
from appliance.domain.clock import HostClock
from appliance.domain.errors import HostError, TunnelError
from appliance.network import client_routes, interfaces, outgoing, programs, public_address, standing_note, uplinks
from appliance.network.admission import choice
from appliance.network.admission.admission import Admission, listed_rules
from appliance.network.firewall import (
    conntrack,
    conntrack_size,
    flow_capacity,
    host_ports,
    nft,
    nft_json,
    own_table,
    sysctls,
    table_choice,
)
from appliance.network.firewall.forwarding import IP_FORWARD
from appliance.network.firewall.port_ranges import ENOUGH_PORTS, borders, choose
from appliance.network.programs import ProgramFailed
from appliance.network.wireguard.backend import dump_existing, read_host
from appliance.ops import own_interface
from appliance.ops.doctor import port_holders
from appliance.ops.doctor.facts import (
    AdmissionFacts,
    Disk,
    Facts,
    Firewall,
    ForwardingFacts,
    Machine,
    Network,
    PortFacts,
    StateFacts,
    StateFile,
    Tracking,
    UdpPort,
)
from appliance.ops.doctor.firewall import PROGRAMS
from appliance.store import contended, inspection, migration
from appliance.store.state_dir import StateDir

if TYPE_CHECKING:
    from collections.abc import Callable

    from appliance.config.load import Settings
    from appliance.network.public_address import Standing

P = ParamSpec("P")

PROC = Path("/proc")
PROC_SYS = PROC / "sys"
LEGACY_TABLES = {"ip": Path("/proc/net/ip_tables_names"), "ip6": Path("/proc/net/ip6_tables_names")}


def gather(settings: Settings, config_file: Path, state: StateDir, become_owner: Callable[[], object]) -> Facts:
    """Reads all facts. `become_owner`: called after all that may need root, because only its owner opens the store."""
    interface, port = settings.wireguard.interface, settings.wireguard.listen_port
    root = os.geteuid() == 0
    wireguard = replace(read_host(interface), foreign=own_interface.foreign(settings, state))
    used = standing_note.read(state.addresses)
    network = _network(settings, used, state)
    udp = UdpPort(port_holders.holders(port), _device_port(interface) if wireguard.foreign is None else None)
    forwarding = _forwarding(settings, state, root=root)
    firewall = _firewall(state)
    tracking = _tracking(root=root)
    clock = HostClock()
    now, synchronised = clock.now(), clock.synchronised()
    disk = _disk(state.path)
    seen = _state(state, used, become_owner)
    return Facts(
        settings=settings,
        config_file=config_file,
        machine=Machine(root, now, synchronised, disk, tracking),
        state=seen,
        wireguard=wireguard,
        network=network,
        udp=udp,
        forwarding=forwarding,
        firewall=firewall,
    )


def _admission(interface: str, state: StateDir) -> AdmissionFacts | None:
    mark = choice.noted(state.admission)
    try:
        rules = tuple(listed_rules())
    except OSError:
        return None
    return AdmissionFacts(rules, mark, mark is not None and Admission(interface, mark).filter_stands())


def _forwarding(settings: Settings, state: StateDir, *, root: bool) -> ForwardingFacts:
    interface, egress = settings.wireguard.interface, settings.egress
    writable = os.access(PROC_SYS / IP_FORWARD, os.W_OK) if root else None
    ways = outgoing.read_outgoing(
        interface, egress.extra_allow, private_blocked=egress.block_private, all_interfaces=egress.forward_others
    )
    found = sysctls.Forwarding(PROC_SYS, state.sysctls, HostClock().now().boot_id)
    try:
        before = dict(found.found)
    except OSError:  # only its owner and root may read it
        found, before = sysctls.Forwarding(PROC_SYS, Path(os.devnull), ""), {}
    values = found.read({*ways.interfaces, *ways.bridges, interface})
    return ForwardingFacts(
        values, writable, before, ways.interfaces, ways.default, _admission(interface, state), ways.bridges
    )


def _tracking(*, root: bool) -> Tracking | None:
    size = conntrack_size.read_size(PROC)
    if size is None:
        return None
    wanted = flow_capacity.wanted_limit(conntrack_size.memory(PROC))
    return Tracking(size, wanted, conntrack_size.is_changeable(PROC) if root else None)


def _network(settings: Settings, used: Standing | None, state: StateDir) -> Network:
    interface, configured = settings.wireguard.interface, settings.node.public_ip
    asked = configured or (None if used is None else used.address)
    view = uplinks.look(asked, without=interface)
    return Network(
        uplinks=view.uplinks,
        addresses=tuple(interfaces.host_interfaces(without=interface)),
        routes=tuple(interfaces.host_routes(without=interface)),
        has_ipv6=interfaces.has_ipv6(),
        ipv6_off=interfaces.ipv6_is_off(),
        standing=public_address.decide(configured, view, used),
        ports=_ports(settings),
        routing_fault=_routing_fault(settings, state),
    )


def _routing_fault(settings: Settings, state: StateDir) -> str | None:
    subnets = (settings.wireguard.subnet, settings.wireguard.subnet6)
    noted = choice.noted(state.admission)
    mark = 0 if noted is None else noted.bit
    try:
        return client_routes.routing_fault(
            settings.wireguard.interface, [subnet for subnet in subnets if subnet is not None], mark
        )
    except OSError:
        return None  # there is no tunnel


def _device_port(interface: str) -> int | None:
    """Returns the tunnel's UDP port if it is up and may be queried."""
    try:
        return dump_existing(interface).listen_port
    except (HostError, TunnelError):
        return None


def _firewall(state: StateDir) -> Firewall:
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
    recorded = own_table.read(state.nftables)
    return Firewall(ruleset, fault, iptables, legacy, table_choice.FIRST if recorded is None else recorded.table)


def _ports(settings: Settings) -> PortFacts | None:
    try:
        hub = StateDir(settings.node.state_dir).is_hub
        taken = host_ports.taken_now(PROC_SYS) | own_ports(settings, hub=hub)
    except (OSError, ValueError):
        return None
    subnets = [subnet for subnet in (settings.wireguard.subnet, settings.wireguard.subnet6) if subnet is not None]
    try:
        flows = conntrack.most_to_one_place(subnets)
    except OSError:
        flows = {}
    in_the_way = [
        (number, port, name)
        for number, name in ((socket.IPPROTO_TCP, "tcp"), (socket.IPPROTO_UDP, "udp"))
        if (run := choose({port for of, port in taken if of == number})) is not None and run.width < ENOUGH_PORTS
        for port in borders(run)
    ]
    return PortFacts(
        taken, {(number, port): port_holders.holders(port, name) for number, port, name in in_the_way}, flows
    )


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


def _state(state: StateDir, used: Standing | None, become_owner: Callable[[], object]) -> StateFacts | None:
    try:
        if not state.path.exists():
            return StateFacts((), served=False, running=None, running_s=None, store=None)
        files = tuple(_file(path) for path in (state.path, state.key, state.store) if path.exists())
        served = state.is_served()
        noted = applied.read(state.running)
        age = None if noted is None else time.time() - state.running.stat().st_mtime
        told = tuple(contended.read(state.contended).values()) if served else ()
        newest = migration.migrations()[-1][0]
        become_owner()
        found = inspection.inspect(state.store, newest) if state.store.exists() else None
        return StateFacts(files, served, noted, age, found, used, told)
    except (OSError, HostError):
        return None


def _file(path: Path) -> StateFile:
    found = path.stat()
    return StateFile(path, found.st_uid, stat.S_IMODE(found.st_mode))
