"""Rows of sessions as the server reads them from the store."""

from __future__ import annotations

from typing import TYPE_CHECKING

from appliance.store.rows.session_rows import SessionRows

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from appliance.domain.entities import Account, Baseline, Session


def rows_of(
    sessions: Iterable[Session], accounts: Iterable[Account], baselines: Mapping[bytes, Baseline] | None = None
) -> SessionRows:
    """Sessions that have peers, with their accounts and baselines."""
    rows = SessionRows(accounts)
    for session in sessions:
        rows.put(session)
    for key, baseline in (baselines or {}).items():
        rows.set_baseline(rows.find(key), baseline)
    return rows
