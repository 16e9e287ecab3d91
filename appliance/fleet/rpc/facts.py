"""Carries what an exit says of its sessions, devices and tunnel to the exit whose client has asked.

What comes from another exit is checked where it goes into a client's file: no text of one becomes a line of the file.
"""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import TYPE_CHECKING, Annotated

import msgspec

from appliance.domain import accounting
from appliance.domain.charges import Amount
from appliance.domain.client_file import is_host_name
from appliance.domain.device import Condition, Device, Outdated
from appliance.domain.entities import Reason, Session, State
from appliance.domain.pricing import Rates
from appliance.domain.quota import Quota  # noqa: TC001 (msgspec reads annotations at run time)
from appliance.domain.tiers import Tier  # noqa: TC001 (msgspec reads annotations at run time)
from appliance.network.wireguard.client_config import Endpoint, NamedEndpoint, TunnelFacts
from appliance.sessions.devices.service import DeviceView

if TYPE_CHECKING:
    from appliance.domain.clock import Moment
    from appliance.domain.entities import Account


# What another exit may say at most, which may be in the wrong hands: an API has to be able to show it.
Shown = Annotated[int, msgspec.Meta(ge=0, le=2**62)]
ShownTime = Annotated[int, msgspec.Meta(ge=0, le=2**47)]  # ms since the epoch, up to the year 6429


class ElsewhereSession(Session, frozen=True, gc=False):
    """Is a session of another exit, all of whose time is counted. `device_name`: of its device, as that exit has it.

    `quota`: its account's there, whose limits hold for it; None: not known.
    """

    device_name: str | None = None
    quota: Quota | None = None


class SessionFacts(msgspec.Struct, frozen=True, omit_defaults=True):
    """Describes a session as of when it was asked for: `counted_ms` is its whole time."""

    id: str
    tier: Tier
    account_tier: Tier
    region: str
    public_ip: str
    public_key: bytes
    state: State
    created_at: ShownTime
    expires_at: ShownTime
    bytes_in: Shown = 0
    bytes_out: Shown = 0
    counted_ms: Shown = 0
    last_handshake_at: ShownTime | None = None
    rates: tuple[str, Shown, Shown] | None = None
    reason: Reason | None = None
    told: str = ""
    terminated_at: ShownTime | None = None
    device_id: str = ""
    device_name: str | None = None
    quota: Quota | None = None

    @classmethod
    def of(cls, s: Session, now: Moment, device_name: str | None = None, quota: Quota | None = None) -> SessionFacts:
        used = accounting.total(s) + accounting.running(s, now)
        return cls(
            id=s.id,
            tier=s.tier,
            account_tier=s.account_tier,
            region=s.region,
            public_ip=s.public_ip,
            public_key=s.public_key,
            state=s.state,
            created_at=s.created_at,
            expires_at=s.expires_at,
            bytes_in=used.bytes_in,
            bytes_out=used.bytes_out,
            counted_ms=used.time_ms,
            last_handshake_at=s.last_handshake_at,
            rates=None if s.rates is None else (s.rates.currency, s.rates.per_minute, s.rates.per_gib),
            reason=s.reason,
            told=s.told,
            terminated_at=s.terminated_at,
            device_id=s.device_id,
            device_name=device_name,
            quota=quota,
        )

    def session(self, account: Account) -> ElsewhereSession:
        """Returns the account's session. What only its own exit needs of it is empty."""
        return ElsewhereSession(
            id=self.id,
            account_id=account.id,
            account=account.name,
            tier=self.tier,
            account_tier=self.account_tier,
            region=self.region,
            public_ip=self.public_ip,
            public_key=self.public_key,
            address_offset=0,
            ipv6=False,
            state=self.state,
            created_at=self.created_at,
            expires_at=self.expires_at,
            bytes_in=self.bytes_in,
            bytes_out=self.bytes_out,
            last_handshake_at=self.last_handshake_at,
            handshake_seen_ns=0,
            quiet_since_ms=0,
            quiet_boot_id="",
            counted_ms=self.counted_ms,
            counted_until_ms=0,
            counted_boot_id="",
            carries_until_ms=0,
            rates=None if self.rates is None else Rates(*self.rates),
            reason=self.reason,
            note="",
            terminated_at=self.terminated_at,
            told=self.told,
            device_id=self.device_id,
            device_name=self.device_name,
            quota=self.quota,
        )


class TunnelRecord(msgspec.Struct, frozen=True):
    """Carries TunnelFacts, with addresses as text."""

    server_public_key: bytes
    host: str
    port: int
    addresses: tuple[str, ...]
    mtu: int | None
    keepalive: int
    dns: tuple[str, ...]
    ipv6: bool

    @classmethod
    def of(cls, facts: TunnelFacts) -> TunnelRecord:
        end = facts.endpoint
        return cls(
            server_public_key=facts.server_public_key,
            host=end.name if isinstance(end, NamedEndpoint) else str(end.host),
            port=end.port,
            addresses=tuple(map(str, facts.addresses)),
            mtu=facts.mtu,
            keepalive=facts.keepalive,
            dns=tuple(map(str, facts.dns)),
            ipv6=facts.ipv6,
        )

    def facts(self) -> TunnelFacts:
        """Returns what a file may be made of. Raises ValueError if any of it cannot be what it is said to be."""
        if len(self.server_public_key) != 32 or not self.addresses:
            raise ValueError("no key of 32 bytes, or no address")
        return TunnelFacts(
            server_public_key=self.server_public_key,
            endpoint=_endpoint(self.host, self.port),
            addresses=[_address(each) for each in self.addresses],
            mtu=self.mtu,
            keepalive=self.keepalive,
            dns=[_address(each) for each in self.dns],
            ipv6=self.ipv6,
        )


def _address(text: str) -> IPv4Address | IPv6Address:
    address = ip_address(text)
    if isinstance(address, IPv6Address) and address.scope_id is not None:
        raise ValueError("an address with a scope, which may be any text")
    return address


def _endpoint(host: str, port: int) -> Endpoint | NamedEndpoint:
    if not 0 < port < 65536:
        raise ValueError(f"no port: {port}")
    try:
        return Endpoint(_address(host), port)
    except ValueError:
        if is_host_name(host):
            return NamedEndpoint(host, port)
        raise


class DeviceSessionFacts(msgspec.Struct, frozen=True, omit_defaults=True):
    """Describes the session that a device has: its whole use."""

    id: str
    bytes_in: Shown = 0
    bytes_out: Shown = 0
    counted_ms: Shown = 0
    last_handshake_at: ShownTime | None = None


class DeviceFacts(msgspec.Struct, frozen=True, omit_defaults=True):
    """Describes a device as of when it was asked for. `file_endpoint`: what its file says; "": what one made now would.

    200 of them are less than what an answer may have.
    """

    id: str
    name: str
    region: str
    public_key: bytes
    ipv6: bool
    created_at: ShownTime
    paused: bool
    account_tier: Tier
    public_ip: str
    endpoint: str
    condition: Condition
    now_ms: ShownTime
    bytes_in: Shown = 0
    bytes_out: Shown = 0
    counted_ms: Shown = 0
    last_handshake_at: ShownTime | None = None
    outdated: Shown = 0
    file_endpoint: str = ""
    session: DeviceSessionFacts | None = None

    @classmethod
    def of(cls, view: DeviceView) -> DeviceFacts:
        d, s, used = view.device, view.session, view.used or Amount()
        session = None
        if s is not None:
            session = DeviceSessionFacts(s.id, used.bytes_in, used.bytes_out, used.time_ms, s.last_handshake_at)
        return cls(
            id=d.id,
            name=d.name,
            region=d.region,
            public_key=d.public_key,
            ipv6=d.ipv6,
            created_at=d.created_at,
            paused=d.paused,
            account_tier=d.account_tier,
            public_ip=view.public_ip,
            endpoint=view.endpoint,
            condition=view.condition,
            now_ms=view.now_ms,
            bytes_in=d.bytes_in,
            bytes_out=d.bytes_out,
            counted_ms=d.counted_ms,
            last_handshake_at=d.last_handshake_at,
            outdated=int(d.outdated),
            file_endpoint="" if d.endpoint == view.endpoint else d.endpoint,
            session=session,
        )

    def device(self, account: Account) -> Device:
        """Returns the account's device. What only its own exit needs of it is empty."""
        return Device(
            id=self.id,
            account_id=account.id,
            account=account.name,
            account_tier=self.account_tier,
            account_disabled=account.disabled,
            name=self.name,
            region=self.region,
            public_key=self.public_key,
            address_offset=0,
            ipv6=self.ipv6,
            created_at=self.created_at,
            paused=self.paused,
            endpoint=self.file_endpoint or self.endpoint,
            bytes_in=self.bytes_in,
            bytes_out=self.bytes_out,
            counted_ms=self.counted_ms,
            last_handshake_at=self.last_handshake_at,
            outdated=Outdated(self.outdated & 7),
        )

    def view(self, account: Account) -> DeviceView:
        """Returns the same as the exit that has the device shows it."""
        session, used = None, None
        if self.session is not None:
            session = self._session(account, self.session)
            used = Amount(session.counted_ms, session.bytes_in, session.bytes_out)
        return DeviceView(
            device=self.device(account),
            condition=self.condition,
            session=session,
            used=used,
            public_ip=self.public_ip,
            endpoint=self.endpoint,
            now_ms=self.now_ms,
        )

    def _session(self, account: Account, has: DeviceSessionFacts) -> ElsewhereSession:
        return SessionFacts(
            id=has.id,
            tier=self.account_tier,
            account_tier=self.account_tier,
            region=self.region,
            public_ip=self.public_ip,
            public_key=self.public_key,
            state=State.LIVE,
            created_at=0,
            expires_at=0,
            bytes_in=has.bytes_in,
            bytes_out=has.bytes_out,
            counted_ms=has.counted_ms,
            last_handshake_at=has.last_handshake_at,
            device_id=self.id,
            device_name=self.name,
        ).session(account)


def resolvers(texts: tuple[str, ...] | None) -> tuple[IPv4Address | IPv6Address, ...] | None:
    """Returns the addresses of a DNS line. Raises ValueError if one is none."""
    return None if texts is None else tuple(map(_address, texts))
