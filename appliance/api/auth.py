"""Bearer tokens: from the Authorization header to an account."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from appliance.errors import InvalidToken, MissingToken
from appliance.identifiers import token_hash
from appliance.store import tokens

if TYPE_CHECKING:
    from litestar import Request

    from appliance.clock import Clock
    from appliance.entities import Account
    from appliance.store.connection import Store

SCHEME = "bearer"


class Authenticator:
    def __init__(self, store: Store, clock: Clock) -> None:
        self._store = store
        self._clock = clock

    async def __call__(self, request: Request[Any, Any, Any]) -> Account:
        """The account that calls. Raises MissingToken or InvalidToken."""
        token = bearer_token(request.headers.get("authorization"))
        async with self._store.read() as db:
            found = await tokens.account_of(db, token_hash(token), self._clock.now().wall_ms)
        if found is None:
            raise InvalidToken
        return found[1]


def bearer_token(header: str | None) -> str:
    """The scheme's name is case-insensitive (RFC 9110, section 11.1)."""
    scheme, _, token = (header or "").strip().partition(" ")
    if scheme.lower() != SCHEME or not token.strip():
        raise MissingToken
    return token.strip()
