"""Tells commands what this host is in its fleet, and waits for the running server to take part."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import TYPE_CHECKING

from appliance.cli import kept_accounts, output
from appliance.domain import clock_steps
from appliance.domain.errors import Conflict, HostError
from appliance.fleet.membership import identity
from appliance.fleet.membership.identity import FleetFolder
from appliance.fleet.status import status_file
from appliance.store.queries import fleet_state

if TYPE_CHECKING:
    from collections.abc import Callable

    from appliance.cli.admin import Admin
    from appliance.fleet.membership.identity import Membership
    from appliance.fleet.status.status import FleetStatus

TAKES_PART_S = 40.0
POLL_S = 0.1
SEE_LOG = "see its log (journalctl -u wg-appliance)"


def import_all() -> None:
    """Has all imported that makes keys and dials a hub, before this process becomes the owner of the state directory.

    The owner may be unable to read this program; see store.file_owner.
    """
    keys = identity.new_keys()
    if not (keys.nkey and keys.public_xkey and "hub".encode("idna")):
        raise HostError("this host's Python makes no keys")


def require_member(a: Admin) -> Membership:
    """Raises Conflict if this host is in no fleet, HostError if that cannot be read."""
    membership = FleetFolder(a.state.path).membership()
    if membership is None:
        raise Conflict(
            "this host is in no fleet: wg-appliance fleet init makes it the hub of a new one, "
            "wg-appliance node join TOKEN takes it into another's"
        )
    return membership


async def require_hub(a: Admin, what: str) -> Membership:
    """Raises Conflict if this host is no hub. `what`: what is done on hubs alone."""
    membership = require_member(a)
    if membership.role != "hub":
        async with a.store.read() as db:
            hub = await fleet_state.kept_on(db) or "the hub"
            lost = await kept_accounts.if_lost(a, db, hub)
        raise Conflict(f"{what} on {hub}: run this command there{lost}")
    return membership


def require_believed(a: Admin) -> None:
    """Raises Conflict if this exit goes by another time than its wall clock: none would open sessions on it."""
    believed = a.clock.now()
    if ahead_ms := a.clock.ahead_ms:
        wall = output.rfc3339(believed.wall_ms + ahead_ms)
        raise Conflict(
            f"this host goes by {output.rfc3339(believed.wall_ms)}: its wall clock, {wall}, is "
            f"{clock_steps.in_words(ahead_ms)} that, and doubted; set it right, or if it is: {clock_steps.ACCEPT}"
        )


async def joined_in(a: Admin) -> None:
    """Has a running server take part in the fleet that this host is in now. Returns when its hub answers.

    Raises HostError if it does not in time.
    """
    async with replace(a, settle_s=TAKES_PART_S).change():
        """The request alone: the server looks whether it is in a fleet."""
    if not a.state.is_served():
        return
    last = await seen(a, lambda status: status is not None and status.cut_off_since is None, TAKES_PART_S)
    if last is None:
        raise HostError(f"the running server takes no part in the fleet yet: {SEE_LOG}, or restart it")
    if last.cut_off_since is not None:
        why = last.failure or SEE_LOG
        raise HostError(f"the running server has not reached the hub in {TAKES_PART_S:g} s: {why}")


async def seen(a: Admin, is_so: Callable[[FleetStatus | None], bool], within_s: float) -> FleetStatus | None:
    """Returns the status as a running server notes it, when it is as awaited, or as it is when the time has passed."""
    end = asyncio.get_running_loop().time() + within_s
    while True:
        status = noted(a)
        if is_so(status) or asyncio.get_running_loop().time() >= end:
            return status
        await asyncio.sleep(POLL_S)


def noted(a: Admin) -> FleetStatus | None:
    """Returns what a server that runs now has noted; None: none does, or it takes no part. Raises HostError."""
    try:
        found = status_file.read(a.state.fleet_status)
    except OSError as error:
        raise HostError(f"cannot read {a.state.fleet_status}: {error.strerror}") from error
    return found.status if found is not None and found.is_fresh(a.clock.host.now()) else None
