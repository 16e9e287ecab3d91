"""Packet filters of others that drop what clients send, or their handshakes: found, named, mended by the command."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.support.doctor.host_under_test import Diagnosis, Host

NFT_DROPS = """
table inet site {
  chain input { type filter hook input priority 0; policy drop; ct state established accept; tcp dport 22 accept; }
  chain forward { type filter hook forward priority 0; policy drop; }
}
"""


def statuses(diagnosis: Diagnosis) -> tuple[str, str]:
    return diagnosis["forward"].status, diagnosis["udp-filter"].status


def test_docker_is_opened_by_its_own_chain(host: Host) -> None:
    """Its policy drops what is forwarded; its own chain for users lets clients through. It leaves input alone."""
    host.load("docker.iptables")
    diagnosis = host.doctor()
    assert statuses(diagnosis) == ("failed", "ok")
    found = diagnosis["forward"]
    assert found.what == "Docker, chain FORWARD of table ip filter drops what clients send or receive"
    assert found.mend.startswith(
        f"iptables -I DOCKER-USER -i {host.interface} -j ACCEPT && iptables -I DOCKER-USER -o "
    )
    host.shell(found.mend.replace("iptables", "iptables-nft"))
    assert statuses(host.doctor()) == ("ok", "ok")


def test_ufw_is_opened_by_its_own_commands(host: Host) -> None:
    """Both IP versions of it drop; one command of its own for each fault, after which its rules let all through."""
    host.load("ufw.iptables", "ufw.ip6tables")
    diagnosis = host.doctor()
    assert statuses(diagnosis) == ("failed", "failed")
    assert diagnosis["forward"].what.startswith(
        "ufw, chain FORWARD of table ip filter, ufw, chain FORWARD of table ip6"
    )
    assert diagnosis["forward"].mend == f"ufw route allow in on {host.interface} out on wan"
    assert diagnosis["udp-filter"].mend == "ufw allow 51820/udp"
    host.nft("flush ruleset")
    host.load("ufw-mended.iptables", "ufw-mended.ip6tables")
    assert statuses(host.doctor()) == ("ok", "ok")


def test_firewalld_is_opened_by_its_own_commands(host: Host) -> None:
    """Rejects what no zone lets through; after its own commands its rules do."""
    host.load("firewalld.nft")
    diagnosis = host.doctor()
    assert statuses(diagnosis) == ("failed", "failed")
    reload = "firewall-cmd --reload"
    zone = f"firewall-cmd --permanent --zone=trusted --add-interface={host.interface}"
    assert diagnosis["forward"].mend == f"{zone} && {reload}"
    assert diagnosis["udp-filter"].mend == f"firewall-cmd --permanent --add-port=51820/udp && {reload}"
    host.nft("flush ruleset")
    host.load("firewalld-mended.nft")
    assert statuses(host.doctor()) == ("ok", "ok")


def test_nftables_of_the_operators(host: Host) -> None:
    """A ruleset written by hand: the chain is named, and rules in front of it let clients through."""
    host.nft(NFT_DROPS)
    diagnosis = host.doctor()
    assert statuses(diagnosis) == ("failed", "failed")
    assert diagnosis["forward"].what == "chain forward of table inet site drops what clients send or receive"
    host.shell(diagnosis["forward"].mend)
    host.shell(diagnosis["udp-filter"].mend)
    assert statuses(host.doctor()) == ("ok", "ok")


@pytest.mark.parametrize("program", ["iptables", "ip6tables"])
def test_iptables_of_the_operators(host: Host, program: str) -> None:
    """The same with iptables, for each IP version; that of the handshakes is IPv4 here."""
    host.shell(f"{program}-nft -P FORWARD DROP; {program}-nft -P INPUT DROP")
    diagnosis = host.doctor()
    assert statuses(diagnosis) == ("failed", "failed" if program == "iptables" else "ok")
    for check in ("forward", "udp-filter"):
        if diagnosis[check].mend:
            host.shell(diagnosis[check].mend.replace(program, f"{program}-nft"))
    assert statuses(host.doctor()) == ("ok", "ok")


@pytest.mark.parametrize("program", ["iptables-legacy", "ip6tables-legacy"])
def test_iptables_legacy_of_the_operators(host: Host, program: str) -> None:
    """Its rules are in tables of their own, which nft does not show, and what mends them has to go there too."""
    if host.space.run(program, "-S", check=False).returncode != 0:
        pytest.skip("this kernel has no iptables-legacy")
    host.shell(f"{program} -P FORWARD DROP; {program} -P INPUT DROP")
    diagnosis = host.doctor()
    assert statuses(diagnosis) == ("failed", "failed" if program == "iptables-legacy" else "ok")
    assert diagnosis["forward"].what == f"chain FORWARD of {program} drops what clients send or receive"
    for check in ("forward", "udp-filter"):
        host.shell(diagnosis[check].mend or "true")
    assert statuses(host.doctor()) == ("ok", "ok")


def test_rules_that_are_not_understood(host: Host) -> None:
    """Whether they drop cannot be told: a warning, and the exit status stays as it was."""
    host.shell("iptables-nft -A FORWARD -m statistic --mode random --probability 0.5 -j DROP")
    found = host.doctor()["forward"]
    assert found.status == "warning"
    assert "may drop what clients send or receive; some of its rules are not understood here" in found.what


def test_our_own_table_is_no_obstacle(served: Host) -> None:
    """What the operator blocks for clients is meant to be blocked."""
    served.appliance.stop()
    served.appliance.configure(egress={"extra_block": ["0.0.0.0/0"]}, wireguard={"keep_on_exit": True})
    served.appliance.start()
    assert served.doctor()["forward"].status == "ok"
    served.appliance.stop()
    served.appliance.configure(wireguard={"keep_on_exit": False})
    served.appliance.start()
