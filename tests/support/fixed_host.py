"""A host whose addresses never change: for an exit that is built without one."""

from __future__ import annotations


class FixedHost:
    """Implements `Host` (sessions/convergence.py)."""

    tunnel_mtu = 1420

    def __init__(self, public_ip: str = "192.0.2.1") -> None:
        self.public_ip = public_ip

    async def observe(self) -> str | None:
        return None
