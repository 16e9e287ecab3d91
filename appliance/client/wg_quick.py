"""What wg-quick(8) makes beside its interface, changed or taken away where it cannot do so itself.

For all traffic to go into the tunnel: rules of routing (policy_rules.py), and a table of nftables. For DNS: an entry of
resolvconf(8). Where there is no nft it takes iptables, which is left to it.
"""

from __future__ import annotations

import re
import shutil
import subprocess
from functools import partial
from ipaddress import ip_address
from pathlib import Path
from typing import TYPE_CHECKING

from appliance.client import policy_rules
from appliance.errors import HostError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from appliance.wireguard.tunnel import Prefix

RESOLVCONF = "resolvconf"
RESOLVCONF_ORDER = Path("/etc/resolvconf/interface-order")
PROGRAM_S = 30.0
FAMILIES = {4: "ip", 16: "ip6"}  # nft's words, by the length of an address


def guard(interface: str, addresses: Sequence[Prefix]) -> None:
    """Packets to the tunnel's addresses come in by the tunnel alone; those that it had before are forgotten."""
    script = ""
    for length, family in FAMILIES.items():
        table = f"{family} wg-quick-{interface}"
        if table not in _tables():
            continue
        script += f"flush chain {table} preraw\n"
        for prefix in addresses:
            if len(prefix.address) == length:
                own = f"{family} daddr {ip_address(prefix.address)}"
                script += f'add rule {table} preraw iifname != "{interface}" {own} fib saddr type != local drop\n'
    if script:
        _run("nft", "-f", "-", text=script)


def set_resolvers(interface: str, addresses: Sequence[str]) -> None:
    """Names are resolved there and nowhere else; none: as before there was a tunnel."""
    if addresses:
        text = "".join(f"nameserver {address}\n" for address in addresses)
        _run(RESOLVCONF, "-a", _resolvconf_name(interface), "-m", "0", "-x", text=text)
    else:
        _run(RESOLVCONF, "-d", _resolvconf_name(interface), "-f")


def remove(interface: str, mark: int | None, resolvers: Sequence[str], remark: Callable[[str], None]) -> None:
    """All of it, once the interface has gone. `mark`: its own, None where it had none. Raises HostError when as much as
    can be is taken away."""
    steps = [partial(_remove_tables, interface)]
    if mark is not None:
        steps.append(partial(policy_rules.remove, mark, remark))
    if resolvers:
        steps.append(partial(set_resolvers, interface, ()))
    failed = []
    for step in steps:
        try:
            step()
        except HostError as error:
            failed.append(str(error))
    if failed:
        raise HostError("; ".join(failed))


def _remove_tables(interface: str) -> None:
    tables = [f"{family} wg-quick-{interface}" for family in FAMILIES.values()]
    script = "".join(f"delete table {table}\n" for table in tables if table in _tables())
    if script:
        _run("nft", "-f", "-", text=script)


def _tables() -> list[str]:
    """Of nftables, each as its family and name."""
    if shutil.which("nft") is None:
        return []
    return [line.removeprefix("table ") for line in _run("nft", "list", "tables").splitlines()]


def _resolvconf_name(interface: str) -> str:
    """Some have an order of interfaces by their names, where wg-quick takes the first that is a prefix."""
    try:
        lines = RESOLVCONF_ORDER.read_text(encoding="ascii", errors="replace").splitlines()
    except OSError:
        return interface
    found = (re.fullmatch(r"([A-Za-z0-9-]+)\*", line) for line in lines)
    return next((f"{prefix[1]}.{interface}" for prefix in found if prefix), interface)


def _run(*command: str, text: str = "") -> str:
    """What it prints. Raises HostError."""
    try:
        done = subprocess.run(  # noqa: S603 (names and addresses of ours)
            command, input=text, capture_output=True, text=True, timeout=PROGRAM_S, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise HostError(f"{command[0]}: {error}") from error
    if done.returncode != 0:
        raise HostError(f"{' '.join(command)} failed: {' '.join(done.stderr.split())}")
    return done.stdout
