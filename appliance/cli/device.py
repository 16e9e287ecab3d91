"""Implements `wg-appliance device ...`: peers that stay, whose private keys are printed once and never stored."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING

import click
from msgspec.structs import replace

from appliance.cli import account, admin, device_changes, device_claims, device_file, device_held, limits, output
from appliance.cli.device_fields import COLUMNS, SPARE, DeviceFields, read
from appliance.cli.device_file import Wanted
from appliance.cli.lazy_group import Commands
from appliance.cli.parameters import DEVICE, NAME
from appliance.domain import device_name
from appliance.domain.entities import Reason
from appliance.store.queries import device_rules
from appliance.store.queries import devices as rows

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from pathlib import Path

    import aiosqlite

    from appliance.cli.admin import Admin
    from appliance.cli.device_changes import Added
    from appliance.cli.device_fields import Seen
    from appliance.cli.parameters import DeviceName
    from appliance.domain.device import Device
    from appliance.domain.errors import HostError

of_account = click.argument("name", type=DEVICE, metavar="ACCOUNT/NAME")


@click.group(cls=Commands)
def device() -> None:
    """Manage devices: peers that stay, whose file, once handed out, stays good until they are removed."""


@device.command()
@of_account
@device_file.qr_option
@device_file.file_option
@device_file.key_option
@device_file.dns_option
@output.json_option
@click.pass_obj
def add(
    config_file: Path | None,
    name: DeviceName,
    as_qr: bool,
    path: Path | None,
    key: str | None,
    dns: tuple[str, ...],
    as_json: bool,
) -> None:
    """Add a device and print its file. The file cannot be printed again; `device rotate` makes another.

    An account that is new is created, of tier free.
    """
    wanted = Wanted.checked(as_qr=as_qr, path=path, key=key, dns=dns, as_json=as_json)
    device_name.checked(name.device)

    async def work(a: Admin) -> tuple[Added, str | None, str, Admin, HostError | None]:
        exit_ = device_file.exit_of(a)
        endpoint, pair = device_file.endpoint(a), device_file.key_pair(wanted, exit_)
        wish = await device_claims.of_new_device(a, name, pair.public)

        async def change(db: aiosqlite.Connection) -> tuple[Added, str | None]:
            await device_changes.require_same_exit(db, a, exit_.public_key)
            made = await device_changes.add(db, a, name, pair.public, str(endpoint), wish.account_id if wish else "")
            return made, await device_held.why(db, a, made.device)

        async with device_claims.claimed(a, name.account, wish):
            (added, held), late = await device_changes.stored(a, change)
        return added, held, device_file.text_of(a, exit_, added.device, pair.private, wanted), a, late

    with device_file.handed_over(wanted, f"wg-appliance device rotate {shlex.quote(str(name))}") as hand_over:
        added, held, text, a, late = admin.run(config_file, work, come_back=wanted.path is not None)
        _echo_added(added, a)
        _echo_held(held)
        hand_over(text, DeviceFields(a.settings.wireguard).identity(added.device))
    _raise_late(late)


def _echo_added(added: Added, a: Admin) -> None:
    made = added.device
    if added.account_is_new:
        output.remark(f"account {made.account} created, tier {made.account_tier}")
    where = ", ".join(DeviceFields(a.settings.wireguard).addresses(made))
    many = f"device {added.number} of {added.most}" if added.most else f"device {added.number} of any number"
    allowed = limits.in_words(a.settings.tiers[made.account_tier])
    output.remark(
        f"device {made.account}/{made.name} added: {where}, dials {made.endpoint}, "
        f"tier {made.account_tier} ({allowed}), {many}"
    )


def _raise_late(late: HostError | None) -> None:
    """Ends the command with what came after its change was stored, once its result is handed over."""
    if late is not None:
        raise late


@device.command("list")
@click.option("--account", "owner", type=NAME, metavar="NAME", help="List only this account's.")
@output.limit_option
@output.json_option
@click.pass_obj
def list_(config_file: Path | None, owner: str | None, limit: int | None, as_json: bool) -> None:
    """List devices, newest first."""
    most = output.newest(limit, as_json=as_json)

    async def work(a: Admin) -> tuple[list[Seen], DeviceFields, Admin]:
        async def select(db: aiosqlite.Connection) -> list[Device]:
            account_id = None if owner is None else (await account.find(db, owner)).id
            return await rows.newest(db, account_id, most + 1 if most else 0)

        return *await read(a, select), a

    found, fields, a = admin.run(config_file, work)
    output.cut(len(found), most, "devices")
    found = found[: most or None]
    if as_json:
        output.write_json({"devices": [fields.of(each) for each in found]})
        return
    cells = [fields.cells(each, a.now) for each in found]
    output.write_table(COLUMNS, cells, "no devices; wg-appliance device add ACCOUNT/NAME makes one", SPARE)
    if any(each.is_outdated for each in found):
        output.remark(
            "outdated: the file has an old address or server key, and does not work, or not in IPv6; make another: "
            "wg-appliance device rotate ACCOUNT/NAME"
        )
    if any(each.stale and not each.is_outdated for each in found):
        output.remark(
            f"stale: a new file dials {found[0].endpoint}; where the old endpoint does not lead here, make one: "
            "wg-appliance device rotate ACCOUNT/NAME"
        )


@device.command()
@of_account
@output.json_option
@click.pass_obj
def show(config_file: Path | None, name: DeviceName, as_json: bool) -> None:
    """Show a device: whether it is connected or may be, and the totals of its sessions."""

    async def work(a: Admin) -> tuple[Seen, DeviceFields]:
        async def select(db: aiosqlite.Connection) -> list[Device]:
            return [await device_changes.find(db, name)]

        (found,), fields = await read(a, select)
        return found, fields

    found, fields = admin.run(config_file, work)
    if as_json:
        output.write_json(fields.of(found))
    else:
        output.write_fields(fields.lines(found))


@device.command()
@of_account
@click.argument("new_name", metavar="NEWNAME")
@click.pass_obj
def rename(config_file: Path | None, name: DeviceName, new_name: str) -> None:
    """Give a device another name. Its file stays good."""
    if "/" in new_name:
        raise click.UsageError("NEWNAME: give the name alone, without /: a device stays with its account")
    checked = device_name.checked(new_name)

    async def work(a: Admin) -> Device:
        wish = await device_claims.of_renamed(a, name, checked)
        async with device_claims.claimed(a, name.account, wish), a.change() as db:
            stored = await device_changes.find(db, name)
            await device_changes.require_free(db, stored, checked)
            await rows.rename(db, stored.id, checked)
            await device_claims.release_name(db, a, stored)
            return stored

    stored = admin.run(config_file, work)
    _echo(stored, f"is called {stored.account}/{checked} now")


@device.command()
@of_account
@click.pass_obj
def pause(config_file: Path | None, name: DeviceName) -> None:
    """Keep a device from connecting until `device resume`; its session ends (paused)."""
    stored, ended = _change(config_file, name, lambda _, db, d: rows.pause(db, d.id, paused=True), Reason.PAUSED)
    done = "was paused already" if stored.paused else "paused: it may not connect until device resume"
    _echo(stored, done, ended=ended)


@device.command()
@of_account
@click.pass_obj
def resume(config_file: Path | None, name: DeviceName) -> None:
    """Let a paused device connect again."""

    async def work(a: Admin) -> tuple[Device, str | None]:
        async with a.change() as db:
            stored = await device_changes.find(db, name)
            await rows.pause(db, stored.id, paused=False)
            return stored, await device_held.why(db, a, replace(stored, paused=False))

    stored, held = admin.run(config_file, work)
    _echo(stored, "resumed" if stored.paused else "was not paused")
    _echo_held(held)


def _change(
    config_file: Path | None,
    name: DeviceName,
    write: Callable[[Admin, aiosqlite.Connection, Device], Awaitable[None]],
    reason: Reason,
) -> tuple[Device, bool]:
    """Writes a change of a device; returns the device as it was, and whether its session has ended, for that reason."""

    async def work(a: Admin) -> tuple[Device, bool]:
        async with a.change() as db:
            stored = await device_changes.find(db, name)
            ended = await device_rules.end_session(db, stored.id, reason)
            await write(a, db, stored)
            return stored, ended

    return admin.run(config_file, work)


def _echo(changed: Device, done: str, *, ended: bool = False) -> None:
    output.remark(f"device {changed.account}/{changed.name} {done}{'; its session has ended' if ended else ''}")


def _echo_held(held: str | None) -> None:
    if held is not None:
        output.remark(held)


@device.command()
@of_account
@device_file.qr_option
@device_file.file_option
@device_file.key_option
@device_file.dns_option
@output.json_option
@click.pass_obj
def rotate(
    config_file: Path | None,
    name: DeviceName,
    as_qr: bool,
    path: Path | None,
    key: str | None,
    dns: tuple[str, ...],
    as_json: bool,
) -> None:
    """Give a device another key and print its new file. The old file is good no more; the address stays."""
    wanted = Wanted.checked(as_qr=as_qr, path=path, key=key, dns=dns, as_json=as_json)

    async def work(a: Admin) -> tuple[Device, str | None, str, Admin, HostError | None]:
        exit_ = device_file.exit_of(a)
        endpoint, pair = device_file.endpoint(a), device_file.key_pair(wanted, exit_)

        async def change(db: aiosqlite.Connection) -> tuple[Device, str | None]:
            await device_changes.require_same_exit(db, a, exit_.public_key)
            found = await device_changes.find(db, name)
            changed = await device_changes.rotate(db, found, pair.public, str(endpoint))
            return changed, await device_held.why(db, a, changed)

        (made, held), late = await device_changes.stored(a, change)
        return made, held, device_file.text_of(a, exit_, made, pair.private, wanted), a, late

    with device_file.handed_over(wanted, f"wg-appliance device rotate {shlex.quote(str(name))}") as hand_over:
        made, held, text, a, late = admin.run(config_file, work, come_back=wanted.path is not None)
        _echo(made, "has another key: its old file is good no more")
        _echo_held(held)
        hand_over(text, DeviceFields(a.settings.wireguard).identity(made))
    _raise_late(late)


@device.command()
@of_account
@output.yes_option
@click.pass_obj
def remove(config_file: Path | None, name: DeviceName, yes: bool) -> None:
    """Remove a device: its file is good no more, its address is free, its session ends (closed)."""
    output.confirm(f"Remove device {name}? Its file will be good no more.", yes=yes)

    async def write(a: Admin, db: aiosqlite.Connection, found: Device) -> None:
        await rows.remove(db, [found.id], a.now)
        await device_claims.release_name(db, a, found)

    stored, ended = _change(config_file, name, write, Reason.CLOSED)
    _echo(stored, "removed", ended=ended)
