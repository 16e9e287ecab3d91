"""Says where accounts and tokens are changed, on a host whose fleet keeps them elsewhere."""

from __future__ import annotations

from typing import TYPE_CHECKING

from appliance.domain.errors import Conflict
from appliance.store.queries import fleet_state

if TYPE_CHECKING:
    import aiosqlite


async def require_here(db: aiosqlite.Connection) -> None:
    """Raises Conflict if accounts are kept on another host: what is changed here would not last."""
    host = await fleet_state.kept_on(db)
    if host is not None:
        raise Conflict(f"accounts are kept on {host}: run this command there")


async def remedy(db: aiosqlite.Connection, command: str) -> str:
    """Returns what is said where an account or token is lacking. `command`: that makes one."""
    host = await fleet_state.kept_on(db)
    return f"wg-appliance {command} makes one" if host is None else f"accounts are kept on {host}"
