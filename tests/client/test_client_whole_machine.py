"""What becomes of wg-quick's work where wg-quick does not do it, in a network namespace without a tunnel."""

from __future__ import annotations

import re
import shutil
from contextlib import nullcontext
from typing import TYPE_CHECKING

import pytest

from appliance.client import run_records
from appliance.client.tunnel.full_tunnel import FullTunnel
from appliance.client.tunnel.wg_config import parse, render
from tests.support.client.as_wg_quick import MARK, add_iptables, add_pair, ip, iptables, rules
from tests.support.client.scripted_api import CONFIG

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.netns import Namespace

NAME = "wgc0"
KEY = bytes(range(32))
OTHER_ADDRESS = CONFIG.replace("10.101.0.2", "10.101.0.9")
PROGRAMS = ("nft", "iptables-save", "iptables-restore", "ip6tables-save", "ip6tables-restore")


class DiallingDevice:
    """Stands in for a WireGuard device, and dials without one."""

    def dial(self, remote: object) -> None: ...


@pytest.fixture
def environ(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """The programs that may be run, without wg-quick among them; and our own secret beside it."""
    for name in PROGRAMS:
        found = shutil.which(name)
        if found is not None:
            (tmp_path / name).symlink_to(found)
    monkeypatch.setenv("WG_APPLIANCE_TOKEN", "secret")
    return {"PATH": str(tmp_path)}


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """As a run has left it."""
    monkeypatch.setattr(run_records, "FOLDER", tmp_path)
    monkeypatch.setattr(
        "appliance.client.tunnel.full_tunnel.existing_device", lambda _name: nullcontext(DiallingDevice())
    )
    (tmp_path / f"{NAME}.conf").write_text(CONFIG)
    return tmp_path / f"{NAME}.conf"


@pytest.fixture
def interface(space: Namespace) -> None:
    ip(space, "link", "add", NAME, "mtu", "1380", "type", "veth", "peer", "name", "far")
    ip(space, "address", "add", "10.101.0.2/32", "dev", NAME)
    ip(space, "link", "set", NAME, "up")


@pytest.mark.usefixtures("interface")
def test_wg_quick_has_gone(space: Namespace, config: Path, environ: dict[str, str]) -> None:
    """Somebody has uninstalled it: the interface and its rules go without it, and it is said."""
    before = rules(space)
    add_pair(space)
    said: list[str] = []
    assert FullTunnel(NAME, environ, said.append, mark=MARK).down() == []
    assert said == [f"wg-quick is not installed; taking {NAME} away without it"]
    assert rules(space) == before
    assert NAME not in ip(space, "link")
    assert not config.exists()


@pytest.mark.usefixtures("interface")
@pytest.mark.parametrize("odd", [b"\xff\xfe\0", b"DNS = \x80\x81\n", b"[Interface]\r\n\xf0\x9f", b"\0" * 4096, b""])
def test_a_file_of_odd_bytes(space: Namespace, config: Path, environ: dict[str, str], odd: bytes) -> None:
    """As a full disk or another program has left it: all goes that goes with a whole one."""
    before = rules(space)
    add_pair(space)
    config.write_bytes(odd)
    assert FullTunnel(NAME, environ, print, mark=MARK).down() == []
    assert rules(space) == before
    assert NAME not in ip(space, "link")
    assert not config.exists()


def test_the_mark_of_another(space: Namespace, config: Path, environ: dict[str, str]) -> None:
    """The interface of a killed run has vanished, and a tunnel of the user's has its mark now: that is no failure, the
    tunnel keeps its rules, and it is said."""
    add_pair(space)
    add_pair(space)
    ip(space, "route", "add", "default", "dev", "lo", "table", str(MARK))
    before = rules(space)
    said: list[str] = []
    assert FullTunnel(NAME, environ, said.append, mark=MARK).down() == []
    assert (rules(space), config.exists()) == (before, False)
    assert said == [f"another tunnel has taken the mark {MARK} meanwhile: the rules of routing for it stay"]


@pytest.mark.usefixtures("space", "config")
def test_iptables_rules_go_with_a_vanished_interface(environ: dict[str, str]) -> None:
    """The interface has vanished: its rules of iptables go, in both families; another tunnel's stay."""
    if shutil.which("iptables-save") is None:
        pytest.skip("NOT TESTED: there is no iptables")
    add_iptables("iptables", "wgc01", "10.101.0.7")
    others = iptables("iptables")
    add_iptables("iptables", NAME, "10.101.0.2")
    add_iptables("ip6tables", NAME, "fd65:7869:7400::2")
    assert FullTunnel(NAME, environ, print, mark=MARK).down() == []
    assert (iptables("iptables"), iptables("ip6tables")) == (others, [])


@pytest.mark.usefixtures("interface", "config")
def test_another_address_without_nft(environ: dict[str, str]) -> None:
    """The new one is guarded, the old one is not any more; one that stays, and what keeps the mark, are as before."""
    if shutil.which("iptables-save") is None:
        pytest.skip("NOT TESTED: there is no iptables")
    add_iptables("iptables", NAME, "10.101.0.2")
    add_iptables("ip6tables", NAME, "fd65:7869:7400::2")
    before, before6 = iptables("iptables"), iptables("ip6tables")
    FullTunnel(NAME, environ, print, mark=MARK).change(parse(CONFIG, ipv6=True), parse(OTHER_ADDRESS, ipv6=True))
    assert iptables("iptables") == [line.replace("10.101.0.2", "10.101.0.9") for line in before]
    assert iptables("ip6tables") == before6


@pytest.mark.usefixtures("interface")
@pytest.mark.parametrize(
    ("before", "after", "mtu"), [("", "", 1380), ("MTU = 1420\n", "MTU = 1400\n", 1400), ("MTU = 1400\n", "", 1380)]
)
def test_an_mtu_that_wg_quick_found_stays(
    space: Namespace, config: Path, environ: dict[str, str], before: str, after: str, mtu: int
) -> None:
    """Where the new file names none, what the interface has stays; what another file says counts."""
    files = CONFIG.replace("MTU = 1420\n", before), OTHER_ADDRESS.replace("MTU = 1420\n", after)
    FullTunnel(NAME, environ, print, KEY, MARK).change(*(parse(file, ipv6=True) for file in files))
    assert config.read_text() == render(parse(files[1], ipv6=True), KEY)
    shown = ip(space, "address", "show", "dev", NAME)
    assert f"mtu {mtu} " in shown
    assert re.findall(r"inet (\S+)", shown) == ["10.101.0.9/32"]


@pytest.mark.usefixtures("config")
def test_programs_are_not_told_the_token(tmp_path: Path, environ: dict[str, str]) -> None:
    """They have the environment that wg-quick has."""
    (tmp_path / "wg").write_text(f"#!/bin/sh\nexport -p >{tmp_path}/environment\necho 0xca6c\n")
    (tmp_path / "wg").chmod(0o755)
    assert FullTunnel(NAME, environ, print).mark() == MARK
    assert "secret" not in (tmp_path / "environment").read_text()
