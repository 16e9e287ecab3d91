"""`wg-appliance connect --dns` of a machine's own network: it stays reachable, or is refused in words that are true."""

from __future__ import annotations

import json
import os
import signal
from typing import TYPE_CHECKING

import pytest

from tests.support.tunnel.connecting import command, environment

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.support.tunnel.connecting import Ground, Piped

LAN, LAN6 = "198.51.100.17", "2001:db8:1:1::1"
OWN = "198.51.100.18"
NETWORK = "198.51.100.16/28, a network of this machine (eth0)"
pytestmark = pytest.mark.timeout(200)


def with_resolvconf(folder: Path) -> dict[str, str]:
    """A PATH with a resolvconf(8), which this machine may lack; it notes what it is given."""
    program = folder / "resolvconf"
    program.write_text(f'#!/bin/sh\necho "$*" >> {folder}/asked\n[ "$1" = -d ] || cat >> {folder}/asked\n')
    program.chmod(0o755)
    return {"PATH": f"{folder}:{os.environ['PATH']}"}


@pytest.mark.black_box
def test_a_resolver_of_the_lan_stays_reachable(ground: Ground, piped: Callable[..., Piped], tmp_path: Path) -> None:
    """The user's own, of both IP versions: the machine asks it in the LAN as before, which is said; all else is in the
    tunnel."""
    words = ("--json", "--dns", LAN, "--dns", LAN6, "--dns", "9.9.9.9")
    running = piped(ground.token, *words, **with_resolvconf(tmp_path))
    events = []
    for line in running.lines():
        events.append(json.loads(line))
        if events[-1]["event"] == "connected":
            break
    assert [each["event"] for each in events] == ["remark", "remark", "connected"]
    first, interface = [each["text"] for each in events[:2]], events[2]["interface"]
    space = ground.client.space
    for address, way in ((LAN, "eth0"), (LAN6, "eth0"), ("9.9.9.9", interface)):
        assert f"dev {way} " in space.run("ip", "route", "get", address).stdout
    for address in (LAN, LAN6):
        space.run("ping", "-c", "1", "-W", "5", address)
    running.process.send_signal(signal.SIGINT)
    assert running.end()[0] == 0
    outside = "DNS is asked outside the tunnel, as --dns has it:"
    network6 = "2001:db8:1:1::/64, a network of this machine (eth0)"
    assert first == [f"{outside} {LAN} is in {NETWORK}", f"{outside} {LAN6} is in {network6}"]
    assert f"nameserver {LAN}\nnameserver {LAN6}\nnameserver 9.9.9.9\n" in (tmp_path / "asked").read_text()


@pytest.mark.black_box
@pytest.mark.parametrize(
    ("resolver", "where"),
    [(LAN, NETWORK), (OWN, NETWORK), ("127.0.0.53", "127.0.0.0/8, a network of this machine (lo)")],
)
def test_a_program_in_the_tunnel_cannot_ask_it(ground: Ground, tmp_path: Path, resolver: str, where: str) -> None:
    """It has the tunnel and nothing else: refused before a session is opened, and it is not the exit's fault."""
    sessions = ground.exit.admin("session", "list", "--json")
    words = command("--dns", resolver, "--", "touch", str(tmp_path / "started"))
    done = ground.client.space.run(*words, check=False, env=environment(ground.token))
    assert (done.returncode, done.stdout, (tmp_path / "started").exists()) == (1, "", False)
    assert done.stderr == (
        f"wg-appliance: error: --dns {resolver} is in {where}, out of reach of a program that has the tunnel alone; "
        "name another, or leave it to the exit\n"
    )
    assert ground.exit.admin("session", "list", "--json") == sessions


@pytest.mark.black_box
def test_missing_resolvconf_is_not_the_exits_fault(ground: Ground) -> None:
    """Whose resolvers they are is said as it is."""
    done = ground.client.space.run(*command("--dns", LAN), check=False, env=environment(ground.token))
    assert done.returncode == 1
    assert f"you name resolvers ({LAN}), for which wg-quick needs resolvconf" in done.stderr
