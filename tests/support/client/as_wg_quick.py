"""What wg-quick(8) makes beside its interface, made by hand in a network namespace of the test's."""

from __future__ import annotations

import subprocess
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tests.support.netns import Namespace

MARK = 51820
FAMILIES = ("-4", "-6")


def ip(space: Namespace, *words: str) -> str:
    done = space.run("ip", *words)
    assert done.returncode == 0, done.stderr
    return done.stdout


def rules(space: Namespace) -> list[str]:
    """Of routing."""
    return [line for family in FAMILIES for line in ip(space, family, "rule").splitlines()]


def add_pair(space: Namespace, mark: int = MARK, families: tuple[str, ...] = FAMILIES) -> None:
    for family in families:
        ip(space, family, "rule", "add", "not", "fwmark", str(mark), "table", str(mark))
        ip(space, family, "rule", "add", "table", "main", "suppress_prefixlength", "0")


def add_iptables(program: str, interface: str, address: str) -> None:
    """In this thread's namespace, as where there is no nft."""
    comment = f'-m comment --comment "wg-quick(8) rule for {interface}"'
    script = (
        f"*raw\n-I PREROUTING ! -i {interface} -d {address} -m addrtype ! --src-type LOCAL -j DROP {comment}\nCOMMIT\n"
        f"*mangle\n-I POSTROUTING -m mark --mark {MARK} -p udp -j CONNMARK --save-mark {comment}\n"
        f"-I PREROUTING -p udp -j CONNMARK --restore-mark {comment}\nCOMMIT\n"
    )
    subprocess.run([f"{program}-restore", "-n"], input=script, text=True, check=True, timeout=60)


def iptables(program: str) -> list[str]:
    shown = subprocess.run([f"{program}-save"], capture_output=True, text=True, check=True, timeout=60).stdout
    return [line for line in shown.splitlines() if line.startswith("-A")]
