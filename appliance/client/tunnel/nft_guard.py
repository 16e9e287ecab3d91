"""Changes or removes wg-quick(8)'s packet filter rules where it cannot do so itself.

The rules drop packets to the tunnel's addresses that arrive by another interface, and keep the fwmark of the tunnel's
own packets for their replies. They are in nftables tables named after the interface; without nft, they are iptables
rules with its name in a comment.
"""

from __future__ import annotations

from contextlib import suppress
from ipaddress import ip_address
from typing import TYPE_CHECKING, NamedTuple

from appliance.domain.errors import HostError
from appliance.network import programs
from appliance.network.firewall import nft

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from appliance.network.wireguard.tunnel import Prefix

FAMILIES = {4: "ip", 16: "ip6"}  # nft's family names, by the length of an address
PROGRAMS = {4: "iptables", 16: "ip6tables"}


class GuardRule(NamedTuple):
    """Holds a rule as iptables-save(8) prints it: `*raw`, `-A PREROUTING ...`."""

    table: str
    line: str


def guard(interface: str, addresses: Sequence[Prefix], environ: Mapping[str, str]) -> None:
    """Replaces the guarded addresses, in nftables or iptables, whichever wg-quick has used.

    Raises HostError if a command fails.
    """
    script = ""
    present = nft.tables(environ)
    for length, family in FAMILIES.items():
        table = f"{family} wg-quick-{interface}"
        if table not in present:
            continue
        script += f"flush chain {table} preraw\n"
        for address in _of(length, addresses):
            own = f"{family} daddr {address}"
            script += f'add rule {table} preraw iifname != "{interface}" {own} fib saddr type != local drop\n'
    if script:
        nft.execute(script, environ)
    for length, program in PROGRAMS.items():
        rules = _saved(program, interface, environ)
        if rules:
            matches = "-m addrtype ! --src-type LOCAL"
            new = [
                GuardRule(
                    "*raw", f"-I PREROUTING ! -i {interface} -d {address} {matches} -j DROP {_comment(interface)}"
                )
                for address in _of(length, addresses)
            ]
            _restore(program, [*new, *_deleted([rule for rule in rules if rule.table == "*raw"])], environ)


def remove(interface: str, environ: Mapping[str, str]) -> None:
    """Removes the interface's rules. Raises HostError if a command fails."""
    own = {f"{family} wg-quick-{interface}" for family in FAMILIES.values()}
    script = "".join(f"delete table {table}\n" for table in nft.tables(environ) if table in own)
    if script:
        nft.execute(script, environ)
    for program in PROGRAMS.values():
        _restore(program, _deleted(_saved(program, interface, environ)), environ)


def _of(length: int, addresses: Sequence[Prefix]) -> list[str]:
    return [str(ip_address(prefix.address)) for prefix in addresses if len(prefix.address) == length]


def _comment(interface: str) -> str:
    return f'-m comment --comment "wg-quick(8) rule for {interface}"'


def _saved(program: str, interface: str, environ: Mapping[str, str]) -> list[GuardRule]:
    """Returns the rules for the interface. If rules cannot be read, wg-quick cannot have written any."""
    rules, table = [], ""
    with suppress(HostError):
        for line in programs.run(f"{program}-save", environ=environ).splitlines():
            if line.startswith("*"):
                table = line
            elif line.startswith("-A ") and _comment(interface) in line:
                rules.append(GuardRule(table, line))
    return rules


def _deleted(rules: Sequence[GuardRule]) -> list[GuardRule]:
    return [GuardRule(rule.table, rule.line.replace("-A", "-D", 1)) for rule in rules]


def _restore(program: str, changes: Sequence[GuardRule], environ: Mapping[str, str]) -> None:
    """Applies changes in addition to the existing rules."""
    if changes:
        script = "".join(f"{change.table}\n{change.line}\nCOMMIT\n" for change in changes)
        programs.run(f"{program}-restore", "--noflush", text=script, environ=environ, summary=programs.joined_lines)
