"""Parses `iptables-save -t filter` into a table of the packet filter. Pure.

Used for what nft does not show: iptables' own matches (xt), and the tables of iptables-legacy.
"""

from __future__ import annotations

import shlex
from ipaddress import ip_network
from typing import TYPE_CHECKING

from appliance.network.firewall.simulator import Chain, Jump, Packet, Rule, Table, Verdict, unknown

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    Test = Callable[[Packet], bool | None]

_VERDICTS = {"ACCEPT": Verdict.ACCEPT, "DROP": Verdict.DROP, "REJECT": Verdict.DROP, "RETURN": Verdict.RETURN}
_HOOKS = {"INPUT": "input", "FORWARD": "forward", "OUTPUT": "output"}
_NO_TEST = ("-m", "--match", "--comment", "--name", "--rsource", "--mask", "--limit-burst", "--hashlimit-name")
_HOLD = ("--limit", "--hashlimit-upto", "--connlimit-upto", "--set")
_DO_NOT_HOLD = (
    *("--hashlimit-above", "--connlimit-above"),
    *("--match-set", "--rcheck", "--update"),  # lists of addresses
    *("--rt-type", "--src-type"),
)


def parse(text: str, family: str, *, legacy: bool = False) -> Table:
    """Parses the output of iptables-save. `family`: ip or ip6. Tables other than `filter` are skipped."""
    chains: dict[str, Chain] = {}
    table = ""
    for line in text.splitlines():
        if line.startswith("*"):
            table = line[1:]
        elif table != "filter":
            continue
        elif line.startswith(":"):
            name, policy, *_ = line[1:].split()
            chains[name] = Chain(name, _HOOKS.get(name), _VERDICTS.get(policy, Verdict.RETURN))
        elif line.startswith("-A "):
            _, name, *words = shlex.split(line)
            chains[name].rules.append(_rule(words, chains))
    return Table(family, "filter", chains, legacy)


def _rule(words: list[str], chains: Mapping[str, Chain]) -> Rule:
    tests: list[Test] = []
    for option, values, negated in _options(words):
        if option in ("-j", "--jump", "-g", "--goto"):
            target = values[0]
            if target in chains:
                return Rule(tests, Jump(target, goto=option in ("-g", "--goto")))
            if target in ("QUEUE", "NFQUEUE"):
                return Rule([*tests, unknown], Verdict.DROP)
            return Rule(tests, _VERDICTS.get(target))  # LOG, MARK, TCPMSS, ... have no verdict
        if option not in _NO_TEST:
            tests.append(_test(option, values, negated=negated))
    return Rule(tests, None)


def _options(words: list[str]) -> Iterator[tuple[str, list[str], bool]]:
    """Yields (option, its values, whether it is preceded by `!`)."""
    at = 0
    while at < len(words):
        negated = words[at] == "!"
        start = at + negated
        at = start + 1
        while at < len(words) and words[at] != "!" and not words[at].startswith("-"):
            at += 1
        yield words[start], words[start + 1 : at], negated


def _test(option: str, values: list[str], *, negated: bool) -> Test:
    if option in _HOLD + _DO_NOT_HOLD:
        return lambda _: (option in _HOLD) != negated
    understood = _TESTS.get(option)
    if understood is None or len(values) != 1:
        return unknown

    def test(packet: Packet) -> bool | None:
        found = understood(packet, values[0])
        return found if found is None or not negated else not found

    return test


def _interface(name: str | None, pattern: str) -> bool:
    if name is None:
        return False
    return name.startswith(pattern[:-1]) if pattern.endswith("+") else name == pattern


def _ports(port: int, text: str) -> bool:
    ends = [part.split(":") for part in text.split(",")]
    return any(int(low or 0) <= port <= int(high or 65535) for low, high in ((e[0], e[-1]) for e in ends))


def _destination_type(packet: Packet, text: str) -> bool:
    return ("LOCAL" if packet.out is None else "UNICAST") in text.split(",")


_TESTS: Mapping[str, Callable[[Packet, str], bool | None]] = {
    "-i": lambda packet, text: _interface(packet.into, text),
    "-o": lambda packet, text: _interface(packet.out, text),
    "-s": lambda packet, text: packet.source in ip_network(text, strict=False),
    "-d": lambda packet, text: packet.destination in ip_network(text, strict=False),
    "-p": lambda packet, text: text in ("all", packet.protocol),
    "--sport": lambda packet, text: _ports(packet.source_port, text),
    "--sports": lambda packet, text: _ports(packet.source_port, text),
    "--dport": lambda packet, text: _ports(packet.destination_port, text),
    "--dports": lambda packet, text: _ports(packet.destination_port, text),
    "--ctstate": lambda packet, text: packet.state.upper() in text.split(","),
    "--state": lambda packet, text: packet.state.upper() in text.split(","),
    "--dst-type": _destination_type,
    "--mark": lambda _, text: int(text.partition("/")[0], 0) == 0,
}
