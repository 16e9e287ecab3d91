"""Limits the rate of requests: per source without a valid token, and per token.

A limit is a rate and a burst (the generic cell rate algorithm): a burst at once, then one request each time the rate
allows. One number is kept per source or token, for the latest MOST_KEPT of them. Health, readiness and the OpenAPI
document are not limited.
"""

from __future__ import annotations

import math
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from throttled import MemoryStore, RateLimiterType
from throttled.rate_limiter import RateLimiterRegistry, per_min

from appliance.domain.errors import TooManyRequests
from appliance.server.api.client_address import source_of
from appliance.server.api.key_locks import KeyLocks

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from litestar.types import Scope
    from throttled.rate_limiter import BaseRateLimiter

    from appliance.server.api.client_address import Sources

MOST_KEPT = 16_384


class RequestLimits:
    def __init__(self, per_minute: int, burst: int, sources: Sources) -> None:
        self._sources = sources
        self._of_sources = _limiter(_kept(), per_minute, burst)
        self._source_locks = KeyLocks()
        self._tokens = _kept()
        self._of_tokens: dict[int, BaseRateLimiter] = {}  # by requests per minute

    def count_source(self, scope: Scope) -> None:
        """Counts a public request, or one without a valid token. Raises TooManyRequests above the source's limit."""
        _take(self._of_sources, source_of(scope, self._sources))

    @asynccontextmanager
    async def source_lock(self, scope: Scope) -> AsyncIterator[None]:
        """Holds the source's lock while a request is authenticated, which may have to be counted afterwards.

        Without the lock, many requests at once would all start on the allowance that is left for one.
        Raises TooManyRequests if `count_source` would.
        """
        source = source_of(scope, self._sources)
        async with self._source_locks.hold(source.encode()):
            if self._of_sources.peek(source).remaining < 1:
                _take(self._of_sources, source)
            yield

    def count_token(self, token_hash: bytes, per_minute: int) -> None:
        """Counts a request with a token; the burst is a minute's worth. Raises TooManyRequests above the limit."""
        limiter = self._of_tokens.get(per_minute)
        if limiter is None:
            limiter = self._of_tokens[per_minute] = _limiter(self._tokens, per_minute, per_minute)
        _take(limiter, token_hash.hex())


def _kept() -> MemoryStore:
    return MemoryStore(options={"MAX_SIZE": MOST_KEPT})


def _limiter(store: MemoryStore, per_minute: int, burst: int) -> BaseRateLimiter:
    kind = RateLimiterRegistry.get(RateLimiterType.GCRA.value)
    return kind(per_min(per_minute, burst), store)


def _take(limiter: BaseRateLimiter, key: str) -> None:
    result = limiter.limit(key)
    if result.limited:
        raise TooManyRequests(max(1, math.ceil(result.state.retry_after)))
