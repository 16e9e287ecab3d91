"""Reads whether this machine can have IPv6 in its tunnel."""

from __future__ import annotations

from pathlib import Path

IPV6 = Path("/proc/sys/net/ipv6/conf")


def ipv6_enabled() -> bool:
    """Tells whether new interfaces in this network namespace have IPv6; else wg-quick fails on a file with IPv6."""
    try:
        return all(
            (IPV6 / which / "disable_ipv6").read_text(encoding="ascii").strip() == "0" for which in ("all", "default")
        )
    except OSError:
        return False
