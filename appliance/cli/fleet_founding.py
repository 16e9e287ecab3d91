"""Implements `fleet init` and `fleet invite`."""

from __future__ import annotations

import asyncio
import errno
import os
import socket
from typing import TYPE_CHECKING

from msgspec.structs import replace

from appliance.cli import admin, output
from appliance.cli.fleet_server import POLL_S, SEE_LOG, import_all, joined_in, require_believed, require_hub
from appliance.config.load import read_settings
from appliance.domain.clock import HostClock, rfc3339
from appliance.domain.errors import Conflict, ConnectFailed, HostError
from appliance.fleet.hub import authorities, certificates, nats_program
from appliance.fleet.hub.config import invitation_inbox
from appliance.fleet.hub.files import HubFiles, hub_place
from appliance.fleet.hub.hub_server import own_address
from appliance.fleet.joining import founding
from appliance.fleet.joining import token as join_token
from appliance.fleet.joining.messages import why_no_standby
from appliance.fleet.link.hub_connection import HubConnection
from appliance.fleet.link.link import hub_tls
from appliance.fleet.link.nats_client import LinkUser
from appliance.fleet.link.nkey import NKey
from appliance.fleet.membership import own_dialled
from appliance.fleet.membership.identity import FleetFolder
from appliance.store.queries import fleet_members
from appliance.store.state_dir import StateDir

if TYPE_CHECKING:
    from pathlib import Path

    import aiosqlite

    from appliance.cli.admin import Admin
    from appliance.config.load import Settings

INVITED_FOR_MS = 3_600_000
GOOD_WITHIN_S = 10.0


def init(config_file: Path | None) -> None:
    settings = read_settings(config_file, os.environ)
    state = StateDir(settings.node.state_dir)
    _require_single(state)
    host = founding.Founder(
        settings.node.name, settings.node.region, str(settings.fleet.listen), dialled_here(settings, state)
    )
    program = nats_program.find()
    import_certificates()

    async def work(a: Admin) -> str:
        _require_single(a.state)
        require_believed(a)
        require_free(host.listen)
        folder = FleetFolder(a.state.path)
        async with a.store.write() as db:
            files = HubFiles(hub_place(a.state.path))
            membership = await founding.found(db, folder, files, program, host, a.now)
            token = await founding.invite(db, membership, "spoke", a.now, INVITED_FOR_MS)
        folder.save_membership(membership)
        output.remark(f"{host.name} is the hub of a new fleet now, and listens on {host.listen} (TCP)")
        output.remark(f"other hosts dial {host.dialled}: the firewalls on the way have to let that through")
        await joined_in(a)
        await _await_good(a, token)
        return token

    token = admin.run(config_file, work)
    output.remark("to be typed on the second host within an hour; after that: wg-appliance fleet invite")
    output.write(f"wg-appliance node join {token}")


def _require_single(state: StateDir) -> None:
    if state.in_fleet:
        raise Conflict(
            "this host is in a fleet already: wg-appliance fleet status shows it, wg-appliance fleet invite on the hub "
            "lets another host in"
        )


def import_certificates() -> None:
    """Has all imported by which certificates are made, too."""
    import_all()
    now = HostClock().now().wall_ms
    certificates.make_leaf(certificates.make_authority("rehearsal", now), "hub.internal", now)


def require_free(listen: str) -> None:
    """Raises HostError if no server can listen there."""
    host, _, port = listen.rpartition(":")
    host = host.strip("[]")
    try:
        with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as tried:
            tried.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            tried.bind((host, int(port)))
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            why = f"another program has it (ss -ltnp sport = :{port} names it): end that, or set fleet.listen"
        else:
            why = f"{error.strerror or error}: set fleet.listen to an address of this host"
        raise HostError(f"a hub cannot listen on {listen}: {why}") from error


def dialled_here(settings: Settings, state: StateDir) -> str:
    """Returns what other hosts dial, as HOST:PORT. Raises HostError if this host has nothing that they could."""
    dialled, address = own_dialled.dialled_here(settings, state.addresses)
    if address is not None and not address.is_global:
        output.remark(f"{address} is not a public address: where others cannot dial it, set fleet.advertise first")
    return dialled


def invite(config_file: Path | None, *, as_hub: bool, lifetime_s: int) -> None:
    async def work(a: Admin) -> tuple[str, int]:
        membership = await require_hub(a, "invitations are made")
        if (of_hub := FleetFolder(a.state.path).hub_secrets()) is not None:  # the server may not run
            membership = replace(membership, ca=authorities.trusted(membership.ca, of_hub))
        async with a.store.write() as db:
            if as_hub:
                await _require_no_standby(db)
            token = await founding.invite(db, membership, "hub" if as_hub else "spoke", a.now, lifetime_s * 1000)
        await _await_good(a, token)
        return token, a.now + lifetime_s * 1000

    import_all()
    token, expires_at = admin.run(config_file, work)
    if as_hub:
        output.remark("it lets a host in as the standby, which is told the fleet's keys: it can be made the hub")
    output.remark(f"one host can join with it until {rfc3339(expires_at)}: wg-appliance node join TOKEN")
    output.write(token)


async def _require_no_standby(db: aiosqlite.Connection) -> None:
    refused = why_no_standby(await fleet_members.present(db))
    if refused is not None:
        raise Conflict(refused)


async def _await_good(a: Admin, text: str) -> None:
    """Returns when the hub lets the token's holder in, which it is told by the running server. Raises HostError."""
    if not a.state.is_served():
        output.remark(
            "the server is not running: start it (systemctl start wg-appliance), so that other hosts can join"
        )
        return
    token = join_token.decode(text, a.clock.host.now().wall_ms)
    key = NKey.from_seed(token.seed)
    user = LinkUser("invite", invitation_inbox(key.public), key, hub_tls(token.ca))
    hub = own_address(str(a.settings.fleet.listen), token.server_name)
    end = asyncio.get_running_loop().time() + GOOD_WITHIN_S
    while True:
        try:
            await (await HubConnection.dial(user, hub, a.clock.host)).close()
        except ConnectFailed as failure:
            if asyncio.get_running_loop().time() >= end:
                raise HostError(f"the hub does not take the token yet ({failure}): {SEE_LOG}") from failure
            await asyncio.sleep(POLL_S)
        else:
            return
