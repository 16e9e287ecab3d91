"""Parses `nft -j list ruleset` (libnftables-json(5)) into packet-filter tables. Pure.

Understands only expressions that may decide a client's packet; any other becomes a test of unknown result.
"""

from __future__ import annotations

import json
from fnmatch import fnmatchcase
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from typing import TYPE_CHECKING, Any

from appliance.network.firewall.simulator import Chain, Jump, Packet, Rule, Table, Verdict, unknown

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    Test = Callable[[Packet], bool | None]

_VERDICTS = {"accept": Verdict.ACCEPT, "drop": Verdict.DROP, "reject": Verdict.DROP, "return": Verdict.RETURN}
_LIMITS = ("limit", "ct count", "quota")
_SILENT = {"counter", "log", "mangle", "notrack", "ct helper", "ct timeout", "flow", "secmark", "comment"}


def is_listing(text: str) -> bool:
    try:
        return "nftables" in json.loads(text)
    except ValueError:
        return False


def parse(text: str) -> list[Table]:
    entries = [next(iter(entry.items())) for entry in json.loads(text)["nftables"]]
    chains: dict[tuple[str, str], dict[str, Chain]]
    chains = {(each["family"], each["name"]): {} for kind, each in entries if kind == "table"}
    sets = {
        (each["family"], each["table"], each["name"]): each.get("elem", [])
        for kind, each in entries
        if kind in ("set", "map")
    }
    for kind, each in entries:
        if kind == "chain":
            chains[each["family"], each["table"]][each["name"]] = _chain(each)
    for kind, each in entries:
        if kind == "rule":
            place = each["family"], each["table"]
            named = {name: elements for (*owner, name), elements in sets.items() if tuple(owner) == place}
            chains[place][each["chain"]].rules.extend(_understood(each["expr"], named))
    return [Table(family, name, members) for (family, name), members in chains.items()]


def has_foreign_matches(text: str, family: str) -> bool:
    """Tells whether the family's `filter` table has iptables matches that nft does not show."""
    rules = (entry["rule"] for entry in json.loads(text)["nftables"] if "rule" in entry)
    return any(
        rule["family"] == family and rule["table"] == "filter" and any("xt" in part for part in rule["expr"])
        for rule in rules
    )


def _chain(each: Mapping[str, Any]) -> Chain:
    # Only filter chains decide; a nat or route chain of the same hook lets everything pass.
    hook = each.get("hook") if each.get("type") == "filter" else None
    return Chain(each["name"], hook, _VERDICTS[each.get("policy", "accept")])


def _understood(expressions: Iterable[Mapping[str, Any]], sets: Mapping[str, list[Any]]) -> list[Rule]:
    """Parses a rule; one in a syntax unknown when this was written may do anything, and no other is lost for it."""
    try:
        return list(_rules(expressions, sets))
    except (LookupError, TypeError, ValueError, AttributeError):
        return [Rule([unknown], Verdict.DROP)]


def _rules(expressions: Iterable[Mapping[str, Any]], sets: Mapping[str, list[Any]]) -> Iterator[Rule]:
    """Parses a rule: one, or one for each element if a verdict map decides."""
    tests: list[Test] = []
    for expression in expressions:
        ((kind, content),) = expression.items()
        if kind in _VERDICTS:
            yield Rule(tests, _VERDICTS[kind])
            return
        if kind in ("jump", "goto"):
            yield Rule(tests, Jump(content["target"], goto=kind == "goto"))
            return
        if kind == "vmap":
            yield from _vmap(content, tests, sets)
            return
        if kind == "queue":
            yield Rule([*tests, unknown], Verdict.DROP)
            return
        if kind == "match":
            tests.append(_match(content, sets))
        elif kind in _LIMITS:
            tests.append(_limit(content))
        elif kind == "set":
            # An element for each packet's key, which may carry a limit; without one the rule goes on.
            limits = (statement[each] for statement in content.get("stmt", ()) for each in _LIMITS if each in statement)
            tests.extend(map(_limit, limits))
        elif kind not in _SILENT:
            tests.append(unknown)


def _limit(content: object) -> Test:
    if not isinstance(content, dict):  # the name of an object, which may stand for either
        return unknown
    return _over_limit if content.get("inv") else _within_limit


def _within_limit(_: Packet) -> bool:
    return True


def _over_limit(_: Packet) -> bool:
    return False


def _vmap(content: Mapping[str, Any], tests: list[Test], sets: Mapping[str, list[Any]]) -> Iterator[Rule]:
    data = content["data"]
    elements = sets.get(data.removeprefix("@"), []) if isinstance(data, str) else data["set"]
    for value, action in elements:
        test = _match({"op": "==", "left": content["key"], "right": value}, sets)
        yield from (Rule([*tests, test, *rule.tests], rule.action) for rule in _rules([action], sets))


def _match(match: Mapping[str, Any], sets: Mapping[str, list[Any]]) -> Test:
    read = _reader(match["left"])
    operator, right = match["op"], match["right"]
    if read is None or operator not in ("==", "in", "!="):
        return unknown

    def test(packet: Packet) -> bool | None:
        value = read(packet)
        if value is _ANY:
            return None
        if value is None:  # the packet has no such field
            return False
        equal = _is(value, right, sets)
        return equal if equal is None or operator != "!=" else not equal

    return test


_ANY = object()  # an unknown value


def _reader(left: Any) -> Callable[[Packet], object] | None:
    """Returns the packet field on the left side of a comparison; None if it is not understood."""
    if not isinstance(left, dict):
        return None
    ((kind, content),) = left.items()
    if kind == "meta":
        return _META.get(content["key"])
    if kind == "ct":
        return _CT.get(content["key"])
    if kind == "fib":
        by_destination = content.get("result") == "type" and "daddr" in content.get("flags", [])
        return (lambda packet: "local" if packet.out is None else "unicast") if by_destination else None
    if kind == "exthdr":
        return lambda _: None
    if kind == "payload" and "protocol" in content:
        return _payload(content["protocol"], content["field"])
    return None


_META: Mapping[str, Callable[[Packet], object]] = {
    "iifname": lambda packet: packet.into,
    "iif": lambda packet: packet.into,
    "oifname": lambda packet: packet.out,
    "oif": lambda packet: packet.out,
    "l4proto": lambda packet: packet.protocol,
    "nfproto": lambda packet: f"ipv{packet.version}",
    "mark": lambda _: 0,
    "pkttype": lambda _: "host",
    "protocol": lambda packet: "ip" if packet.version == 4 else "ip6",
}
_CT: Mapping[str, Callable[[Packet], object]] = {
    "state": lambda packet: packet.state,
    "direction": lambda packet: "original" if packet.state == "new" else "reply",
    "mark": lambda _: 0,
    # A client's destination is not translated; its source is, by the appliance's own table.
    "status": lambda packet: "confirmed" if packet.state == "new" else "snat",
}


def _payload(protocol: str, field: str) -> Callable[[Packet], object] | None:
    def read(packet: Packet) -> object:
        if protocol in ("ip", "ip6"):
            if packet.version != (4 if protocol == "ip" else 6):
                return None
            known = {
                "saddr": packet.source,
                "daddr": packet.destination,
                "protocol": packet.protocol,
                "nexthdr": packet.protocol,
            }
            return known.get(field, _ANY)
        if protocol not in ("th", packet.protocol):
            return None
        return {"sport": packet.source_port, "dport": packet.destination_port}.get(field, _ANY)

    return read


def _is(value: object, right: Any, sets: Mapping[str, list[Any]]) -> bool | None:
    """Tells whether the value equals, or is in, the right side of a comparison; None if that is not understood."""
    if isinstance(right, str) and right.startswith("@"):
        return _is_any(value, sets.get(right[1:], [_ANY]), sets)
    if isinstance(right, list):
        return _is_any(value, right, sets)
    if isinstance(right, dict):
        return _is_in(value, right, sets)
    if isinstance(value, IPv4Address | IPv6Address) and isinstance(right, str):
        return _address(right) == value
    if isinstance(value, str) and isinstance(right, str):
        return fnmatchcase(value, right) if right.endswith("*") else value == right
    return value == right if isinstance(right, int | str) else None


def _is_in(value: object, right: Mapping[str, Any], sets: Mapping[str, list[Any]]) -> bool | None:
    ((kind, content),) = right.items()
    if kind in ("set", "|"):
        return _is_any(value, content, sets)
    if kind == "elem":
        return _is(value, content["val"], sets)
    if kind == "prefix" and isinstance(value, IPv4Address | IPv6Address):
        return value in ip_network(f"{content['addr']}/{content['len']}", strict=False)
    if kind == "range":
        return _is_between(value, *content)
    return None


def _is_between(value: object, low: object, high: object) -> bool | None:
    if isinstance(value, IPv4Address | IPv6Address) and isinstance(low, str) and isinstance(high, str):
        first, last = _address(low), _address(high)
        if first is None or last is None or first.version != value.version:
            return None
        return int(first) <= int(value) <= int(last)
    if isinstance(value, int) and isinstance(low, int) and isinstance(high, int):
        return low <= value <= high
    return None


def _is_any(value: object, elements: Iterable[Any], sets: Mapping[str, list[Any]]) -> bool | None:
    answers = [_is(value, element, sets) for element in elements]
    if True in answers:
        return True
    return None if None in answers else False


def _address(text: str) -> IPv4Address | IPv6Address | None:
    try:
        return ip_address(text)
    except ValueError:
        return None
