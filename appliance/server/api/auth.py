"""Authenticates requests: from the bearer token in the Authorization header to an account."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from appliance.domain.errors import InvalidToken, MissingToken
from appliance.domain.ids import token_hash

if TYPE_CHECKING:
    from litestar import Request

    from appliance.config.plans import Terms
    from appliance.domain.entities import Account
    from appliance.server.api.offered import Offered
    from appliance.server.api.rate_limits import RequestLimits
    from appliance.store.token_cache import Tokens

SCHEME = "bearer"


class Authenticator:
    """Finds the account of a request's bearer token.

    Requests without a valid token count against their source's rate limit. A token that is cached is never delayed by
    other requests of its source; one that has to be looked up waits for them.
    """

    def __init__(self, tokens: Tokens, limits: RequestLimits, terms: Terms, offered: Offered) -> None:
        self._tokens = tokens
        self._limits = limits
        self._terms = terms
        self._offered = offered

    async def __call__(self, request: Request[Any, Any, Any]) -> Account:
        """Returns the calling account, whose windows may have moved on.

        Raises MissingToken without a bearer token. Raises InvalidToken if it is unknown, expired or revoked. Raises
        TooManyRequests: if the rate limit of the token or the source is exceeded.
        """
        token = bearer_token(_authorization(request))
        if token is None:
            self._limits.count_source(request.scope)
            raise MissingToken
        hashed = token_hash(token)
        account = self._tokens.known(hashed) or await self._look_up(request, hashed)
        self._limits.count_token(hashed, self._terms.tiers[account.tier].requests_per_minute)
        return self._offered.caller(account, token)

    async def _look_up(self, request: Request[Any, Any, Any], hashed: bytes) -> Account:
        async with self._limits.source_lock(request.scope):
            account = await self._tokens.account_of(hashed)
            if account is None:
                self._limits.count_source(request.scope)
                raise InvalidToken
        return account


def presented(request: Request[Any, Any, Any]) -> bytes:
    """Returns the hash of the token of a request that was authenticated."""
    return token_hash(bearer_token(_authorization(request)) or "")


def _authorization(request: Request[Any, Any, Any]) -> str:
    """Returns the Authorization header without Litestar's parsing of all headers.

    ASGI gives names in lower case and values as Latin-1. Several headers are joined (RFC 9110, section 5.2), which is
    not a valid token: a proxy in front might have checked another one of them.
    """
    return ", ".join(value.decode("latin-1") for name, value in request.scope["headers"] if name == b"authorization")


def bearer_token(header: str) -> str | None:
    """Extracts the token; None without one. The scheme's name is case-insensitive (RFC 9110, section 11.1)."""
    scheme, _, token = header.strip().partition(" ")
    return token.strip() or None if scheme.lower() == SCHEME else None
