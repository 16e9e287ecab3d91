"""Opens a session for a client: makes its keys if it has none, has the batch open it, renders its file."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from appliance.domain.errors import PeerApplyFailed, SubnetExhausted
from appliance.network.wireguard import keys
from appliance.sessions.batch_opens import OpenRequest

if TYPE_CHECKING:
    from ipaddress import IPv4Address, IPv6Address

    from appliance.domain.entities import Account, Session
    from appliance.network.exit_node import Exit
    from appliance.network.wireguard.client_config import TunnelFacts
    from appliance.sessions.address_quarantine import AddressQuarantine
    from appliance.sessions.batch_opens import Noted, Opened
    from appliance.sessions.peer_access import PeerAccess
    from appliance.sessions.waiting import Queue


@dataclass(frozen=True, slots=True)
class SessionRequest:
    """Holds what a client asks for, checked. `public_key` None: the server makes the key pair. `dns`: the resolvers of
    the file's DNS line, none for no line; None: the operator's. `token_hash`: of the token it is asked for with."""

    region: str
    public_key: bytes | None = None
    ipv6: bool = True
    dns: tuple[IPv4Address | IPv6Address, ...] | None = None
    token_hash: bytes = field(default=b"", repr=False)


@dataclass(frozen=True, slots=True)
class NewSession:
    """Holds a new session, and the wg-quick file with which its client connects."""

    session: Session
    wg_config: str = field(repr=False)  # may hold a private key


class Opening:
    """Opens sessions. A session that cannot be opened leaves nothing behind."""

    def __init__(self, *, queue: Queue, peers: PeerAccess, quarantine: AddressQuarantine, exit_: Exit) -> None:
        self._queue = queue
        self._peers = peers
        self._quarantine = quarantine
        self._exit = exit_

    async def open(self, account: Account, request: SessionRequest) -> NewSession:
        """Opens a session, and writes its file. Raises what `install` does."""
        private_key, public_key = keys.client_pair(request.public_key)
        session = (await self.install(account, replace(request, public_key=public_key))).session
        return NewSession(session, self._exit.client_config(session, private_key, ipv6=request.ipv6, dns=request.dns))

    async def install(self, account: Account, request: SessionRequest, noted: Noted | None = None) -> Opened:
        """Opens a session for the public key of the request, which must have one. `noted`: as in OpenRequest.

        If this raises, the next batch undoes what is left of it, before it gives that to another.

        Raises InvalidToken: if the account is gone or disabled. Raises PeerApplyFailed: if the peer could not be
        installed in time. Raises StoreUnavailable, or the error with which policy, placement or the pool refuses.
        """
        deadline, again = self._peers.deadline(), False
        while True:
            wanted = _wanted(account, request, again=again, noted=noted)
            try:
                return await self._queue.ask(wanted, deadline)
            except TimeoutError as error:
                raise PeerApplyFailed from error
            except SubnetExhausted:
                if not await self._quarantine.released_by(deadline):
                    raise
                again = True

    async def take_back(self, account: Account, opened: Opened) -> None:
        """Undoes a session that was opened, of whose file nothing is known: as if it had never been asked for.

        Raises PeerApplyFailed: if it is not undone in time; it will be.
        """
        request = _wanted(account, SessionRequest(opened.session.region, opened.session.public_key))
        request.succeed(opened)
        self._queue.take_back(request)
        await self.settled()

    async def settled(self) -> None:
        """Waits until what was given up is undone. Raises PeerApplyFailed: if that takes too long."""
        try:
            async with asyncio.timeout_at(self._peers.deadline()):
                await self._queue.settled()
        except TimeoutError as error:
            raise PeerApplyFailed from error

    def tunnel_of(self, session: Session, *, ipv6: bool) -> TunnelFacts:
        """Returns what the session's file says."""
        return self._exit.tunnel_of(session, ipv6=ipv6)


def _wanted(
    account: Account, request: SessionRequest, *, again: bool = False, noted: Noted | None = None
) -> OpenRequest:
    return OpenRequest(
        account,
        request.region,
        request.public_key or b"",
        request.token_hash,
        ipv6=request.ipv6,
        again=again,
        noted=noted,
    )
