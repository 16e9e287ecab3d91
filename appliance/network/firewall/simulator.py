"""Simulates a packet's way through a packet filter's chains, without sending one. Pure.

The packet is ordinary: unmarked, within every limit, in no address list that is not shown. A test that is not
understood may hold or not; both branches are followed, so the result is all that may happen.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum, auto
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
    from ipaddress import IPv4Address, IPv6Address

    Test = Callable[["Packet"], bool | None]


@dataclass(frozen=True, slots=True)
class Packet:
    """Describes a packet. `out` is None if it is for the host itself."""

    into: str
    out: str | None
    source: IPv4Address | IPv6Address
    destination: IPv4Address | IPv6Address
    protocol: Literal["tcp", "udp"]
    source_port: int
    destination_port: int
    state: Literal["new", "established"]

    @property
    def version(self) -> int:
        return self.source.version


class Verdict(Enum):
    ACCEPT = auto()
    DROP = auto()  # includes reject
    RETURN = auto()  # an explicit return, or the end of the chain


@dataclass(frozen=True, slots=True)
class Jump:
    chain: str
    goto: bool = False


@dataclass(frozen=True, slots=True)
class Rule:
    """Holds tests and an action. A test returns None if unknown. `action` None: the rule only counts, logs or marks."""

    tests: Sequence[Test]
    action: Verdict | Jump | None


@dataclass(frozen=True, slots=True)
class Chain:
    """Describes a chain. `hook` is None if other chains jump to it. `policy`: a base chain's action at its end."""

    name: str
    hook: str | None = None
    policy: Verdict = Verdict.ACCEPT
    rules: list[Rule] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Table:
    family: str  # ip, ip6 or inet
    name: str
    chains: Mapping[str, Chain]
    legacy: bool = False  # from iptables-legacy, which nft and iptables-nft neither show nor change

    def sees(self, packet: Packet) -> bool:
        return self.family in ("inet", "ip" if packet.version == 4 else "ip6")


@dataclass(frozen=True, slots=True)
class Obstacle:
    """Names a base chain that drops the packet. `surely` is False if that depends on tests not understood here."""

    table: Table
    chain: Chain
    surely: bool


def obstacles(tables: Iterable[Table], hook: str, packet: Packet) -> Iterator[Obstacle]:
    """Finds the base chains that drop the packet: it traverses all of the hook's, and any may drop it."""
    for table in tables:
        if table.sees(packet):
            walk = _Walk(table, packet)
            for chain in table.chains.values():
                if chain.hook == hook and Verdict.DROP in (verdicts := walk.base(chain)):
                    yield Obstacle(table, chain, surely=verdicts == {Verdict.DROP})


def refusing(tables: Iterable[Table], hook: str, packet: Packet) -> Iterator[tuple[Table, Chain]]:
    """Finds the base chains that drop the packet by default: those that do if every test not understood fails."""
    for table in tables:
        if table.sees(packet):
            walk = _Walk(table, packet, in_doubt=False)
            for chain in table.chains.values():
                if chain.hook == hook and walk.base(chain) == {Verdict.DROP}:
                    yield table, chain


class _Walk:
    """Follows a packet. `in_doubt`: the result to assume for tests not understood; None follows both."""

    def __init__(self, table: Table, packet: Packet, *, in_doubt: bool | None = None) -> None:
        self._table = table
        self._packet = packet
        self._in_doubt = in_doubt
        self._known: dict[str, frozenset[Verdict]] = {}

    def base(self, chain: Chain) -> set[Verdict]:
        return {chain.policy if verdict is Verdict.RETURN else verdict for verdict in self._chain(chain.name)}

    def _chain(self, name: str) -> frozenset[Verdict]:
        """Returns a chain's possible actions. The kernel allows no loops between chains."""
        if name not in self._known:
            self._known[name] = frozenset(self._verdicts(self._table.chains[name]))
        return self._known[name]

    def _verdicts(self, chain: Chain) -> Iterator[Verdict]:
        for rule in chain.rules:
            holds = _all(test(self._packet) for test in rule.tests)
            holds = self._in_doubt if holds is None else holds
            if holds is False or rule.action is None:
                continue
            verdicts, goes_on = self._act(rule.action)
            yield from verdicts
            if holds and not goes_on:
                return
        yield Verdict.RETURN

    def _act(self, action: Verdict | Jump) -> tuple[frozenset[Verdict], bool]:
        """Returns a rule's possible actions, and whether evaluation may continue with the next rule."""
        if isinstance(action, Verdict):
            return frozenset({action}), False
        verdicts = self._chain(action.chain)
        if action.goto:
            return verdicts, False
        return verdicts - {Verdict.RETURN}, Verdict.RETURN in verdicts


def _all(answers: Iterable[bool | None]) -> bool | None:
    """Tells whether all tests hold; None if none fails and at least one is unknown."""
    results = list(answers)
    if False in results:
        return False
    return None if None in results else True


def unknown(_: Packet) -> None:
    """Stands for a test that is not understood: its result is unknown."""
