"""`wg-appliance connect` for the whole machine at exits that wish it ill: nothing leaks, hangs or is left.

With the real wg-quick, and with an eye on every packet that leaves the client's uplink.
"""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import threading
import time
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import pytest

from tests.support.client.hostile_files import HOSTILE_FILES
from tests.support.real_backend import NO_ROOT, backend_here
from tests.support.tunnel.appliance_process import PROJECT
from tests.support.tunnel.client import Client, clients_of
from tests.support.tunnel.connecting import RUN, command, environment, state_of
from tests.support.tunnel.hostile_api import ENDLESS, FOREIGN_MEMBERS, LATER, OTHERS, REFUSED
from tests.support.tunnel.raw_answers import RAW, TLS
from tests.support.tunnel.waiting import READY_SECONDS, until
from tests.support.tunnel.world import EXIT_IP, WEB_IP, WEB_IP6, World, new_world

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from tests.support.tunnel.namespace import Namespace

PORT = 8080
TOKEN = "wga_" + 48 * "0"
LAN = "198.51.100.17"
pytestmark = pytest.mark.timeout(200)

# Of each kind a few; `make test-all` tries all of them.
IN_SHORT = {
    *("narrow", "ipv4_alone", "second_peer", "lan_allowed", "post_up", "gateways_address", "mtu_without_ipv6"),
    *("carriage_returns", "ends_at_noon", "not_a_number", "to_another_host", "gzip_bomb"),
    *("long_id", "flood_of_continues", "flood_of_a_negative_chunk", "a_megabyte_of_reason"),
    *("drips", "continues", "true", "ends_by_dripping", "opens_again_narrow", "opens_again_second_peer"),
}
OPENS_AGAIN = [name for name in LATER if name.startswith("opens_again_")]
OF_OTHERS = {"without_ipv6", "other_keepalive", "keepalive_off", "always_idle"}
STAYS = [name for name in LATER if name not in {*OPENS_AGAIN, *OF_OTHERS}]
# The tunnel's own packets and the questions to the API apart (on all its ports: the kernel may reset what a run has
# left open two minutes later), all that leaves by the uplink for somewhere else than its own link, and all of a LAN's
# that goes into the tunnel instead. The last two words of each are ports, or ICMP's type and code (2048: an echo
# request of IPv4, 32768: of IPv6).
_OUTSIDE = f"""
table inet outside {{
  set leaked4 {{ type ipv4_addr . ipv4_addr . inet_proto . inet_service . inet_service; flags dynamic; }}
  set leaked6 {{ type ipv6_addr . ipv6_addr . inet_proto . inet_service . inet_service; flags dynamic; }}
  set lan {{ type ipv4_addr . ipv4_addr . inet_proto . inet_service . inet_service; flags dynamic; }}
  chain leaving {{
    type filter hook postrouting priority 300;
    oifname != "eth0" ip daddr 198.51.100.16/28 add @lan {{ ip saddr . ip daddr . meta l4proto . th sport . th dport }}
    oifname != "eth0" accept
    udp dport {{ 51820, 9 }} accept
    ip daddr {EXIT_IP} tcp dport {PORT}-{PORT + max(TLS)} accept
    ip daddr 198.51.100.16/28 accept
    icmpv6 type {{ mld-listener-report, mld2-listener-report, nd-neighbor-solicit, nd-neighbor-advert, \
      nd-router-solicit }} accept
    add @leaked4 {{ ip saddr . ip daddr . meta l4proto . th sport . th dport }}
    add @leaked6 {{ ip6 saddr . ip6 daddr . meta l4proto . th sport . th dport }}
  }}
}}
"""


def of(names: list[str]) -> list[object]:
    return [name if name in IN_SHORT else pytest.param(name, marks=pytest.mark.long) for name in names]


@dataclass
class Hostile:
    """An API that wishes ill, and one client of it. `asked`: the requests, in order."""

    world: World
    client: Client
    asked: list[str] = field(default_factory=list)
    running: list[subprocess.Popen[str]] = field(default_factory=list)

    def start(self, name: str, *arguments: str, api: str = "", **env: str) -> subprocess.Popen[str]:
        """Signals and the terminal are as in a shell's foreground. `api`: instead of the name's URL."""
        running = subprocess.Popen(
            self.client.space.prefix(*command("test", *arguments, api=api or f"http://{EXIT_IP}:{PORT}/{name}")),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=environment(TOKEN, **env),
        )
        self.running.append(running)
        return running

    def clear_up(self) -> None:
        """The next run at another exit."""
        _, err = self.start("narrow").communicate(timeout=READY_SECONDS)
        assert "cleared up what process" in err

    def end_all(self) -> None:
        """What a test that failed has left running."""
        for running in self.running:
            if running.returncode is None:
                running.terminate()
                with suppress(subprocess.TimeoutExpired):
                    running.wait(timeout=20)
                running.kill()
                running.communicate(timeout=READY_SECONDS)
        self.running.clear()

    def count(self, name: str, request: str) -> int:
        return self.asked.count(f"{name} {request}")


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hostile]:
    if backend_here() is None:
        pytest.skip(NO_ROOT)
    with new_world(1) as world, clients_of(world, tmp_path_factory.mktemp("hostile")) as clients:
        made = Hostile(world, clients[0])
        server = subprocess.Popen(
            world.exit.prefix(sys.executable, "-m", "tests.support.tunnel.hostile_api", str(PORT)),
            stdout=subprocess.PIPE,
            text=True,
            cwd=PROJECT,
        )
        assert server.stdout is not None
        assert server.stdout.readline() == "ready\n"
        reader = threading.Thread(target=lambda: made.asked.extend(map(str.strip, server.stdout or ())), daemon=True)
        reader.start()
        world.exit.run("sysctl", "-qw", "net.ipv4.ip_forward=1", "net.ipv6.conf.all.forwarding=1")
        yield made
        server.terminate()
        server.wait(timeout=60)
        reader.join(timeout=60)
        server.stdout.close()


@pytest.fixture
def hostile(shared: Hostile) -> Iterator[Hostile]:
    """Afterwards the machine is as it was."""
    before = state_of(shared.client.space)
    yield shared
    shared.end_all()
    after, left = state_of(shared.client.space), list(RUN.glob("*"))
    if left:
        shared.clear_up()  # it is said here, and not by the tests that follow
    assert after == before
    assert left == []


@pytest.fixture
def watched(hostile: Hostile) -> Iterator[Hostile]:
    space = hostile.client.space
    space.run("nft", "-f", "-", text_input=_OUTSIDE)
    yield hostile
    space.run("nft", "delete", "table", "inet", "outside")


def gone_astray(space: Namespace) -> list[object]:
    """What has left beside the tunnel, and what of the LAN's has gone into it: (set, source, destination, protocol, and
    the two words that follow) of each kind of packet."""
    listed = json.loads(space.run("nft", "--json", "list", "table", "inet", "outside").stdout)["nftables"]
    sets = [each["set"] for each in listed if "set" in each]
    return [(each["name"], *element["concat"]) for each in sets for element in each.get("elem", ())]


def knock(space: Namespace) -> None:
    """Both IP versions to the internet, and to a neighbour; whether there is an answer is all the same."""
    for address in (WEB_IP, WEB_IP6, LAN):
        space.run("ping", "-c", "2", "-i", "0.2", "-W", "1", address, check=False)


def connected(running: subprocess.Popen[str]) -> Mapping[str, object]:
    """The first line of --json, once it is connected."""
    assert running.stdout is not None
    line = running.stdout.readline()
    assert line, running.communicate(timeout=READY_SECONDS)
    found: Mapping[str, object] = json.loads(line)
    assert found["event"] == "connected"
    return found


@pytest.mark.black_box
@pytest.mark.parametrize("name", of(REFUSED))
def test_it_is_refused_in_one_line(hostile: Hostile, name: str) -> None:
    """Not connected, one line on stderr, status 1 or 3; what was opened is closed, where it has an id that is one."""
    running = hostile.start(name, "--json")
    assert running.stdout is not None
    for line in running.stdout:
        assert json.loads(line)["event"] == "remark", line
    _, err = running.communicate(timeout=READY_SECONDS)
    assert running.returncode in (1, 3), err
    errors = [line for line in err.splitlines() if line.startswith("wg-appliance: error: ")]
    assert (len(errors), "Traceback" in err) == (1, False), err
    assert len(err) < 4000
    opened = FOREIGN_MEMBERS.get(name, {}).get("id") == "ses_1"
    if opened or name in LATER or "wg_config is refused" in err:
        assert hostile.count(name, "DELETE v1/sessions/ses_1") == 1


@pytest.mark.black_box
@pytest.mark.parametrize("name", of([*ENDLESS]))
def test_three_ctrl_c_end_what_never_ends(hostile: Hostile, show: Callable[[str], None], name: str) -> None:
    """It ends with three Ctrl-C, whatever the exit does; nobody has to kill it."""
    running = hostile.start(name)
    until(lambda: hostile.count(name, "POST v1/sessions"), "it has asked")
    for _ in range(3):
        running.send_signal(signal.SIGINT)
        time.sleep(0.1)
    begun = time.monotonic()
    try:
        _, err = running.communicate(timeout=READY_SECONDS)
    finally:
        running.kill()
    show(f"ended {time.monotonic() - begun:.1f} s after it")
    assert running.returncode == 1, err
    assert "interrupted by SIGINT before the tunnel was up" in err


@pytest.mark.black_box
@pytest.mark.parametrize("above", [1, *(pytest.param(each, marks=pytest.mark.long) for each in (2, 3))])
def test_three_ctrl_c_end_a_handshake_of_tls(hostile: Hostile, show: Callable[[str], None], above: int) -> None:
    """Which is silent, drips, or ends in the middle of a record."""
    running = hostile.start("", api=f"https://{EXIT_IP}:{PORT + above}")
    until(lambda: f"tls_{above} ClientHello" in hostile.asked, "it has begun")
    for _ in range(3):
        running.send_signal(signal.SIGINT)
        time.sleep(0.1)
    begun = time.monotonic()
    _, err = running.communicate(timeout=READY_SECONDS)
    show(f"ended {time.monotonic() - begun:.1f} s after it")
    assert running.returncode == 1, err
    assert "interrupted by SIGINT before the tunnel was up" in err


def test_always_idle_is_not_asked_at_once(hostile: Hostile) -> None:
    """A session that is idle as soon as it is open is opened again more and more slowly, not as fast as it goes."""
    running = hostile.start("always_idle", "--json")
    connected(running)
    assert running.stdout is not None
    for _ in range(3):
        while json.loads(running.stdout.readline())["event"] != "remark":
            pass
    asked, began = hostile.count("always_idle", "POST v1/sessions"), time.monotonic()
    until(lambda: hostile.count("always_idle", "POST v1/sessions") - asked > 2, "it is asked three times more")
    assert time.monotonic() - began > 2.5  # without pauses it was asked 64 times meanwhile; load makes it longer only
    running.send_signal(signal.SIGINT)
    running.communicate(timeout=READY_SECONDS)
    assert running.returncode == 0


@pytest.mark.black_box
@pytest.mark.parametrize("name", of([*FOREIGN_MEMBERS, *OTHERS, *HOSTILE_FILES, *RAW, "mtu_without_ipv6"]))
def test_one_program_is_as_careful(hostile: Hostile, name: str) -> None:
    """The same answers, for the tunnel of one program: it is not started."""
    running = hostile.start(name, "--", "touch", str(RUN / "started"))
    out, err = running.communicate(timeout=READY_SECONDS)
    assert (running.returncode in (1, 3), out, (RUN / "started").exists()) == (True, "", False), err


@pytest.mark.black_box
@pytest.mark.parametrize(("name", "seconds"), [("other_keepalive", "7"), ("keepalive_off", "off")])
@pytest.mark.parametrize("one_program", [True, pytest.param(False, marks=pytest.mark.long)])
def test_the_keepalive_is_the_answers(hostile: Hostile, name: str, seconds: str, one_program: bool) -> None:
    """Of the tunnel of one program too: its operator may have idle clients end sooner, or keep a shorter one."""
    shown = ("wg", "show", "wgc0", "persistent-keepalive")
    if one_program:
        out, err = hostile.start(name, "--", *shown).communicate(timeout=READY_SECONDS)
    else:
        running = hostile.start(name, "--json")
        connected(running)
        out, err = hostile.client.space.run(*shown).stdout, ""
        running.send_signal(signal.SIGINT)
        running.communicate(timeout=READY_SECONDS)
    assert out.split()[1:] == [seconds], err


@pytest.mark.long
def test_what_never_ends_is_given_up(hostile: Hostile) -> None:
    """Without anybody at the keyboard: some tries of a deadline each, and a line that says so."""
    running = hostile.start("drips")
    _, err = running.communicate(timeout=READY_SECONDS)
    assert running.returncode == 1
    assert f"the API does not answer at http://{EXIT_IP}:{PORT}/drips: no whole answer within 15 s" in err


@pytest.mark.black_box
@pytest.mark.parametrize("name", of(STAYS))
def test_what_is_connected_leaks_nothing(watched: Hostile, show: Callable[[str], None], name: str) -> None:
    """While it says "connected", nothing but the tunnel's packets leaves, and the LAN stays out of the tunnel. Ctrl-C
    ends it, whatever the exit does meanwhile. It is pressed three times: at once where the answer to the close never
    ends, else once and then, when the close is asked for, twice: its answer is waited for two seconds."""
    space = watched.client.space
    running = watched.start(name, "--json")
    connected(running)
    knock(space)
    assert gone_astray(space) == []
    closes = watched.count(name, "DELETE v1/sessions/ses_1")
    for pressed in range(3):
        running.send_signal(signal.SIGINT)
        if pressed == 0 and name != "ends_by_dripping":
            until(lambda: watched.count(name, "DELETE v1/sessions/ses_1") > closes, "the close is asked for")
        time.sleep(0.1)
    begun = time.monotonic()
    out, err = running.communicate(timeout=READY_SECONDS)
    show(f"ended {time.monotonic() - begun:.1f} s after it")
    if name == "ends_by_dripping":
        assert running.returncode == 1
        watched.clear_up()  # the session that could not be closed is noted, and nothing else
    else:
        assert running.returncode == 0, (out, err)


@pytest.mark.black_box
@pytest.mark.parametrize("name", of(OPENS_AGAIN))
def test_a_second_session_is_as_little_trusted(watched: Hostile, name: str) -> None:
    """The first was as it should be, and ended as idle; the file of the second is refused like any: the run ends, and
    until then nothing has leaked."""
    space = watched.client.space
    running = watched.start(name, "--json")
    connected(running)
    out, err = running.communicate(timeout=READY_SECONDS)
    assert (running.returncode, len(err.splitlines())) == (1, 1), (out, err)
    assert "refused" in err or "invalid id" in err or "too small" in err
    assert gone_astray(space) == []


@pytest.mark.black_box
@pytest.mark.parametrize(
    ("left", "file"),
    [
        (b"\xff\xfe\0", b"DNS = \x80\n\xff"),
        pytest.param(b"", None, marks=pytest.mark.long),
        pytest.param(b"{", None, marks=pytest.mark.long),
        pytest.param(None, None, marks=pytest.mark.long),
        pytest.param(b"", b"", marks=pytest.mark.long),
    ],
)
def test_a_tunnel_of_a_killed_run_is_never_forgotten(hostile: Hostile, left: bytes | None, file: bytes | None) -> None:
    """Killed, and its record or its file is garbage, empty or gone: the next run takes the tunnel away all the same."""
    killed = hostile.start("true", "--json")
    interface = connected(killed)["interface"]
    killed.kill()
    killed.communicate(timeout=READY_SECONDS)
    record = RUN / f"{interface}.json"
    if left is None:
        record.unlink()
    else:
        record.write_bytes(left)
    if file is not None:
        (RUN / f"{interface}.conf").write_bytes(file)
    running = hostile.start("narrow")
    _, err = running.communicate(timeout=READY_SECONDS)
    assert f"cleared up what a run whose record cannot be read had left: {interface}\n" in err
    assert running.returncode == 1


@pytest.mark.parametrize("half", ["default", "all"])
def test_ipv6_of_a_machine_that_disables_it_by_half(watched: Hostile, half: str) -> None:
    """Disabled for new interfaces, and up on the old one: the tunnel has none, and none leaves outside it."""
    space = watched.client.space
    disabled = f"net.ipv6.conf.{half}.disable_ipv6"
    space.run("sysctl", "-qw", f"{disabled}=1")
    try:
        if half == "all":
            space.run("sysctl", "-qw", "net.ipv6.conf.eth0.disable_ipv6=0")
            space.run("ip", "address", "add", "2001:db8:1:1::2/64", "dev", "eth0", "nodad")
            space.run("ip", "route", "add", "::/0", "via", "2001:db8:1:1::1")
        rules = space.run("ip", "-6", "rule").stdout
        running = watched.start("without_ipv6", "--json")
        connected(running)
        knock(space)
        assert gone_astray(space) == []
        running.send_signal(signal.SIGINT)
        running.communicate(timeout=READY_SECONDS)
        assert (running.returncode, space.run("ip", "-6", "rule").stdout) == (0, rules)
    finally:
        space.run("sysctl", "-qw", f"{disabled}=0")


@pytest.mark.parametrize(
    ("routes", "said"),
    [
        (("0.0.0.0/1", "128.0.0.0/1"), "is in 0.0.0.0/1, a network of this machine (eth0)"),
        (("2000::/3",), "outside the tunnel"),
    ],
)
def test_routes_that_come_before_the_tunnels(hostile: Hostile, routes: tuple[str, ...], said: str) -> None:
    """Another tunnel's, as openvpn(8) adds them: wg-quick leaves them alone, so that it is refused, not "connected"."""
    space = hostile.client.space
    for route in routes:
        via = "2001:db8:1:1::1" if ":" in route else LAN
        space.run("ip", "route", "add", route, "via", via)
    try:
        running = hostile.start("true")
        _, err = running.communicate(timeout=READY_SECONDS)
        assert (running.returncode, said in err) == (1, True), err
    finally:
        for route in routes:
            space.run("ip", "route", "delete", route)
