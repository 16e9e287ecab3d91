"""Finds accounts in this exit's own store, by what other exits show of them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from appliance.domain import ids
from appliance.domain.errors import InvalidToken
from appliance.store.queries import accounts as account_rows
from appliance.store.queries import devices as device_rows
from appliance.store.queries import sessions as rows

if TYPE_CHECKING:
    from appliance.domain.entities import Account, Session
    from appliance.store.database import Store
    from appliance.store.token_cache import Tokens


class AskedForAccount(Protocol):
    """Is a request for an account. `for_account`: it is served only if a hub asks."""

    @property
    def token(self) -> str: ...

    @property
    def for_account(self) -> str: ...


class AccountsHere:
    """Takes no other exit's word for an account, but a hub's: a token is looked up where this exit has its own."""

    def __init__(self, store: Store, tokens: Tokens) -> None:
        self._store = store
        self._tokens = tokens

    @staticmethod
    def hash_of(token: str) -> bytes:
        return ids.token_hash(token)

    async def of_token(self, token: str) -> Account:
        """Returns the account of a token. Raises InvalidToken, or StoreUnavailable."""
        account = await self._tokens.account_of(self.hash_of(token))
        if account is None:
            raise InvalidToken
        return account

    async def named(self, asked: AskedForAccount) -> Account:
        """Returns the account that a request is for: whose id a hub names, or whose token is shown. Raises as those."""
        return await self.by_id(asked.for_account) if asked.for_account else await self.of_token(asked.token)

    async def id_of(self, token: str) -> str:
        """Returns the id of a token's account. Raises as `of_token`."""
        return (await self.of_token(token)).id

    async def session(self, session_id: str) -> Session | None:
        """Returns a session of any account, as stored. Raises StoreUnavailable."""
        async with self._store.read() as db:
            return await rows.by_id(db, session_id)

    async def of_session(self, session: Session) -> Account:
        """Returns the account of a session, disabled or not. Raises InvalidToken: it is gone."""
        return await self.by_id(session.account_id)

    async def of_device(self, device_id: str) -> Account | None:
        """Returns the account of a device; None: the device is gone. Raises StoreUnavailable."""
        async with self._store.read() as db:
            account_id = await device_rows.account_of(db, device_id)
        return None if account_id is None else await self.by_id(account_id)

    async def by_id(self, account_id: str) -> Account:
        """Returns an account. Raises InvalidToken: there is none."""
        async with self._store.read() as db:
            account = await account_rows.by_id(db, account_id)
        if account is None:
            raise InvalidToken
        return account
