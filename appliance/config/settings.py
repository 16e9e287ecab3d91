"""Defines every setting, one line per key: type, allowed values, default, and the remark in the written file."""

# The annotations are read at run time, so what they name is imported for good.
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from pathlib import Path
from typing import Annotated, Literal, get_type_hints

from appliance.config.listeners import DIALLED, LISTEN, LISTENERS, SERVERS, TCP_LISTEN
from appliance.config.value_types import (
    CURRENCY,
    DESTINATIONS,
    ENDPOINT,
    FLAG,
    INTERFACE,
    MARK,
    NAME,
    NETWORKS,
    PATH,
    PORT,
    REGION,
    RESOLVERS,
    RULE_PRIORITY,
    SOME_RESOLVERS,
    SUBNET,
    SUBNET6,
    UNICAST,
    AddressPort,
    HostPort,
    Kind,
    UnixPath,
    choice,
    duration,
    integer,
    size,
    unless,
)
from appliance.domain.tiers import Tier

KeyPath = tuple[str, ...]

KEEP = "3650d"  # of invoices; also without [pricing], where lines have no costs
INTERVALS_UNTIL_LATE = 3  # of meter.interval: then the exit takes no new sessions


@dataclass(frozen=True, slots=True)
class Key:
    """Describes a key. `default` is a TOML value; for the tiers' keys a tuple: anonymous, free, paid."""

    kind: Kind
    default: object
    remark: str


@dataclass(frozen=True, slots=True)
class NodeSettings:
    """Mirrors [node]."""

    name: Annotated[str, Key(NAME, "", 'this exit host; "": the host\'s name')]
    region: Annotated[str, Key(REGION, "local", "the code clients ask for")]
    public_ip: Annotated[
        IPv4Address | IPv6Address | None,
        Key(unless("auto", UNICAST, "the address of the default route"), "auto", "the address clients connect to"),
    ]
    state_dir: Annotated[Path, Key(PATH, "/var/lib/wg-appliance", "store and server key")]


@dataclass(frozen=True, slots=True)
class WireGuardSettings:
    """Mirrors [wireguard]."""

    backend: Annotated[
        Literal["auto", "kernel", "userspace"],
        Key(
            choice("auto", "kernel", "userspace"),
            "auto",
            "kernel | userspace (wireguard-go) | auto: kernel if it can",
        ),
    ]
    interface: Annotated[str, Key(INTERFACE, "wga0", "created and owned by the appliance")]
    listen_port: Annotated[int, Key(PORT, 51820, "UDP")]
    endpoint: Annotated[
        IPv4Address | IPv6Address | str | None,
        Key(unless("", ENDPOINT, "public_ip"), "", 'what clients dial: a host name or an address; "": public_ip'),
    ]
    endpoint_port: Annotated[int, Key(PORT, 51820, "the port clients connect to, if it differs; default: listen_port")]
    subnet: Annotated[IPv4Network, Key(SUBNET, "10.101.0.0/24", "/30 to /16; the first host address is the exit's own")]
    subnet6: Annotated[
        IPv6Network | None,
        Key(unless("", SUBNET6, "no IPv6"), "fd65:7869:7400::/112", '"": no IPv6 in the tunnel\'s addresses'),
    ]
    mtu: Annotated[
        int | None,
        Key(
            unless("auto", integer(576, 9000), "what the uplink leaves, 1280 to 1420, and no line in clients' files"),
            "auto",
            "auto: what the uplink leaves; a number: in clients' files too",
        ),
    ]
    dns: Annotated[
        tuple[IPv4Address | IPv6Address, ...],
        Key(RESOLVERS, [], "addresses for a DNS line in clients' configs, 8 at most; []: none"),
    ]
    app_dns: Annotated[
        tuple[IPv4Address | IPv6Address, ...],
        Key(SOME_RESOLVERS, ["9.9.9.9", "2620:fe::fe"], "the same, of files made for apps where dns is empty"),
    ]
    keepalive: Annotated[
        int,
        Key(integer(0, 65535), 25, "seconds; 0: off; a client that sends nothing is then idle (idle_timeout)"),
    ]
    apply_timeout: Annotated[int, Key(duration("1s", "1h"), "5s", "for the exit to accept a new peer")]
    keep_on_exit: Annotated[bool, Key(FLAG, True, "tunnels outlive the process: a restart disconnects no client")]

    @property
    def own_addresses(self) -> frozenset[str]:
        """Returns the exit's addresses inside the tunnel."""
        return frozenset(str(subnet[1]) for subnet in (self.subnet, self.subnet6) if subnet is not None)


@dataclass(frozen=True, slots=True)
class EgressSettings:
    """Mirrors [egress]."""

    block_smtp: Annotated[bool, Key(FLAG, True, "tcp 25, 465, 587, 2525")]
    block_private: Annotated[
        bool, Key(FLAG, True, "private, link-local (cloud metadata), other special networks, this host")
    ]
    isolate_clients: Annotated[bool, Key(FLAG, True, "clients do not reach each other")]
    extra_block: Annotated[tuple[IPv4Network | IPv6Network, ...], Key(NETWORKS, [], "more networks to block")]
    extra_allow: Annotated[
        tuple[IPv4Network | IPv6Network | AddressPort, ...],
        Key(DESTINATIONS, [], "networks, or ADDRESS:PORT, that block_private would block"),
    ]
    max_flows: Annotated[
        int | None,
        Key(
            unless("auto", integer(0, 10_000_000), "4096, at most a sixteenth of what the host can track"),
            "auto",
            "connections of one client at a time, both IP versions; 0: no limit",
        ),
    ]
    new_flows: Annotated[
        int, Key(integer(0, 100_000), 200, "new ones a second of one client, ten times that at once; 0: no limit")
    ]
    forward_others: Annotated[bool, Key(FLAG, False, "this host forwards between its other networks too")]
    mark: Annotated[
        int | None,
        Key(unless("auto", MARK, "one that no rule here uses"), "auto", "of packets let in: a bit, 0x1 to 0x80000000"),
    ]
    rule_priority: Annotated[
        int | None,
        Key(unless("auto", RULE_PRIORITY, "the first free ones"), "auto", "of the first of three ip rules"),
    ]


@dataclass(frozen=True, slots=True)
class ApiSettings:
    """Mirrors [api]."""

    listen: Annotated[
        tuple[HostPort | UnixPath, ...],
        Key(LISTENERS, "127.0.0.1:8080", "host:port or unix:/path, or a list of them; [::] is both IP versions"),
    ]
    tls_cert: Annotated[Path | None, Key(unless("", PATH, "no TLS"), "", "PEM file; with tls_key: HTTPS")]
    tls_key: Annotated[Path | None, Key(unless("", PATH, "no TLS"), "", "PEM file")]
    insecure_http: Annotated[bool, Key(FLAG, False, "plain HTTP on a non-loopback address is refused unless true")]
    max_body: Annotated[int, Key(size("1 B", "1 GiB"), "64 KiB", "of a request")]
    public_requests_per_minute: Annotated[int, Key(integer(1), 60, "per source address, without a token")]
    public_burst: Annotated[int, Key(integer(1), 10, "requests at once before that rate holds")]
    trusted_proxies: Annotated[
        tuple[IPv4Network | IPv6Network, ...], Key(NETWORKS, [], "networks whose X-Forwarded-For names the source")
    ]
    proxy_in_tunnel: Annotated[
        bool, Key(FLAG, False, "true: clients reach a proxy on this host's 443 from inside the tunnel")
    ]

    @property
    def url(self) -> str:
        """Returns the URL of the first listener, at an address that this host can dial; a Unix socket's name."""
        first = self.listen[0]
        return self._url(first if isinstance(first, UnixPath) else first.dialled)

    @property
    def urls(self) -> tuple[str, ...]:
        """Returns the URL of each listener, at the address that it listens on."""
        return tuple(map(self._url, self.listen))

    def _url(self, listener: HostPort | UnixPath) -> str:
        scheme = "https" if self.tls_cert else "http"
        return str(listener) if isinstance(listener, UnixPath) else f"{scheme}://{listener}"

    @property
    def loopback(self) -> bool:
        """Tells whether no other host reaches the API directly."""
        return all(each.loopback for each in self.listen)


@dataclass(frozen=True, slots=True)
class MetricsSettings:
    """Mirrors [metrics]."""

    listen: Annotated[
        HostPort | UnixPath | None, Key(unless("", LISTEN, "off"), "127.0.0.1:9586", 'for Prometheus; "": off')
    ]

    @property
    def url(self) -> str | None:
        """Returns the URL of the metrics, at the address that is listened on; for a Unix socket, its name and the path;
        None if they are off."""
        if self.listen is None:
            return None
        return f"{self.listen}, at /metrics" if isinstance(self.listen, UnixPath) else f"http://{self.listen}/metrics"


@dataclass(frozen=True, slots=True)
class MeterSettings:
    """Mirrors [meter]."""

    interval: Annotated[int, Key(duration("1s", "1d"), "10s", "between two readings that are stored")]
    retention: Annotated[int, Key(duration(), "90d", "how long an ended session is kept; 0: for ever")]

    @property
    def patience(self) -> int:
        """Returns the age of the last reading, in seconds, from which the exit is not ready."""
        return INTERVALS_UNTIL_LATE * self.interval


@dataclass(frozen=True, slots=True)
class Pricing:
    """Mirrors [pricing]: prices in millicents (1/1000 of a cent): 100,000 are one unit of the currency."""

    currency: Annotated[str, Key(CURRENCY, "eur", "ISO 4217")]
    millicents_per_minute: Annotated[int, Key(integer(), 1000, "of time that counts (help prices); 1000: a cent")]
    millicents_per_gib: Annotated[int, Key(integer(), 1000, "both directions together")]
    keep: Annotated[int, Key(duration(), KEEP, "invoice lines and daily totals, from a session's end; 0: for ever")]


@dataclass(frozen=True, slots=True)
class TierSettings:
    """Mirrors a tier's section, such as [tiers.free]."""

    bytes_limit: Annotated[int, Key(size(), ("1 GiB", "5 GiB", 0), "a window, both directions; 0: unmetered")]
    bytes_window: Annotated[int, Key(duration("1s"), ("7d", "7d", "7d"), "opens at the first use")]
    seconds_limit: Annotated[int, Key(duration(), ("30m", "2h", 0), "a window, while tunnels can carry; 0: unmetered")]
    seconds_window: Annotated[int, Key(duration("1s"), ("24h", "24h", "24h"), "opens at the first use")]
    max_session: Annotated[int, Key(duration("1s", "30d"), ("30d", "30d", "30d"), "hard cutoff; 30d at most")]
    max_live_sessions: Annotated[int, Key(integer(), (2, 5, 0), "0: unlimited")]
    max_devices: Annotated[
        int | None,
        Key(
            unless("none", integer(), "no devices"), ("none", 3, 0), 'peers that stay; 0: unlimited; "none": no devices'
        ),
    ]
    requests_per_minute: Annotated[int, Key(integer(1), (60, 120, 600), "per token")]
    idle_timeout: Annotated[
        int, Key(duration(), ("5m", "5m", "5m"), "without a new handshake; they come every 2m at best; 0: never")
    ]


@dataclass(frozen=True, slots=True)
class FleetSettings:
    """Mirrors [fleet], which is read only once this host is in a fleet."""

    listen: Annotated[HostPort, Key(TCP_LISTEN, "0.0.0.0:7422", "of a hub: host:port, for the other exits")]
    advertise: Annotated[
        str | None, Key(unless("", DIALLED, "node.public_ip"), "", 'what they dial, if it differs; "": node.public_ip')
    ]
    report: Annotated[int, Key(duration("1s", "1h"), "60s", "between two reports of a live session's use to the hub")]
    offline_tokens: Annotated[
        int, Key(duration("0s", "30d"), "24h", "known tokens open sessions for so long without a hub")
    ]
    when_cut_off: Annotated[
        Literal["share", "strict"],
        Key(choice("share", "strict"), "share", "share | strict: of what is left of a quota, while there is no hub"),
    ]
    servers: Annotated[
        tuple[HostPort, ...], Key(SERVERS, [], "an operator's own NATS, 2.12 or later, in place of hubs")
    ]


@dataclass(frozen=True, slots=True)
class Settings:
    """Holds all settings: sizes in bytes, durations in seconds. `pricing` is None if no price is configured."""

    node: NodeSettings
    wireguard: WireGuardSettings
    egress: EgressSettings
    api: ApiSettings
    metrics: MetricsSettings
    meter: MeterSettings
    fleet: FleetSettings
    pricing: Pricing | None
    tiers: Mapping[str, TierSettings]


TIERS = tuple(Tier)
SECTIONS: Mapping[KeyPath, type] = {
    ("node",): NodeSettings,
    ("wireguard",): WireGuardSettings,
    ("egress",): EgressSettings,
    ("api",): ApiSettings,
    ("metrics",): MetricsSettings,
    ("meter",): MeterSettings,
    ("fleet",): FleetSettings,
    ("pricing",): Pricing,
} | {("tiers", tier): TierSettings for tier in TIERS}


def _keys() -> dict[KeyPath, Key]:
    keys = {}
    for section, settings in SECTIONS.items():
        for name, hint in get_type_hints(settings, include_extras=True).items():
            (key,) = hint.__metadata__
            if isinstance(key.default, tuple):
                key = Key(key.kind, key.default[TIERS.index(section[1])], key.remark)
            keys[*section, name] = key
    return keys


KEYS: Mapping[KeyPath, Key] = _keys()


def by_key(settings: Settings) -> dict[str, str]:
    """Returns each value as text, by its dotted key; without [pricing], its keys are missing."""
    return {
        ".".join(path): ", ".join(map(str, value)) if isinstance(value, tuple) else str(value)
        for path in KEYS
        for value in _value(settings, path)
    }


def _value(settings: Settings, path: KeyPath) -> Iterator[object]:
    section = settings.tiers[path[1]] if path[0] == "tiers" else getattr(settings, path[0])
    if section is not None:
        yield getattr(section, path[-1])
