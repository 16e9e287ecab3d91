"""Somebody changes a running exit behind the appliance's back: it is put right, and only who was concerned notices."""

from __future__ import annotations

import time
from contextlib import ExitStack
from typing import TYPE_CHECKING

import pytest

from tests.support.tunnel.client import new_key_pair
from tests.support.tunnel.ping import Ping
from tests.support.tunnel.tampering import TABLE, Row, Sessions
from tests.support.tunnel.waiting import last_answer, until
from tests.support.tunnel.watched_exit import WatchedExit, watched_exit
from tests.support.tunnel.world import EXIT_IP, EXIT_IP6, WEB, WEB6, WEB_IP, WEB_IP6

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.support.tunnel.client import Client
    from tests.support.tunnel.ping import Pinged
    from tests.support.tunnel.watched_exit import Member

# Seldom: whatever is put right sooner was seen in an event, or at the look about each second.
INTERVAL = "60s"


BLOCKED, BLOCKED_IP = "203.0.113.64/26", "203.0.113.77"  # the internet has this address too

# Everything a row of the table changes on its own.
AT_ONCE = (
    "ip link set {wg} down",
    "ip address flush dev {wg}",
    "wg genkey | wg set {wg} private-key /proc/self/fd/0 listen-port 51999 peer {concerned} remove",
    "nft flush ruleset",
    "ip rule del iif {wg} prohibit; ip -6 rule del iif {wg} prohibit; tc qdisc del dev {wg} clsact || true",
    "sysctl -qw net.ipv4.conf.wan.forwarding=0 net.ipv6.conf.all.forwarding=0 net.ipv4.conf.all.send_redirects=1",
)

# As a container engine has it: whatever becomes of our table, connections are tracked.
OTHER_TRANSLATION = """
table ip other {
  chain translation {
    type nat hook postrouting priority srcnat;
    oifname "none" masquerade
  }
  chain untranslated {
    type filter hook postrouting priority srcnat + 1;
    ip saddr 10.101.0.0/24 counter
  }
}
"""


# These change what another row of the table changes too, and are repaired in the same way.
LIKE_ANOTHER = {
    "allowed-ips made everything",
    "MTU changed",
    "table deleted",
    "sources flushed",
    "blocks flushed",
    "foreign rule that accepts",
}
# Which backend there is matters where WireGuard's device is changed. Of what any interface has, two rows are
# tried on both, too.
ON_BOTH = {"interface set down", "IPv6 address removed"}
OF_THE_DEVICE = ("wg ", "ip link del ")


def _marks(row: Row) -> list[pytest.MarkDecorator]:
    marks = [pytest.mark.long] if row.name in LIKE_ANOTHER else []
    if row.tamper.startswith(OF_THE_DEVICE) or row.name in ON_BOTH:
        marks.append(pytest.mark.under_kernel)
    return marks


@pytest.fixture(scope="module")
def shared_exit(backend: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[WatchedExit]:
    """One for all: every repair leaves it as it was."""
    changes = {"meter": {"interval": INTERVAL}, "egress": {"extra_block": [BLOCKED]}}
    with watched_exit(backend, tmp_path_factory.mktemp("repairs"), **changes) as made:
        made.world.internet.run("ip", "address", "add", f"{BLOCKED_IP}/32", "dev", "net0")
        yield made


@pytest.fixture
def exit_(shared_exit: WatchedExit, request: pytest.FixtureRequest) -> Iterator[WatchedExit]:
    before = len(shared_exit.appliance.log())
    yield shared_exit
    request.node.add_report_section("teardown", "log of the appliance", shared_exit.appliance.log()[before:])


@pytest.fixture
def start_ping(tmp_path: Path) -> Iterator[Callable[[Client, str], Ping]]:
    with ExitStack() as stack:

        def start(client: Client, address: str) -> Ping:
            ping = Ping(client.space, address, tmp_path / f"{client.interface} to {address}")
            stack.callback(ping.kill)
            return ping

        yield start


@pytest.fixture
def pings(exit_: WatchedExit, start_ping: Callable[[Client, str], Ping]) -> dict[str, Ping]:
    """The unconcerned client's, over IPv4 and over IPv6; both are answered."""
    client = exit_.members[1].client
    running = {"IPv4": start_ping(client, WEB_IP), "IPv6": start_ping(client, WEB_IP6)}
    for ping in running.values():
        ping.goes_on(3)
    return running


@pytest.mark.parametrize("row", [pytest.param(row, id=row.name, marks=_marks(row)) for row in TABLE])
def test_a_change_is_repaired_and_no_other_client_notices(
    exit_: WatchedExit, pings: dict[str, Ping], row: Row, backend: str, show: Callable[[str], None]
) -> None:
    """It is as it was; nobody lost a packet but who was concerned, and their traffic flows again; one repair is
    logged, of this and nothing else."""
    if row.userspace_only and backend != "userspace":
        pytest.skip("the kernel's WireGuard has no process to kill")
    concerned, unconcerned = exit_.members
    foreign = new_key_pair().public
    words = {
        "{wg}": exit_.appliance.interface,
        "{concerned}": concerned.key,
        "{addresses}": concerned.addresses,
        "{session}": concerned.session,
        "{sessions}": ",".join(sorted(member.session for member in exit_.members)),
        "{foreign}": foreign,
        "{abbreviated}": f"{foreign[:4]}...{foreign[39:43]}",
        "{wireguard_go}": " ".join(map(str, exit_.appliance.space.pids_of("wireguard-go"))),
    }
    expected = [_with(words, line) for line in row.repairs]
    before, logged = exit_.facts(), len(exit_.appliance.log())

    exit_.sh(_with(words, row.tamper))
    tampered = time.monotonic()
    # The log is read first: asking the kernel in a loop would keep the processor from the repair.
    until(lambda: len(exit_.repairs(logged)) >= len(expected), "the repair is logged", every=0.005)
    told = time.monotonic()
    until(lambda: exit_.fact(row.fact) == before[row.fact], f"{row.fact} as before", every=0.005)
    seen = time.monotonic()
    _await_facts(exit_, before)
    if row.sessions is not Sessions.STAY:
        concerned.client.shake_hands()
    if row.sessions is Sessions.ALL:
        with ExitStack() as stack:
            for ping in pings.values():
                stack.enter_context(ping.disturbed())
            unconcerned.client.shake_hands()
    _assert_reaches_internet(concerned)
    for ping in pings.values():
        ping.goes_on(5)
    pinged = {name: ping.stop() for name, ping in pings.items()}

    show(
        f"logged after {told - tampered:.2f} s, seen after {seen - tampered:.2f} s; "
        + ", ".join(f"{name} {_loss(each)}" for name, each in pinged.items())
    )
    assert sorted(exit_.repairs(logged)) == sorted(expected)
    for name, loss in (("IPv4", row.ipv4), ("IPv6", row.ipv6)):
        assert len(pinged[name].outages) <= loss.value, name


def test_all_that_was_changed_at_once_is_repaired_in_one_go(exit_: WatchedExit) -> None:
    """What was changed before anything could be repaired is repaired in one go."""
    before, logged = exit_.facts(), len(exit_.appliance.log())
    with exit_.appliance.standing_still():
        for command in AT_ONCE:
            exit_.sh(command.replace("{concerned}", exit_.members[0].key))
        changed = exit_.facts()
        assert all(changed[name] != before[name] for name in before)
    _await_facts(exit_, before)
    _assert_works(exit_)
    assert len(exit_.repairs(logged)) == len(set(exit_.repairs(logged))) == 9


def test_what_is_changed_during_a_repair_is_repaired_too(exit_: WatchedExit) -> None:
    """What is changed while something else is being repaired is repaired too."""
    before = exit_.facts()
    for command in 4 * AT_ONCE:
        exit_.sh(command.replace("{concerned}", exit_.members[0].key))
    _await_facts(exit_, before)
    _assert_works(exit_)


@pytest.mark.under_kernel
def test_an_interface_of_another_kind_is_left_alone(
    exit_: WatchedExit, backend: str, show: Callable[[str], None]
) -> None:
    """An interface of our name that is none of ours is said to be one, once, and left alone; when it is gone, ours is
    made again."""
    before, logged = exit_.facts(), len(exit_.appliance.log())
    with exit_.appliance.standing_still():
        exit_.sh("ip link del {wg} && ip link add {wg} type veth peer name other0")
    kind = {"kernel": "wireguard", "userspace": "tun"}[backend]
    reason = f"{exit_.appliance.interface}: an interface of this name is there, and it is veth, not {kind}"

    def refused() -> bool:
        answer = exit_.appliance.api("GET", "/readyz")
        return answer.status == 503 and reason in str(answer.body)

    until(refused, "/readyz says what is in the way")
    until(lambda: reason in exit_.appliance.log()[logged:], "the next look says so")  # /readyz has looked by itself
    exit_.sh("ip link show {wg} type veth")
    exit_.sh("ip link del {wg}")
    deleted = time.monotonic()
    until(lambda: exit_.fact("peers") == before["peers"], "ours is there again", every=0.02)
    show(f"seen {time.monotonic() - deleted:.2f} s after the other one was deleted")
    _await_facts(exit_, before)
    _assert_works(exit_)
    until(lambda: exit_.appliance.api("GET", "/readyz").status == 200, "it is ready")
    assert exit_.appliance.log()[logged:].count(reason) == 1


@pytest.mark.parametrize(
    "tamper",
    [
        "nft flush chain inet wg_appliance nat",
        pytest.param("nft delete table inet wg_appliance", marks=pytest.mark.long),
    ],
)
def test_a_flow_begun_without_translation_is_answered_after_the_repair(
    exit_: WatchedExit, start_ping: Callable[[Client, str], Ping], tamper: str
) -> None:
    """A flow that began while no rule translated it, which the kernel never asks about again, is answered once the
    rules are back."""
    exit_.sh(f"printf '{OTHER_TRANSLATION}' | nft -f -")
    try:
        with exit_.appliance.standing_still():
            exit_.sh(tamper)
            ping = start_ping(exit_.members[0].client, WEB_IP)
            until(lambda: " packets 0 " not in exit_.sh("nft list chain ip other untranslated"), "it has begun")
        ping.goes_on(5)
    finally:
        exit_.sh("nft delete table ip other")


def test_a_flow_begun_without_blocks_ends_with_the_repair(
    exit_: WatchedExit, start_ping: Callable[[Client, str], Ping]
) -> None:
    """A flow to where no client may go, which began while no rule said so, does not go on once the rules are back."""
    before = exit_.facts()
    client = exit_.members[0].client
    with exit_.appliance.standing_still():
        exit_.sh("nft flush chain inet wg_appliance forward")
        exit_.sh('nft insert rule inet wg_appliance admission iifname "{wg}" meta mark set 0xffffffff accept')
        blocked = start_ping(client, BLOCKED_IP)
        blocked.goes_on(5)
    _await_facts(exit_, before)
    answered = blocked.answered()
    start_ping(client, WEB_IP).goes_on(10)
    assert blocked.answered() == answered


def _assert_works(exit_: WatchedExit) -> None:
    """Traffic flows, of clients who notice that their session is gone."""
    for member in exit_.members:
        member.client.shake_hands()
        _assert_reaches_internet(member)


def _assert_reaches_internet(member: Member) -> None:
    assert (member.client.address_seen(WEB), member.client.address_seen(WEB6)) == (EXIT_IP, EXIT_IP6)


def _await_facts(exit_: WatchedExit, wanted: dict[str, list[str]]) -> None:
    assert last_answer(exit_.facts, wanted) == wanted


def _with(words: dict[str, str], text: str) -> str:
    for word, value in words.items():
        text = text.replace(word, value)
    return text


def _loss(pinged: Pinged) -> str:
    return f"lost {'+'.join(map(str, pinged.outages)) or 0} of {pinged.sent}"
