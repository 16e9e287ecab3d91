"""Asks two addresses so many times a second, each time from a random port, as a resolver does.

Run as `busy_resolver.py ADDRESS ADDRESS6 A_SECOND` until it is ended. Sockets stay for a second.
"""

from __future__ import annotations

import socket
import sys
import time
from collections import deque


def main(address: str, address6: str, a_second: int) -> None:
    families = ((socket.AF_INET, address), (socket.AF_INET6, address6))
    waiting = deque[socket.socket]()
    began, asked = time.monotonic(), 0
    while True:
        family, resolver = families[asked % 2]
        waiting.append(socket.socket(family, socket.SOCK_DGRAM))
        waiting[-1].sendto(bytes(12), (resolver, 53))
        asked += 1
        if len(waiting) > a_second:
            waiting.popleft().close()
        time.sleep(max(0.0, began + asked / a_second - time.monotonic()))


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]))
