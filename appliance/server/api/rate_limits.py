"""Limits the rate of requests: per source without a valid token, and per token.

A limit is a rate and a burst: a burst at once, then one request each time the rate allows. One number is kept per
source or token, for the latest MOST_KEPT of them. Health, readiness and the OpenAPI document are not limited.
"""

from __future__ import annotations

import math
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from appliance.domain.errors import TooManyRequests
from appliance.server.api.client_address import source_of
from appliance.server.api.key_locks import KeyLocks
from appliance.server.api.request_rates import RequestRate, RequestRates

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from litestar.types import Scope

    from appliance.server.api.client_address import Sources

MOST_KEPT = 16_384


class RequestLimits:
    def __init__(self, per_minute: int, burst: int, sources: Sources) -> None:
        self._sources = sources
        self._source_rate = RequestRate(per_minute, burst)
        self._of_sources = RequestRates(MOST_KEPT)
        self._source_locks = KeyLocks()
        self._of_tokens = RequestRates(MOST_KEPT)

    def count_source(self, scope: Scope) -> None:
        """Counts a public request, or one without a valid token. Raises TooManyRequests above the source's limit."""
        _require_none(self._of_sources.take(source_of(scope, self._sources), self._source_rate))

    @asynccontextmanager
    async def source_lock(self, scope: Scope) -> AsyncIterator[None]:
        """Holds the source's lock while a request is authenticated, which may have to be counted afterwards.

        Without the lock, many requests at once would all start on the allowance that is left for one.
        Raises TooManyRequests if `count_source` would.
        """
        source = source_of(scope, self._sources)
        async with self._source_locks.hold(source.encode()):
            _require_none(self._of_sources.wait_s(source, self._source_rate))
            yield

    def count_token(self, token_hash: bytes, per_minute: int) -> None:
        """Counts a request with a token; the burst is a minute's worth. Raises TooManyRequests above the limit."""
        _require_none(self._of_tokens.take(token_hash, RequestRate(per_minute, per_minute)))


def _require_none(wait_s: float) -> None:
    if wait_s > 0:
        raise TooManyRequests(max(1, math.ceil(wait_s)))
