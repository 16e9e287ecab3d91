"""Reads the accounts of a batch's requests."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from appliance.domain.errors import StoreUnavailable
from appliance.store.queries import accounts as rows

if TYPE_CHECKING:
    from collections.abc import Sequence

    from appliance.domain.entities import Account
    from appliance.sessions.waiting import Waiting
    from appliance.store.database import Store


async def accounts_of(store: Store, requests: Sequence[tuple[Waiting[Any], str]]) -> dict[str, Account] | None:
    """Returns the accounts by id: one may have changed its tier, or been removed, since the request was made.

    None: the store cannot be read, and the requests, each with its account's id, are answered.
    """
    if not requests:
        return {}
    try:
        async with store.read() as db:
            return await rows.by_ids(db, {account_id for _, account_id in requests})
    except StoreUnavailable as error:
        for request, _ in requests:
            request.fail(error)
        return None
