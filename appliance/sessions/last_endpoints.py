"""Remembers, in memory alone, where peers were last seen that are to be put back."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable
    from collections.abc import Set as AbstractSet

    from appliance.network.wireguard.tunnel import Dump, SocketAddress

# Of so many the endpoints are kept one by one. Of more, as Python objects they would take 250 bytes each, and the dump
# that shows them is kept.
MOST_KEPT = 1000
# Interfaces may go one after another, each with peers that the next has not got back.
MOST_DUMPS = 2


class LastEndpoints:
    """Holds the endpoints of peers that a dump has shown and the latest one lacks, until they are there again or their
    session ends; and of devices that are held, until they are let go and there again."""

    def __init__(self) -> None:
        self._latest: Dump | None = None
        self._read: tuple[Dump | None, AbstractSet[bytes]] | None = None  # what comes next, and who has none in it
        self._kept: dict[bytes, SocketAddress] = {}
        self._dumps: tuple[Dump, ...] = ()  # the last one first
        self._ended: set[bytes] = set()  # of sessions that the dumps above may still show
        self._held: dict[bytes, SocketAddress] = {}
        self._let_go: set[bytes] = set()  # those of `_held` that are to be there again

    def get(self, public_key: bytes) -> SocketAddress | None:
        """Returns where a peer was last seen, up to the last but one `read`; None: it is not known."""
        if public_key in self._held:
            return self._held[public_key]
        if public_key in self._ended:
            return None
        for dump in (self._latest, *self._dumps):
            if dump is not None and public_key in dump.peers:
                endpoint = dump.peers[public_key].endpoint
                if endpoint is not None:
                    return endpoint
        return self._kept.get(public_key)

    def read(self, dump: Dump | None, without: AbstractSet[bytes]) -> None:
        """Takes a dump, which becomes the latest with `advance`; None: there is no interface. `without`: the sessions
        that are to have an endpoint and have none in it.

        If there are none, it is the latest at once, so that no earlier one is held, and what was kept is forgotten.
        """
        for key in () if dump is None else [key for key in self._let_go if self._shows(dump, key)]:
            self.forget(key)
        if without:
            self._read = (dump, without)
            return
        self._latest, self._kept, self._dumps = dump, {}, ()
        self._ended.clear()

    def advance(self, ended: Iterable[bytes]) -> None:
        """Makes the dump that was read last the latest. `ended`: the keys whose sessions have ended since it was read.

        What was returned for those that are put back holds until then.
        """
        if self._read is not None:
            (dump, without), self._read = self._read, None
            self._keep(without)
            self._latest = dump
        if not self._dumps:
            self._ended.clear()
        for key in ended:
            self._kept.pop(key, None)
            self._ended.add(key)

    def hold(self, public_key: bytes) -> None:
        """Keeps where the peer of a device was last seen, whose session may have ended; it goes, or has gone."""
        self._let_go.discard(public_key)
        endpoint = self.get(public_key)
        if endpoint is not None:
            self._held[public_key] = endpoint

    def let_go(self, public_key: bytes) -> None:
        """Notes that the peer of a device comes back: what is known holds until a dump shows where it is."""
        if public_key in self._held:
            self._let_go.add(public_key)

    def forget(self, public_key: bytes) -> None:
        """Forgets a device, which was held."""
        self._held.pop(public_key, None)
        self._let_go.discard(public_key)

    def _keep(self, without: AbstractSet[bytes]) -> None:
        if len(without) > MOST_KEPT:
            self._kept = {key: endpoint for key, endpoint in self._kept.items() if key in without}
            if self._latest is not None and any(self._shows(self._latest, key) for key in without):
                self._dumps = (self._latest, *self._dumps)[:MOST_DUMPS]
            return
        found = ((key, self.get(key)) for key in without)
        self._kept = {key: endpoint for key, endpoint in found if endpoint is not None}
        self._dumps = ()

    @staticmethod
    def _shows(dump: Dump, public_key: bytes) -> bool:
        return public_key in dump.peers and dump.peers[public_key].endpoint is not None
