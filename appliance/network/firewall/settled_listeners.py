"""Tells services of the host from sockets that come and go: which ports have a listener, over time. Pure.

A resolver opens an unconnected UDP socket on a random port for each question. If each of them moved the range of
clients' ports, it would never rest. So a listener counts once it has stayed, longer where ports are given at random.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Collection

    from appliance.network.netlink.sock_diag import ListeningSocket

UDP = 17
STAYS_S = 60.0  # a port among those that the host takes at random counts after this; any is free this long after
# Looks in a row that have seen some UDP socket on a port: a service may connect the socket to each new peer, and listen
# by another one from then on (socat's UDP-LISTEN with fork, DTLS). Fewer may meet as many questions of a resolver's.
SUCCESSIVE_LOOKS = 4

Port = tuple[int, int]  # protocol, port


class SettledListeners:
    """Follows the host's listeners from look to look.

    At the first look all count. Afterwards a TCP listener counts at once, an unconnected UDP socket when two looks have
    seen the same one, or more of them one after the other; either within the host's own range of random ports when it
    has been there for STAYS_S.
    A port stays taken for STAYS_S without a listener: a service that restarts finds it as it left it.
    """

    def __init__(self) -> None:
        self._seen: frozenset[ListeningSocket] | None = None
        self._since = dict[Port, float]()  # when the port was first seen, of those that every look since has seen
        self._looks = dict[Port, int]()  # by how many looks in a row it was seen
        self._last = dict[Port, float]()  # when a settled port was last seen

    def look(self, seen: Collection[ListeningSocket], ephemeral: Collection[int], now: float) -> frozenset[Port]:
        """Returns the ports that are taken. `ephemeral`: the ports that the host takes at random; `now` in seconds."""
        ports = {(listener.protocol, listener.port) for listener in seen}
        self._since = {port: self._since.get(port, now) for port in ports}
        self._looks = {port: self._looks.get(port, 0) + 1 for port in ports}
        for listener in seen:
            port = (listener.protocol, listener.port)
            if port in self._last or self._seen is None or self._stays(listener, ephemeral, now):
                self._last[port] = now
        self._last = {port: last for port, last in self._last.items() if now - last < STAYS_S}
        self._seen = frozenset(seen)
        return frozenset(self._last)

    def _stays(self, listener: ListeningSocket, ephemeral: Collection[int], now: float) -> bool:
        if listener.port in ephemeral:
            return now - self._since[listener.protocol, listener.port] >= STAYS_S
        if listener.protocol != UDP or (self._seen is not None and listener in self._seen):
            return True
        return self._looks[listener.protocol, listener.port] >= SUCCESSIVE_LOOKS
