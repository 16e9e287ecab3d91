"""What is done in wg-quick's place, with programs of the test's."""

from __future__ import annotations

import os
import shutil
from contextlib import nullcontext
from itertools import chain
from typing import TYPE_CHECKING

import pytest

from appliance.client.tunnel import full_tunnel, nft_guard, wg_quick_cleanup, wg_quick_needs
from appliance.client.tunnel.full_tunnel import FullTunnel
from appliance.domain.errors import HostError
from appliance.network.wireguard import backend
from appliance.network.wireguard.backend import HostFacts

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What resolvconf(8) was told: its arguments, and its input."""
    program, file = tmp_path / "resolvconf", tmp_path / "said"
    program.write_text(f'#!/bin/sh\necho "$@" >{file}\ncat >>{file}\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.setattr(wg_quick_cleanup, "RESOLVCONF_ORDER", tmp_path / "interface-order")
    return file


def test_wg_quicks_resolver_is_exclusive(said: Path) -> None:
    """As wg-quick names them: exclusively, under the interface's name; none takes the entry away."""
    wg_quick_cleanup.set_resolvers("wgc0", ("192.0.2.53", "2001:db8::53"), os.environ)
    assert said.read_text() == "-a wgc0 -m 0 -x\nnameserver 192.0.2.53\nnameserver 2001:db8::53\n"
    wg_quick_cleanup.set_resolvers("wgc0", (), os.environ)
    assert said.read_text() == "-d wgc0 -f\n"


def test_resolvers_of_an_order(said: Path, tmp_path: Path) -> None:
    """Where resolvconf goes by the names of interfaces, it is the first that is a prefix."""
    (tmp_path / "interface-order").write_text("# order\nlo.inet\ntun*\ntap*\n")
    wg_quick_cleanup.set_resolvers("wgc0", ("192.0.2.53",), os.environ)
    assert said.read_text().startswith("-a tun.wgc0 ")


@pytest.mark.usefixtures("said")
def test_what_cannot_be_taken_away(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is said in the program's own words, once all that can be has been tried."""
    (tmp_path / "resolvconf").write_text("#!/bin/sh\necho busy >&2\nexit 1\n")
    monkeypatch.setattr(nft_guard, "remove", lambda *_: None)
    with pytest.raises(HostError, match="resolvconf -d wgc0 -f failed: busy"):
        wg_quick_cleanup.remove("wgc0", None, os.environ, print, resolvers=True)


def test_resolvconf_has_gone(tmp_path: Path) -> None:
    """Uninstalled meanwhile, and its entries with it: that keeps nothing from being cleared up."""
    wg_quick_cleanup.remove("wgc0", None, {"PATH": str(tmp_path)}, print, resolvers=True)


@pytest.mark.parametrize(
    ("wireguard_go", "tun_device", "said"),
    [
        (False, True, "no WireGuard: the kernel has no wireguard module and wireguard-go is not installed"),
        (True, False, "wireguard-go needs /dev/net/tun, and this host has none"),
    ],
)
def test_missing_wireguard_is_said_before_a_session(
    monkeypatch: pytest.MonkeyPatch, wireguard_go: bool, tun_device: bool, said: str
) -> None:
    """Said before a session is opened; who has chosen another implementation answers for it."""
    facts = HostFacts(True, False, wireguard_go, tun_device, None)
    monkeypatch.setattr(backend, "read_host", lambda _: facts)
    monkeypatch.setattr(shutil, "which", lambda name, **_: f"/usr/bin/{name}")
    with pytest.raises(HostError, match=said):
        FullTunnel("wgc0", {}, print).check()
    FullTunnel("wgc0", {"WG_QUICK_USERSPACE_IMPLEMENTATION": "boringtun"}, print).check()


@pytest.mark.parametrize(
    ("missing", "said"),
    [
        ((), ""),
        (("nft",), ""),
        (("iptables-restore",), ""),
        (("wg-quick",), "wg-quick is missing: apt-get install wireguard-tools"),
        (("ip", "sort"), "wg-quick needs ip, sort: apt-get install iproute2 coreutils"),
        (("wg", "sysctl"), "wg-quick needs wg, sysctl: apt-get install wireguard-tools procps"),
        (("nft", "iptables-restore"), "wg-quick needs nft or iptables .*: apt-get install nftables"),
        (("nft", "ip6tables-restore"), "wg-quick needs nft or iptables .*: apt-get install nftables"),
    ],
)
def test_what_wg_quick_needs(tmp_path: Path, missing: tuple[str, ...], said: str) -> None:
    """Named with its package before a session is opened, and with the way that needs none of it."""
    for program in ("wg-quick", *wg_quick_needs.PACKAGES, *chain(*wg_quick_needs.FILTERS)):
        if program not in missing:
            (tmp_path / program).touch(mode=0o755)
    context = pytest.raises(HostError, match=f"{said}; or run one .*: connect -- COMMAND") if said else nullcontext()
    with context:
        wg_quick_needs.check({"PATH": str(tmp_path)})


def test_wireguard_gos_banner_is_no_complaint() -> None:
    """Neither its advice, nor the commands that wg-quick prints, nor its remark on the kernel."""
    banner = "┌───┐\n│ Running wireguard-go is not required │\n└───┘\n"
    assert full_tunnel._complaint(f"[#] ip link add wgc0\n[!] Missing\n{banner}no nft") == "no nft"
