"""What has to hold of devices, by the contract: see its section "Devices"."""

from __future__ import annotations

import asyncio
from collections import Counter, defaultdict
from typing import TYPE_CHECKING, Any

from appliance.domain import accounting, quota
from appliance.domain.entities import Reason, State
from appliance.network.exit_node import build_exit
from appliance.store.queries import devices as device_rows
from appliance.store.queries import node as node_row
from tests.support.faults.device_steps import DEVICE_KEYS
from tests.support.faults.violations import require
from tests.support.faults.world import SERVER_KEY

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from appliance.domain.device import Device
    from appliance.domain.entities import Account, Session
    from appliance.network.wireguard.tunnel import PeerState
    from appliance.store.queries.node import NodeRow
    from tests.support.faults.world import World

RELEASED_WITHIN = 100  # turns of the event loop


class DeviceInvariants:
    def __init__(self, world: World) -> None:
        self._world = world
        self.keys: set[bytes] = set()
        self._known: dict[str, Session] = {}  # sessions of devices, as they were last seen
        # Until when a handshake let the tunnel carry (CLOCK_BOOTTIME), as its session had it last.
        self._carried_until: dict[tuple[bytes, int], int] = {}
        self._expired: list[Session] = []  # those that the last step ended so

    async def check(self, db: Any, found: Sequence[Session], to_undo: Collection[bytes]) -> None:
        """After every step. `found`: all sessions. `to_undo`: keys whose peers nobody was told of."""
        devices, node = await device_rows.newest(db, None, 0), await node_row.read(db)
        self.keys = {d.public_key for d in devices}
        self._totals(db, found)
        self._sessions(found)
        unfinished = [s for s in found if s.state is not State.TERMINATED]
        self._addresses(devices, unfinished)
        if node.requested == node.applied:
            self._obeyed(devices, unfinished, to_undo)
            self._memory(devices)

    async def settled(self, db: Any, unfinished: Sequence[Session], accounts: Mapping[str, Account]) -> None:
        """After ticks without a fault, in which at last no time passed."""
        world = self._world
        devices, node = await device_rows.newest(db, None, 0), await node_row.read(db)
        own = {s.device_id: s for s in unfinished if s.device_id}
        may = {d.id: self._may_connect(d, accounts[d.account_id], unfinished, node) for d in devices}
        wanted = {s.public_key for s in unfinished} | {d.public_key for d in devices if may[d.id] and d.id not in own}
        peers = world.kernel.peers
        require(
            wanted == peers.keys(),
            "who may connect has a peer, and nobody else",
            may,
            own,
            _short(wanted, peers.keys()),
        )
        expired = {(s.public_key, s.handshake_seen_ns) for s in self._known.values() if s.reason is Reason.EXPIRED}
        for d in devices:
            peer = peers.get(d.public_key)
            until = None if peer is None else world.ledger.carried.known_until(d.public_key, peer.last_handshake_ns)
            carries = until is not None and until > world.host.ran_ms
            if peer is not None and (d.public_key, peer.last_handshake_ns) in expired:
                # A handshake of unknown time counts from the earliest: the next session of one that has expired has
                # what that one has left.
                carries &= self._carried_until.get((d.public_key, peer.last_handshake_ns), 0) > world.host.boot_ms
            require(d.id in own or not carries, "while a device's tunnel can carry, it has a session", d)
        exit_ = build_exit(world.settings.wireguard, SERVER_KEY)
        rightful = {x.public_key: exit_.peer(x) for x in (*devices, *unfinished)}
        for key, peer in peers.items():
            require(peer.allowed_ips == rightful[key].allowed_ips, "a peer has its address", peer, rightful[key])
        self._went_on(devices, may)
        world.asked.clear()
        await self._released({x.address_offset for x in (*devices, *unfinished)})

    # After every step --------------------------------------------------------------------------------

    def _totals(self, db: Any, found: Sequence[Session]) -> None:
        sums: defaultdict[str, Counter[str]] = defaultdict(Counter)
        for s in found:
            if s.device_id and s.state is State.TERMINATED:
                sums[s.device_id].update(bytes_in=s.bytes_in, bytes_out=s.bytes_out, counted_ms=s.counted_ms)
        named = {s.device_id for s in found if s.device_id}
        stored = {row["id"]: row for row in db._inner.execute("SELECT * FROM devices").fetchall()}
        require(named <= stored.keys(), "the device of each session is known", named - stored.keys())
        for device_id, row in stored.items():
            own = sums[device_id]
            totals = {name: row[name] for name in ("bytes_in", "bytes_out", "counted_ms")}
            require(totals == {name: own[name] for name in totals}, "totals are its sessions'", totals, own)
            left = row["removed_at"] is None or device_id in named
            require(left, "nothing is left of a removed device without sessions", device_id)

    def _sessions(self, found: Sequence[Session]) -> None:
        carried = self._world.ledger.carried
        self._expired = []
        unfinished = Counter(s.device_id for s in found if s.device_id and s.state is not State.TERMINATED)
        require(all(many == 1 for many in unfinished.values()), "a device has one session at most", unfinished)
        for s in found:
            if not s.device_id:
                continue
            was = self._known.get(s.id)
            if was is None:
                require(
                    carried.has_shaken(s.public_key, s.handshake_seen_ns),
                    "a handshake opens a device's session",
                    s.handshake_seen_ns,
                    s,
                )
                same = [x for x in found if _same_handshake(x, s) and not _goes_on(x, s)]
                require(not same, "a handshake opens one session", s, same)
            if (
                s.reason is Reason.EXPIRED
                and s.state is State.TERMINATED
                and (was is None or was.terminated_at is None)
            ):
                self._expired.append(s)
        self._known = {s.id: s for s in found if s.device_id}
        self._carried_until |= {
            (s.public_key, s.handshake_seen_ns): s.carries_until_ms
            for s in found
            if s.device_id and s.state is not State.TERMINATED
        }

    def _addresses(self, devices: Sequence[Device], unfinished: Sequence[Session]) -> None:
        offsets = [d.address_offset for d in devices]
        require(len(set(offsets)) == len(offsets), "an address is one device's", offsets)
        ids = {d.address_offset: d.id for d in devices}
        for s in unfinished:
            holder = ids.get(s.address_offset, s.device_id)
            require(holder == s.device_id, "a device's address is no other's", s, holder)

    def _obeyed(self, devices: Sequence[Device], unfinished: Sequence[Session], to_undo: Collection[bytes]) -> None:
        """An admin was told that it is done."""
        may = {d.public_key for d in devices if not d.paused and not d.account_disabled}
        kernel = self._world.kernel
        # What has shaken hands before it was held gets a session, which ends at once.
        may |= {d.public_key for d in devices if _has_shaken(kernel.peers.get(d.public_key))}
        left = (
            (kernel.peers.keys() & set(DEVICE_KEYS))
            - may
            - {s.public_key for s in unfinished}
            - set(to_undo)
            - kernel.hidden
        )
        left -= self._world.asked
        keys = {d.id: d.public_key for d in devices if d.public_key in may}
        late = [
            s for s in unfinished if s.device_id and s.state is State.LIVE and keys.get(s.device_id) != s.public_key
        ]
        require(not late, "no session of what is removed, rotated, paused or disabled", late)
        require(not left, "what is removed, rotated, paused or disabled has no peer", left)

    def _memory(self, devices: Sequence[Device]) -> None:
        parts = self._world.parts
        if parts is None or not parts.live.in_sync or parts.records.ended:
            return
        known, stored = {d.id: d for d in parts.records.devices}, {d.id: d for d in devices}
        require(known == stored, "devices in memory are the store's", known, stored)

    # When things have settled ------------------------------------------------------------------------

    def _may_connect(self, d: Device, account: Account, unfinished: Sequence[Session], node: NodeRow) -> bool:
        """What the contract says of a device; one that is connected may stay."""
        if account.disabled or d.paused:
            return False
        if any(s.device_id == d.id for s in unfinished):
            return True  # who has to end has ended by now
        world, now = self._world, self._world.now()
        tier = world.settings.tiers[account.tier]
        own = [s for s in unfinished if s.account_id == account.id]
        used = quota.measure(account, tier, accounting.unspent(own, node.heartbeat, now), now.wall_ms)
        full = 0 < tier.max_live_sessions <= len(own)
        return not (node.drained or used.exceeded or full)

    def _went_on(self, devices: Sequence[Device], may: Mapping[str, bool]) -> None:
        """`max_session` has ended a session while its tunnel could carry: the next begins at the same instant."""
        world = self._world
        for s in self._expired:
            held = not any(d.public_key == s.public_key and may[d.id] for d in devices)
            until = world.ledger.carried.known_until(s.public_key, s.handshake_seen_ns)
            if held or until is None or until <= world.host.ran_ms or s.public_key not in world.kernel.peers:
                continue
            began = [x.created_at for x in self._known.values() if x.public_key == s.public_key]
            require(s.terminated_at in began, "the next session begins at the same instant", s, began)

    async def _released(self, taken: set[int]) -> None:
        parts = self._world.parts
        assert parts is not None
        for _ in range(RELEASED_WITHIN):  # in the background
            if parts.pool.in_use == len(taken):
                break
            await asyncio.sleep(0)
        require(parts.pool.in_use == len(taken), "addresses taken", parts.pool.in_use, taken)


def _has_shaken(peer: PeerState | None) -> bool:
    return peer is not None and peer.last_handshake_ns > 0


def _goes_on(before: Session, after: Session) -> bool:
    """Whether a session may follow on another without a new handshake: as `max_session` ended that one.

    Where another process had it end for another reason, just before the server has found that it expired, its row keeps
    that reason, which ends the next one at once.
    """
    if Reason.EXPIRED in (before.reason, after.reason):
        return True
    ended, ends_at_once = before.terminated_at, after.state is not State.LIVE and after.reason is before.reason
    return ended is not None and ended >= before.expires_at and ends_at_once


def _same_handshake(a: Session, b: Session) -> bool:
    return a.id != b.id and (a.public_key, a.handshake_seen_ns) == (b.public_key, b.handshake_seen_ns)


def _short(wanted: Collection[bytes], peers: Collection[bytes]) -> str:
    return f"wanted {sorted(key[0] for key in wanted)}, peers {sorted(key[0] for key in peers)}"
