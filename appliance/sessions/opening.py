"""Opens a session for a client: makes its keys if it has none, has the batch open it, renders its file."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from appliance.domain.errors import PeerApplyFailed, SubnetExhausted
from appliance.network.wireguard import keys
from appliance.sessions.batch_opens import OpenRequest

if TYPE_CHECKING:
    from ipaddress import IPv4Address, IPv6Address

    from appliance.domain.entities import Account, Session
    from appliance.network.exit_node import Exit
    from appliance.sessions.address_quarantine import AddressQuarantine
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
        """Opens a session. If this raises, the next batch undoes what is left of it, before it gives that to another.

        Raises InvalidToken: if the account is gone or disabled. Raises PeerApplyFailed: if the peer could not be
        installed in time. Raises StoreUnavailable, or the error with which policy, placement or the pool refuses.
        """
        deadline = self._peers.deadline()
        private_key, public_key = None, request.public_key
        if public_key is None:
            private_key, public_key = keys.generate_key_pair()
        again = False
        while True:
            wanted = OpenRequest(
                account, request.region, public_key, request.token_hash, ipv6=request.ipv6, again=again
            )
            try:
                session = (await self._queue.ask(wanted, deadline)).session
                break
            except TimeoutError as error:
                raise PeerApplyFailed from error
            except SubnetExhausted:
                if not await self._quarantine.released_by(deadline):
                    raise
                again = True
        return NewSession(session, self._exit.client_config(session, private_key, ipv6=request.ipv6, dns=request.dns))
