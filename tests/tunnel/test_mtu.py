"""Lines that carry less than Ethernet, and drop fragments: on the client's side, and on the exit's."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest

from tests.support.tunnel.waiting import TRANSFER_SECONDS, until
from tests.support.tunnel.world import WEB_IP

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from tests.support.tunnel.appliance_process import Appliance
    from tests.support.tunnel.client import Client
    from tests.support.tunnel.namespace import Namespace
    from tests.support.tunnel.world import World

pytestmark = pytest.mark.black_box

NO_FRAGMENTS = """
table inet no_fragments {
  chain early {
    type filter hook prerouting priority -450;
    ip frag-off & 0x3fff != 0 drop
  }
}
"""  # before the kernel puts them together, at -400
SIZE = 300_000
SECONDS = 90  # a transfer of this size takes less than one; a stalled one never ends


@pytest.fixture
def client_count() -> int:
    return 1


def without_fragments(*spaces: Namespace) -> None:
    for space in spaces:
        space.run("nft", "-f", "-", text_input=NO_FRAGMENTS)


def narrow(world: World, mtu: int) -> None:
    """Makes the client's line one of this MTU, at both of its ends."""
    world.clients[0].run("ip", "link", "set", "eth0", "mtu", str(mtu))
    world.exit.run("ip", "link", "set", "lan1", "mtu", str(mtu))


def transfers(client: Client, content: Path) -> tuple[int, int]:
    """Returns the bytes that went up and came down, each within SECONDS."""
    with content.open("wb") as file:
        file.truncate(SIZE)
    limit = ("timeout", str(SECONDS))
    curl = (*limit, "curl", "-q", "--noproxy", "*", "-sS", "--fail")
    web = "http://203.0.113.10:8000"
    up = client.space.run(*curl, "--upload-file", str(content), f"{web}/sink", check=False, timeout=TRANSFER_SECONDS)
    to_file = ("--output", str(content), "--write-out", "%{size_download}")
    down = client.space.run(*curl, f"{web}/blob?bytes={SIZE}&seed=mtu", *to_file, check=False)
    uploaded = re.search(r'"length": (\d+)', up.stdout)
    return int(uploaded[1]) if uploaded else 0, int(down.stdout or 0)


def tunnel_mtu(appliance: Appliance) -> int:
    link = appliance.space.run("cat", f"/sys/class/net/{appliance.interface}/mtu")
    return int(link.stdout)


@pytest.mark.under_kernel
@pytest.mark.parametrize("line", [1460, pytest.param(1400, marks=pytest.mark.long)])
def test_a_narrow_line_of_a_client_carries_both_ways(
    appliance: Appliance, world: World, client: Client, tmp_path: Path, line: int
) -> None:
    """Over a line of less than 1480 that drops fragments, uploads and downloads do not stall."""
    narrow(world, line)
    without_fragments(world.exit, world.clients[0])
    appliance.keep_tables_of_others()
    opened = appliance.open(appliance.token())
    client.wg_quick(opened["wg_config"])
    client.address_seen()
    assert transfers(client, tmp_path / "content") == (SIZE, SIZE)


@pytest.mark.parametrize(
    ("uplink", "wanted"), [(1460, 1380), pytest.param(1300, 1280, marks=pytest.mark.long), (9000, 1420)]
)
def test_the_exits_own_mtu_is_what_its_uplink_leaves(
    world: World, start_appliance: Callable[..., Appliance], uplink: int, wanted: int
) -> None:
    """The interface has the uplink's MTU without WireGuard's overhead, from 1280 to 1420, and files have no MTU."""
    for space, end in ((world.exit, "wan"), (world.internet, "net0")):
        space.run("ip", "link", "set", end, "mtu", str(uplink))
    appliance = start_appliance()
    assert tunnel_mtu(appliance) == wanted
    assert "MTU" not in appliance.open(appliance.token())["wg_config"]


def test_the_exits_own_mtu_follows_its_uplink(world: World, appliance: Appliance) -> None:
    """An uplink whose MTU changes while the exit serves is followed, and back, and so is that of a default route."""
    assert tunnel_mtu(appliance) == 1420
    route = f"route replace default via {WEB_IP}"
    for change, wanted in (
        ("link set wan mtu 1400", 1320),
        ("link set wan mtu 1500", 1420),
        (f"{route} mtu 1380", 1300),
        (route, 1420),
    ):
        world.exit.run("ip", *change.split())
        until(lambda wanted=wanted: tunnel_mtu(appliance) == wanted, f"the tunnel's MTU is {wanted}")


def test_a_configured_mtu_is_in_the_files(start_appliance: Callable[..., Appliance]) -> None:
    """A number is the interface's MTU and a line in clients' files, whatever the uplink leaves."""
    wireguard: Mapping[str, object] = {"mtu": 1340}
    appliance = start_appliance(wireguard=dict(wireguard))
    assert tunnel_mtu(appliance) == 1340
    assert "\nMTU = 1340\n" in appliance.open(appliance.token())["wg_config"]
