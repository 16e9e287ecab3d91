"""`wg-appliance connect` on every kind of tunnel: whose traffic leaves where, and what a killed run leaves."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
from typing import TYPE_CHECKING

import pytest

from appliance.client.humanize import size
from tests.support.tunnel.client import CURL
from tests.support.tunnel.connecting import (
    CTRL_C,
    command,
    connecting_ground,
    environment,
    in_terminal,
    program_of,
    run_through,
    start_through,
    state_of,
)
from tests.support.tunnel.ping import Ping
from tests.support.tunnel.waiting import READY_SECONDS, until
from tests.support.tunnel.world import EXIT_IP, EXIT_IP6, WEB, WEB6, WEB_IP, WEB_IP6

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.support.tunnel.connecting import Ground, Piped
    from tests.support.tunnel.namespace import Namespace

DOWNLOAD = 500_000  # bytes
# The tunnel's own packets, the client's questions to the API, and what a link says of itself.
_OUTSIDE = """
table inet outside {
  counter leaked { }
  chain leaving {
    type filter hook postrouting priority 300;
    oifname != "eth0" accept
    udp dport 51820 accept
    tcp dport 8080 accept
    icmpv6 type { mld-listener-report, mld2-listener-report, nd-neighbor-solicit, nd-neighbor-advert, \
      nd-router-solicit } accept
    counter name leaked
  }
}
"""


@pytest.fixture(scope="module")
def shared(backend: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ground]:
    with connecting_ground(backend, tmp_path_factory.mktemp("connect")) as made:
        yield made


@pytest.mark.under_kernel
def test_all_traffic_leaves_by_the_exit_until_ctrl_c_restores_the_machine(ground: Ground) -> None:
    """Up, all traffic leaves by the exit, the line renews itself; Ctrl-C: everything as it was, and a receipt."""
    client = ground.client
    with in_terminal(client.space, command(), environment(ground.token)) as terminal:
        terminal.await_text(rf"connected: test, traffic leaves from {EXIT_IP} \(session ses_\w+\); Ctrl-C ends it")
        assert client.address_seen(WEB) == EXIT_IP
        assert client.address_seen(WEB6) == EXIT_IP6
        client.download(DOWNLOAD, "status")
        terminal.await_text(
            r"test  203\.0\.113\.1  connected 0:00:\d\d  counted \S+  ↓ \d{3}\.\d KiB .*handshake \d+s ago  .*left"
        )
        terminal.press(CTRL_C)
        assert terminal.wait() == 0, terminal.text
        shown = "\n".join(terminal.shown())
    receipt = re.search(
        r"session +(ses_\w+)\nended +closed\nconnected +0:00:\d\d\ncounted +0:00:\d\d\n"
        r"downloaded +(\S+ KiB)\nuploaded +(\S+ KiB)\n",
        shown,
    )
    assert receipt, shown
    # What a slow machine sends again goes through the tunnel twice, and is counted twice.
    final = ground.exit.session(receipt[1], ground.token)
    assert final["bytes_out"] > DOWNLOAD
    assert (receipt[2], receipt[3]) == (size(final["bytes_out"]), size(final["bytes_in"]))
    assert "handshake" not in shown, "the status line has gone"
    assert b"\x1b[?25h" in terminal.output, "the cursor is back"


def test_nothing_leaks_when_the_session_gets_another_address(
    ground: Ground, piped: Callable[..., Piped], tmp_path: Path
) -> None:
    """A session that was opened again under another address: the machine pings on, and not one of its packets leaves
    outside the tunnel meanwhile."""
    space = ground.client.space
    ground.serve_with({"idle_timeout": "4s"})
    running = piped(ground.token, "--json")
    interface = running.event("connected")["interface"]
    before = addresses_of(space, interface)
    space.run("nft", "-f", "-", text_input=_OUTSIDE)
    pings = [Ping(space, address, tmp_path / address) for address in (WEB_IP, WEB_IP6)]
    try:
        pings[0].goes_on(1)
        running.event("remark")  # ended as idle
        until(lambda: addresses_of(space, interface) - before, "the address is another one")
        ground.serve_as_before()
        for ping in pings:
            ping.goes_on(5)
        shown = space.run("nft", "list", "counter", "inet", "outside", "leaked").stdout
        rules = space.run("nft", "list", "ruleset").stdout
    finally:
        space.run("nft", "delete", "table", "inet", "outside")
        for ping in pings:
            ping.kill()
    assert "packets 0 bytes 0" in shown
    assert all(f"daddr {address} " in rules for address in addresses_of(space, interface)), (
        "what claims to be for it is dropped"
    )
    assert not any(f"daddr {address} " in rules for address in before)
    running.process.send_signal(signal.SIGINT)
    assert running.end()[0] == 0


def addresses_of(space: Namespace, interface: str) -> set[str]:
    """None where there is no interface."""
    done = space.run("ip", "-json", "address", "show", "dev", interface, "scope", "global", check=False)
    return {address["local"] for link in json.loads(done.stdout or "[]") for address in link["addr_info"] if address}


def test_a_programs_traffic_and_no_other_takes_the_tunnel(ground: Ground) -> None:
    """While the program's traffic leaves from the exit, over both versions, the machine's goes its own way: its
    routes are untouched, and the internet, which knows the exit alone, gives it no answer."""
    script = f"{' '.join(CURL[:2])} --noproxy '*' -sS {WEB}/ip; echo; curl -q --noproxy '*' -sS {WEB6}/ip; echo; read _"
    before = state_of(ground.client.space)
    running = subprocess.Popen(
        ground.client.space.prefix(*command("--", "bash", "-c", script)),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=environment(ground.token),
    )
    assert running.stdout is not None
    assert [running.stdout.readline().strip() for _ in range(2)] == [EXIT_IP, EXIT_IP6]
    assert ground.client.get(f"{WEB}/ip", seconds=2) == ""
    routes = {line for line in state_of(ground.client.space) - before if " dev " in line or "lookup" in line}
    assert routes == set()
    running.communicate("\n", timeout=READY_SECONDS)
    assert running.returncode == 0


def test_the_next_run_clears_up_after_a_killed_command(ground: Ground) -> None:
    """What a killed run left behind, the next one takes away: its session, and a wireguard-go where there is one."""
    killed = start_through(ground, "sleep", "1000", options=("--json",))
    assert killed.stderr is not None
    left = json.loads(killed.stderr.readline())
    program = program_of(killed, "sleep")
    killed.kill()
    killed.wait(timeout=READY_SECONDS)
    done = run_through(ground, "true")
    assert f"cleared up what process {killed.pid} had left: {left['interface']}" in done.stderr
    assert done.returncode == 0
    os.kill(program, signal.SIGKILL)  # it is its user's, and goes on without a way out
    killed.communicate(timeout=READY_SECONDS)
