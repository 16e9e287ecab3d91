"""Provides the tables that dumps of one device are read into, and compares the peers of each with those before."""

from __future__ import annotations

from weakref import finalize

from appliance.domain.errors import TunnelError
from appliance.network.wireguard.peer_table import Peers, PeerTable, TableCapacity

INITIAL_CAPACITY = TableCapacity(peers=256, allowed_ips=1024)
# The kernel holds no more than 2^20 peers: MAX_PEERS_PER_DEVICE in drivers/net/wireguard/messages.h. wireguard-go holds
# 2^16: MaxPeers in device/constants.go.
MAX_CAPACITY = TableCapacity(peers=1 << 20, allowed_ips=1 << 22)


class DumpTables:
    """Reuses the memory of freed dumps: allocating it anew for each takes time. One thread at a time."""

    def __init__(self, initial: TableCapacity = INITIAL_CAPACITY, maximum: TableCapacity = MAX_CAPACITY) -> None:
        self._capacity = initial
        self._maximum = maximum
        self._peers: Peers | None = None  # of the previous dump
        self._spare: list[PeerTable] = []  # tables of dumps that have been freed

    def table(self) -> PeerTable:
        """Returns a table of a freed dump, or a new one."""
        spare = self._spare.pop() if self._spare else None
        self._spare.clear()
        return spare if spare is not None and spare.capacity == self._capacity else PeerTable(self._capacity)

    def peers(self, table: PeerTable) -> Peers:
        """Returns the peers of a dump that was read whole. Raises MalformedDump if a peer appears twice."""
        self._peers = peers = Peers(table, self._peers)
        finalize(peers, self._spare.append, table).atexit = False
        return peers

    def grow(self, full: PeerTable) -> TableCapacity:
        """Makes further tables larger than one that was too small, and returns their capacity.

        Raises TunnelError if the device has more peers or allowed-ips than the largest tables hold.
        """
        capacity, most = full.grown_capacity(), self._maximum
        if capacity.peers > most.peers or capacity.allowed_ips > most.allowed_ips:
            raise TunnelError(f"the device holds more than {most.peers} peers or {most.allowed_ips} allowed-ips")
        self._capacity = capacity
        return capacity
