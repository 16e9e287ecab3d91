"""Three hubs as one cluster: what each one's nats-server is told of the others, by the real nats-server."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from appliance.fleet.hub.cluster import Cluster, cluster_of, host_of
from appliance.fleet.hub.config import DISK_MB, STREAMS, HubSettings, ServerFiles, render
from appliance.fleet.membership.identity import HubAddress
from tests.support.certificates import self_signed
from tests.support.fleet.nats_program import refusal

if TYPE_CHECKING:
    from pathlib import Path

OWN_KEYS = (
    "UCSFIE2Z5Q7B53SB3PSJUTJIOU5KT25FJUUM4KNUY4OMXXULW4KEF5GJ",
    "UCNC4VQTXZW2LL3GXS7BBMIUV4PKOQHPF5SEJMMRKHI4OWP6TFNFQRLO",
)
FRA, AMS, LON = (
    HubAddress("192.0.2.1:7422", "fra.hub.internal"),
    HubAddress("ams.example.net:7000", "ams.hub.internal"),
    HubAddress("[2001:db8::3]:65535", "lon.hub.internal"),
)


def cluster(*hubs: HubAddress) -> Cluster | None:
    return cluster_of("flt_1", FRA.server_name, "0.0.0.0:7422", hubs)


def settings(folder: Path | str, of: Cluster | None) -> HubSettings:
    files = ServerFiles(f"{folder}/leaf.pem", f"{folder}/leaf.key", f"{folder}/streams", authority=f"{folder}/leaf.pem")
    return HubSettings(FRA.server_name, "127.0.0.1:7422", files, *OWN_KEYS, (), cluster=of)


@pytest.mark.parametrize("hubs", [(), (FRA,), (FRA, AMS), (AMS,)])
def test_fewer_than_three_hubs_are_no_cluster(hubs: tuple[HubAddress, ...]) -> None:
    """Of two, one alone would have no majority."""
    assert cluster(*hubs) is None


def test_hubs_dial_each_other_beside_the_port_for_members() -> None:
    """The others, each once, in any order alike; where a port has no next one, the one before."""
    found = cluster(LON, FRA, AMS)
    assert found == cluster(AMS, LON, FRA, AMS)
    assert found is not None
    assert (found.listen, found.dialled) == ("0.0.0.0:7423", "192.0.2.1:7423")
    assert found.routes == ("[2001:db8::3]:65534", "ams.example.net:7001")
    assert [host_of(each.address) for each in (FRA, AMS, LON)] == ["192.0.2.1", "ams.example.net", "2001:db8::3"]


@pytest.mark.parametrize("address", ["", "x", "x:y", "x:7422\n", 'a"]:1', "u@x:1", "x/y:1", "x:1 y:2"])
def test_an_address_that_is_none_is_refused(address: str) -> None:
    """It would be part of a URL, and of a certificate."""
    with pytest.raises(ValueError, match="is not the address of a hub"):
        cluster(FRA, AMS, replace_address(LON, address))
    with pytest.raises(ValueError, match="is not the address of a hub"):
        host_of(address)


def replace_address(hub: HubAddress, address: str) -> HubAddress:
    return HubAddress(address, hub.server_name)


def test_nats_server_takes_it(tmp_path: Path) -> None:
    """In a folder with an odd name; and does look at it."""
    folder = tmp_path / 'hub "ü" \\ {#'
    folder.mkdir()
    self_signed(folder, "leaf")
    of = cluster(FRA, AMS, LON)
    assert of is not None
    text = render(settings(folder, of))
    (folder / "hub.conf").write_text(text, encoding="utf-8")
    assert refusal(folder / "hub.conf") == ""
    (folder / "hub.conf").write_text(text.replace("no_advertise", "no_advertize"), encoding="utf-8")
    assert "unknown field" in refusal(folder / "hub.conf")


def test_a_hub_alone_is_told_nothing_of_it() -> None:
    """A cluster adds one block, one bucket, and room for the copies that JetStream counts against the account."""
    alone, clustered = (render(settings("/x", each)) for each in (None, cluster(FRA, AMS, LON)))
    begin, end = clustered.index("cluster {"), clustered.index("system_account")
    room = {
        f"max_file: {3 * (DISK_MB + 1)}MB": f"max_file: {DISK_MB}MB",
        f"max_file_store: {DISK_MB + 1}MB": f"max_file_store: {DISK_MB}MB",
        f"max_streams: {STREAMS + 1}": f"max_streams: {STREAMS}",
    }
    without = clustered[:begin] + clustered[end:]
    for theirs, own in room.items():
        assert without.count(theirs) == 1
        without = without.replace(theirs, own)
    assert without == alone
    assert 'routes: ["tls://[2001:db8::3]:65534", "tls://ams.example.net:7001"]' in clustered
    assert "verify: true" in clustered[begin:end]
