"""Says where accounts and tokens are changed, on a host whose fleet keeps them elsewhere."""

from __future__ import annotations

from typing import TYPE_CHECKING

from appliance.config import fleet_note
from appliance.domain.errors import Conflict
from appliance.domain.hub_loss import succession
from appliance.store.queries import fleet_members, fleet_state

if TYPE_CHECKING:
    import aiosqlite

    from appliance.cli.admin import Admin


async def require_here(a: Admin, db: aiosqlite.Connection) -> None:
    """Raises Conflict if accounts are kept on another host: what is changed here would not last."""
    host = await fleet_state.kept_on(db)
    if host is not None:
        raise Conflict(f"accounts are kept on {host}: run this command there{await if_lost(a, db, host)}")


async def remedy(a: Admin, db: aiosqlite.Connection, command: str) -> str:
    """Returns what is said where an account or token is lacking. `command`: that makes one."""
    host = await fleet_state.kept_on(db)
    if host is None:
        return f"wg-appliance {command} makes one"
    return f"accounts are kept on {host}{await if_lost(a, db, host)}"


async def if_lost(a: Admin, db: aiosqlite.Connection, hub: str) -> str:
    """Returns how another host takes the hub's place, to be put behind a sentence.

    "" unless the running server says that it does not hear the hub, and there is a standby.
    """
    if not fleet_note.is_cut_off(a.state.fleet_status, a.clock.host.now(), hub):
        return ""
    row, members = await fleet_state.read(db), await fleet_members.present(db)
    here = next((each.name for each in members if row is not None and each.id == row.node_id), "")
    words = succession(hub, [each.name for each in members if each.role == "standby"], here)
    return words and f"; {words}"
