"""Names what the API asks for: SessionService and DeviceService offer it for this exit, others for several."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from appliance.domain.entities import Account, Session
    from appliance.sessions.devices.changing import Resolvers
    from appliance.sessions.devices.service import DeviceView, HandedOut
    from appliance.sessions.opening import NewSession, SessionRequest


class OffersSessions(Protocol):
    """Opens, closes, finds and lists an account's sessions; SessionService says what each raises."""

    async def open(self, account: Account, request: SessionRequest) -> NewSession: ...

    async def close(self, account: Account, session_id: str) -> Session: ...

    async def find(self, account: Account, session_id: str) -> Session: ...

    async def list(self, account: Account, *, live: bool, before: str | None, limit: int) -> Sequence[Session]: ...


class OffersDevices(Protocol):
    """Adds, finds, lists, changes and removes an account's devices; DeviceService says what each raises."""

    async def find(self, account: Account, device_id: str) -> DeviceView: ...

    async def page(self, account: Account, *, before: str | None, limit: int) -> Sequence[DeviceView]: ...

    async def names(self, sessions: Iterable[Session]) -> dict[str, str]: ...

    async def add(self, account: Account, name: str, request: SessionRequest) -> HandedOut: ...

    async def edit(self, account: Account, device_id: str, *, name: str | None, paused: bool | None) -> DeviceView: ...

    async def rotate(
        self, account: Account, device_id: str, public_key: bytes | None, dns: Resolvers, token_hash: bytes
    ) -> HandedOut: ...

    async def remove(self, account: Account, device_id: str) -> DeviceView: ...

    async def settled(self) -> None: ...
