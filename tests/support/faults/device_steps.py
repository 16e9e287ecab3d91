"""What can happen to devices: what an admin does to them, and what their clients send."""

from __future__ import annotations

from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from appliance.cli import device_changes
from appliance.cli.parameters import DeviceName
from appliance.domain.entities import Account, Reason
from appliance.sessions.opening import SessionRequest
from appliance.store.queries import accounts as account_rows
from appliance.store.queries import device_rules
from appliance.store.queries import devices as device_rows
from appliance.store.queries import node as node_row
from appliance.store.queries import sessions as rows

if TYPE_CHECKING:
    from random import Random

    import aiosqlite

    from appliance.domain.device import Device
    from appliance.server.assembly import Parts
    from tests.support.faults.world import World

ENDPOINT = "192.0.2.1:51820"
# A phone that shakes hands and never completes: bytes the exit received and sent in 12 s, without a handshake.
UNFINISHED = (444, 276)
DEVICE_KEYS = [bytes([100 + number]) * 32 for number in range(10)]
SMALL = (0, 0, 1, 700, 1500, 9000)
NAMES = ("phone", "laptop", "tablet")


def any_key(random: Random) -> bytes:
    """Few keys, so that they come back; now and then one that sessions without a device have."""
    return random.choice(DEVICE_KEYS) if random.random() < 0.95 else bytes([200 + random.randrange(9)]) * 32


async def prepare(world: World) -> None:
    """Some devices are there from the beginning."""
    async with world.admin.write() as db:
        for account, key in (("bob", DEVICE_KEYS[0]), ("cyd", DEVICE_KEYS[1]), ("dan", DEVICE_KEYS[2])):
            await device_changes.add(db, _admin(world), DeviceName(account, NAMES[0]), key, ENDPOINT)


async def add(world: World, random: Random) -> None:
    account = random.choice(list(world.account_ids))
    name, key = DeviceName(account, random.choice(NAMES)), any_key(random)
    async with world.admin.write() as db:
        await device_changes.add(db, _admin(world), name, key, ENDPOINT)
        await node_row.request(db)


async def change(world: World, random: Random) -> None:
    """One is paused, resumed, given another key, or removed."""
    async with world.admin.write() as db:
        devices = await device_rows.newest(db, None, 0)
        if devices:
            await _change(db, random.choice(devices), world, random)
            await node_row.request(db)


async def _change(db: aiosqlite.Connection, device: Device, world: World, random: Random) -> None:
    luck = random.random()
    if device.paused and luck < 0.6:
        await device_rows.pause(db, device.id, paused=False)
    elif luck < 0.3:
        await device_rows.pause(db, device.id, paused=True)
        await device_rules.end_session(db, device.id, Reason.PAUSED)
    elif luck < 0.75:
        await device_changes.rotate(db, device, any_key(random), ENDPOINT)
        world.ledger.dropped(device.public_key)
    else:
        world.ledger.dropped(device.public_key)
        await device_rules.end_session(db, device.id, Reason.CLOSED)
        await device_rows.remove(db, [device.id], world.now().wall_ms)


async def delete_account(db: aiosqlite.Connection, account: Account, world: World) -> None:
    """The account is deleted, with what it has; another one gets its name."""
    now = world.now().wall_ms
    own = await rows.unfinished_of(db, account.id)
    await account_rows.delete(db, account.id, now)
    await rows.mark_closing(db, [s.id for s in own], Reason.ADMIN)
    for device in await device_rows.newest(db, account.id, 0):
        world.ledger.dropped(device.public_key)
    await device_rows.remove_of(db, account.id, now)
    world.deleted += 1
    another = f"acc_{account.name}{world.deleted}"
    await account_rows.insert(db, Account(another, account.name, account.tier, False, now))
    world.account_ids[account.name] = another


def _admin(world: World) -> Any:
    """What `device add` asks of its command."""
    return SimpleNamespace(settings=world.settings, now=world.now().wall_ms)


async def ask(world: World, parts: Parts, random: Random) -> None:
    """Over the API: an owner adds a device, pauses it or lets it go, gives it another key, or removes it."""
    account, service = await world.account(random.choice(list(world.account_ids))), parts.services.devices
    own = [device for device in parts.records.devices if device.account_id == account.id]
    luck = random.random()
    if not own or luck < 0.25:
        key = any_key(random)
        world.asked.add(key)
        await service.add(account, random.choice(NAMES), SessionRequest("fsn", key))
        return
    device = random.choice(sorted(own, key=lambda device: device.public_key))
    if luck < 0.5:
        await service.edit(account, device.id, name=None, paused=not device.paused)
    elif luck < 0.75:
        key = any_key(random)
        world.asked.add(key)
        await service.rotate(account, device.id, key, None, b"")
    else:
        await service.remove(account, device.id)


def send(world: World, key: bytes, random: Random, sizes: tuple[int, ...], *, handshake: bool) -> None:
    """A device's client sends as far as its tunnel lets it: without keys, only calls that come to nothing."""
    if handshake:
        world.kernel.traffic(key, 148 + random.choice(sizes), 92 + random.choice(sizes), handshake=True)
    elif world.kernel.can_carry(key) and random.random() < 0.8:
        world.kernel.traffic(key, random.choice(sizes), random.choice(sizes))
    else:
        world.kernel.traffic(key, *UNFINISHED)
