"""Names whom the routes ask: this exit, or the fleet while the host is in one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from ipaddress import IPv4Address, IPv6Address

    from appliance.domain.entities import Account, Session
    from appliance.domain.quota import Quota
    from appliance.sessions.devices.service import DeviceView, HandedOut
    from appliance.sessions.opening import NewSession, SessionRequest


class SessionApi(Protocol):
    """Serves requests for sessions: see `sessions/service.SessionService`."""

    async def open(self, account: Account, request: SessionRequest) -> NewSession: ...

    async def close(self, account: Account, session_id: str) -> Session: ...

    async def find(self, account: Account, session_id: str) -> Session: ...

    async def list(self, account: Account, *, live: bool, before: str | None, limit: int) -> list[Session]: ...


class DeviceApi(Protocol):
    """Serves requests for devices: see `sessions/devices/service.DeviceService`."""

    async def find(self, account: Account, device_id: str) -> DeviceView: ...

    async def page(self, account: Account, *, before: str | None, limit: int) -> list[DeviceView]: ...

    async def names(self, sessions: Iterable[Session]) -> dict[str, str]: ...

    async def add(self, account: Account, name: str, request: SessionRequest) -> HandedOut: ...

    async def edit(self, account: Account, device_id: str, *, name: str | None, paused: bool | None) -> DeviceView: ...

    async def rotate(
        self,
        account: Account,
        device_id: str,
        public_key: bytes | None,
        dns: tuple[IPv4Address | IPv6Address, ...] | None,
        token_hash: bytes,
    ) -> HandedOut: ...

    async def remove(self, account: Account, device_id: str) -> DeviceView: ...


class QuotaApi(Protocol):
    """Tells what accounts have used of their windows: see `metering/usage.Quotas`."""

    async def of_each(self, account: Account, listed: Sequence[Session]) -> list[Quota]: ...

    async def of_all(self, account: Account) -> Quota: ...


class ActiveRegions(Protocol):
    """Tells where sessions can be opened."""

    def regions(self) -> list[tuple[str, int]]:
        """Returns (code, number of active nodes) of every region that has one, by code."""
        ...


def as_it_is(account: Account, token: str) -> Account:  # noqa: ARG001 (what a fleet puts in its place takes both)
    """Returns the account: on a single host nobody else asks to see the token."""
    return account


def nothing() -> None:
    """Returns what keeps this host from its fleet: nothing on a single one."""


@dataclass(slots=True)
class Offered:
    """Holds whom the routes ask now. `caller`: returns the account that asks, for whoever has to see its token too.

    `fault`: returns why this host is not ready, though the exit works; None: it is.
    """

    sessions: SessionApi
    devices: DeviceApi
    regions: ActiveRegions
    quotas: QuotaApi
    caller: Callable[[Account, str], Account] = as_it_is
    fault: Callable[[], str | None] = nothing
