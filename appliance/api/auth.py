"""Bearer tokens: from the Authorization header to an account."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from appliance.errors import InvalidToken, MissingToken
from appliance.identifiers import token_hash

if TYPE_CHECKING:
    from litestar import Request

    from appliance.entities import Account
    from appliance.tokens import Tokens

SCHEME = "bearer"


class Authenticator:
    def __init__(self, tokens: Tokens) -> None:
        self._tokens = tokens

    async def __call__(self, request: Request[Any, Any, Any]) -> Account:
        """The account that calls; its windows may have moved on. Raises MissingToken or InvalidToken."""
        token = bearer_token(_authorization(request))
        account = await self._tokens.account_of(token_hash(token))
        if account is None:
            raise InvalidToken
        return account


def _authorization(request: Request[Any, Any, Any]) -> str | None:
    """Without building what Litestar builds of all headers. ASGI gives names in lower case, values as Latin-1."""
    return next((value.decode("latin-1") for name, value in request.scope["headers"] if name == b"authorization"), None)


def bearer_token(header: str | None) -> str:
    """The scheme's name is case-insensitive (RFC 9110, section 11.1)."""
    scheme, _, token = (header or "").strip().partition(" ")
    if scheme.lower() != SCHEME or not token.strip():
        raise MissingToken
    return token.strip()
