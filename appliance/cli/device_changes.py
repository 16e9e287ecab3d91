"""Adds devices to the store, finds and changes them, in the transaction of an admin command."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

from msgspec.structs import replace

from appliance.cli import kept_accounts
from appliance.domain import device_name, ids
from appliance.domain.device import NOTHING, Device
from appliance.domain.entities import Account, Reason
from appliance.domain.errors import (
    Conflict,
    DeviceLimitReached,
    DeviceNameTaken,
    HostError,
    KeyInUse,
    NotFound,
    SubnetExhausted,
)
from appliance.domain.tiers import Tier
from appliance.network.address_pool import EXIT_OFFSET
from appliance.sessions import identity
from appliance.store.queries import accounts as account_rows
from appliance.store.queries import device_rules, fleet_state
from appliance.store.queries import devices as rows
from appliance.store.queries import node as node_row
from appliance.store.queries import sessions as session_rows

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    import aiosqlite

    from appliance.cli.admin import Admin
    from appliance.cli.parameters import DeviceName
    from appliance.domain.errors import ApplianceError


T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class AdmittedDevice:
    """Holds the account that may have another device, and how it is to be called.

    `count`: how many it has, of `most`, 0 for any number.
    """

    account: Account
    is_new: bool
    name: str
    count: int
    most: int


@dataclass(frozen=True, slots=True)
class Added:
    """Holds a new device. `number`: how many its account has now, of `most`, 0 for any number."""

    device: Device
    account_is_new: bool
    number: int
    most: int


async def admit(
    db: aiosqlite.Connection, a: Admin, name: DeviceName, public_key: bytes, new_id: str = ""
) -> AdmittedDevice:
    """Returns for which account a device may be added. Raises the error that says why it cannot be.

    `new_id`: of the account, if it is new, and kept here.
    """
    checked = device_name.checked(name.device)
    owner, is_new = await _owner(db, a, name.account, new_id)
    most, count = a.settings.tiers[owner.tier].max_devices, await rows.count_of(db, owner.id)
    refused = await device_rules.refusal(db, owner.id, public_key=public_key, name=checked, most=most)
    if refused is not None:
        raise _in_words(refused, owner, checked, count)
    return AdmittedDevice(owner, is_new, checked, count, most or 0)


async def add(
    db: aiosqlite.Connection, a: Admin, name: DeviceName, public_key: bytes, endpoint: str, new_id: str = ""
) -> Added:
    """Inserts a device, and its account if that is new. Raises as `admit` does."""
    admitted = await admit(db, a, name, public_key, new_id)
    owner = admitted.account
    if admitted.is_new:
        await account_rows.insert(db, owner)
    made = Device(
        id=ids.device_id(await _mark(db)),
        account_id=owner.id,
        account=owner.name,
        account_tier=owner.tier,
        account_disabled=False,
        name=admitted.name,
        region=a.settings.node.region,
        public_key=public_key,
        address_offset=await _free(db, a.settings.wireguard.subnet.num_addresses),
        ipv6=a.settings.wireguard.subnet6 is not None,
        created_at=a.now,
        paused=False,
        endpoint=endpoint,
    )
    await rows.insert(db, [made])
    return Added(made, admitted.is_new, admitted.count + 1, admitted.most)


async def _mark(db: aiosqlite.Connection) -> str:
    """Returns what ids end in that this host makes: in a fleet they say whose they are."""
    row = await fleet_state.read(db)
    return "" if row is None else ids.mark_of_node(row.node_id)


async def stored(a: Admin, change: Callable[[aiosqlite.Connection], Awaitable[T]]) -> tuple[T, HostError | None]:
    """Changes the store as `Admin.change` does; returns what `change` does, and with it the error that came after it.

    What only this command knows, a new private key, must not be lost because the server is late.
    """
    done = list[T]()
    try:
        async with a.change() as db:
            done.append(await change(db))
    except HostError as error:
        if not done:
            raise
        return done[0], error
    return done[0], None


async def find(db: aiosqlite.Connection, name: DeviceName) -> Device:
    """Returns the device. Raises NotFound."""
    owner = await account_rows.by_name(db, name.account)
    found = None if owner is None else await rows.by_name(db, owner.id, device_name.trimmed(name.device))
    if found is None:
        raise NotFound(f"no device {name}; wg-appliance device list shows them")
    return found


async def require_free(db: aiosqlite.Connection, stored: Device, new_name: str) -> None:
    """Raises Conflict if another device of the account has the name."""
    if await device_rules.refusal(db, stored.account_id, name=new_name, device_id=stored.id) is not None:
        raise _taken(stored.account, new_name)


async def rotate(db: aiosqlite.Connection, stored: Device, public_key: bytes, endpoint: str) -> Device:
    """Returns the device with its new key. Raises InvalidRequest or KeyInUse where the key is another's, or its own.

    Its session ends.
    """
    refused = await device_rules.refusal(db, stored.account_id, public_key=public_key)
    if refused is not None:
        raise _key_in_words(refused)
    await device_rules.end_session(db, stored.id, Reason.ROTATED)
    await rows.rotate(db, stored.id, public_key, endpoint)
    return replace(stored, public_key=public_key, endpoint=endpoint, outdated=NOTHING)


async def _owner(db: aiosqlite.Connection, a: Admin, name: str, new_id: str) -> tuple[Account, bool]:
    stored = await account_rows.by_name(db, name)
    if stored is None:
        host = await fleet_state.kept_on(db)
        if host is not None:
            lost = await kept_accounts.if_lost(a, db, host)
            raise NotFound(f"no account {name} here; accounts are kept on {host}: create it there{lost}")
        return Account(new_id or ids.account_id(), name, Tier.FREE, disabled=False, created_at=a.now), True
    if stored.disabled:
        raise Conflict(
            f"account {name} is disabled, its devices may not connect; enable it first: "
            f"wg-appliance account set {name} --enabled"
        )
    return stored, False


async def require_same_exit(db: aiosqlite.Connection, a: Admin, public_key: bytes) -> None:
    """Notes what a file says of the exit, if none did yet. Raises Conflict if the exit was changed since.

    A file made now would be of an exit that is not served. `public_key`: the exit's.
    """
    found = identity.changes(await node_row.read(db), a.settings.wireguard, public_key)
    if found:
        raise Conflict(f"{' and '.join(found)} was changed since the server started: start it with that first")
    await identity.put(db, a.settings.wireguard, public_key)


async def _free(db: aiosqlite.Connection, size: int) -> int:
    """Returns the lowest address that no session and no device has, as an offset. Raises SubnetExhausted."""
    held = {*await session_rows.places(db), *await rows.places(db)}
    for offset in range(EXIT_OFFSET + 1, size - 1):
        if offset not in held:
            return offset
    raise SubnetExhausted


def _in_words(refused: ApplianceError, owner: Account, name: str, count: int) -> ApplianceError:
    if isinstance(refused, DeviceNameTaken):
        return _taken(owner.name, name)
    if isinstance(refused, DeviceLimitReached):
        instead = f"remove one (wg-appliance device remove), or raise max_devices of [tiers.{owner.tier}]"
        has = f"it has {count}, and may have no more; {instead}" if count else "it may have none"
        return Conflict(f"device limit reached: account {owner.name} is of tier {owner.tier}, {has}")
    return _key_in_words(refused)


def _key_in_words(refused: ApplianceError) -> ApplianceError:
    if isinstance(refused, KeyInUse):
        return Conflict("key in use: a device or live session of the account has it; give another --public-key")
    return refused


def _taken(account: str, name: str) -> Conflict:
    return Conflict(f"device name taken: {account} has a device {name}")
