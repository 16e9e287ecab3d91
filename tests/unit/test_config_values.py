"""Configuration, key by key: what each may hold and how the rest is refused."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_network
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.config.load import HostPort, Settings, UnixPath, parse_settings
from appliance.config.settings import KEYS
from appliance.config.value_types import AddressPort
from appliance.domain.errors import ConfigError

DAY = 86400


def toml(key: str, literal: str) -> str:
    section, _, name = key.rpartition(".")
    return f"[{section}]\n{name} = {literal}\n"


def at(settings: Settings, key: str) -> Any:
    value: Any = settings
    for part in key.split("."):
        value = (
            value[part] if isinstance(value, dict) or part in ("anonymous", "free", "paid") else getattr(value, part)
        )
    return value


def refusal(text: str, environ: dict[str, str] | None = None) -> str:
    with pytest.raises(ConfigError) as caught:
        parse_settings(text, environ or {}, "host")
    message = str(caught.value)
    assert len(message.splitlines()) == 1, message
    return message


GOOD: list[tuple[str, str, object]] = [
    ("node.name", '"Ausgang Köln 1"', "Ausgang Köln 1"),
    ("node.region", '"fsn-1"', "fsn-1"),
    ("node.region", f'"{"a" * 32}"', "a" * 32),
    ("node.public_ip", '"auto"', None),
    ("node.public_ip", '"203.0.113.7"', IPv4Address("203.0.113.7")),
    ("node.public_ip", '"2001:db8::7"', IPv6Address("2001:db8::7")),
    ("node.state_dir", '"var/state"', Path("var/state")),
    ("wireguard.backend", '"userspace"', "userspace"),
    ("wireguard.interface", '"wg-exit_15chars"', "wg-exit_15chars"),
    ("wireguard.interface", '"lo1"', "lo1"),
    ("wireguard.listen_port", "65535", 65535),
    ("wireguard.endpoint_port", "1", 1),
    ("wireguard.subnet", '"10.0.0.0/16"', IPv4Network("10.0.0.0/16")),
    ("wireguard.subnet", '"192.168.7.4/30"', IPv4Network("192.168.7.4/30")),
    ("wireguard.subnet6", '""', None),
    ("wireguard.subnet6", '"fd00::/64"', IPv6Network("fd00::/64")),
    ("wireguard.mtu", '"auto"', None),
    ("wireguard.mtu", "1280", 1280),
    ("wireguard.mtu", "9000", 9000),
    ("wireguard.dns", '["9.9.9.9", "2620:fe::fe"]', (IPv4Address("9.9.9.9"), IPv6Address("2620:fe::fe"))),
    ("wireguard.keepalive", "0", 0),
    ("wireguard.keepalive", "65535", 65535),
    ("wireguard.apply_timeout", "1", 1),
    ("wireguard.keep_on_exit", "false", False),
    (
        "egress.extra_block",
        '["198.51.100.0/24", "2001:db8::1"]',
        (ip_network("198.51.100.0/24"), ip_network("2001:db8::1")),
    ),
    (
        "egress.extra_allow",
        '["172.19.0.0/16", "172.19.0.10", "fd00::10", "172.19.0.10:53", "[fd00::10]:65535", "fd00::1:53/128"]',
        (
            *(ip_network("172.19.0.0/16"), ip_network("172.19.0.10"), ip_network("fd00::10")),
            AddressPort(IPv4Address("172.19.0.10"), 53),
            AddressPort(IPv6Address("fd00::10"), 65535),
            ip_network("fd00::1:53"),
        ),
    ),
    ("api.proxy_in_tunnel", "true", True),
    ("api.listen", '"[::1]:443"', (HostPort("::1", 443),)),
    ("api.listen", '["127.0.0.1:80", "[::1]:80"]', (HostPort("127.0.0.1", 80), HostPort("::1", 80))),
    ("api.listen", '["127.0.0.1:80", "unix:/run/x"]', (HostPort("127.0.0.1", 80), UnixPath(Path("/run/x")))),
    ("api.listen", '["127.0.0.1:80", "127.0.0.1:80"]', (HostPort("127.0.0.1", 80),)),
    ("wireguard.endpoint", '"exit.example.org"', "exit.example.org"),
    ("wireguard.endpoint", '"exit-1"', "exit-1"),
    ("wireguard.endpoint", '"198.51.100.7"', IPv4Address("198.51.100.7")),
    ("wireguard.endpoint", '"2001:db8::7"', IPv6Address("2001:db8::7")),
    ("api.listen", '"localhost:443"', (HostPort("localhost", 443),)),
    ("api.listen", '"127.9.9.9:443"', (HostPort("127.9.9.9", 443),)),
    ("api.listen", '"unix:/run/wg-appliance/api.sock"', (UnixPath(Path("/run/wg-appliance/api.sock")),)),
    ("api.max_body", '"1 KiB"', 1024),
    ("api.max_body", '"1KB"', 1000),
    ("api.trusted_proxies", '["10.0.0.0/8"]', (IPv4Network("10.0.0.0/8"),)),
    ("metrics.listen", '""', None),
    ("metrics.listen", '"10.0.0.1:9586"', HostPort("10.0.0.1", 9586)),
    ("meter.interval", '"1s"', 1),
    ("meter.retention", '"24 h"', DAY),
    ("meter.retention", "0", 0),
    ("pricing.keep", '"0s"', 0),
    ("pricing.keep", '"3650d"', 3650 * DAY),
    ("pricing.currency", '"usd"', "usd"),
    ("pricing.millicents_per_minute", "0", 0),
    ("pricing.millicents_per_gib", str(2**63 - 1), 2**63 - 1),
    ("tiers.anonymous.max_session", '"1s"', 1),
    ("tiers.free.max_live_sessions", "0", 0),
    ("tiers.anonymous.max_devices", '"none"', None),
    ("tiers.anonymous.max_devices", "0", 0),
    ("tiers.paid.max_devices", "1", 1),
    ("tiers.paid.max_devices", str(2**63 - 1), 2**63 - 1),
    ("tiers.free.seconds_limit", '"90m"', 5400),
    ("tiers.paid.idle_timeout", "0", 0),
    ("tiers.paid.bytes_limit", '"2 TB"', 2 * 10**12),
    ("tiers.paid.bytes_limit", '"2 TiB"', 2 * 2**40),
    ("tiers.paid.bytes_limit", '"3 MB"', 3 * 10**6),
    ("tiers.paid.bytes_limit", '"3 MiB"', 3 * 2**20),
    ("tiers.paid.bytes_limit", '"3 GB"', 3 * 10**9),
    ("tiers.paid.bytes_limit", '"3 B"', 3),
]


@pytest.mark.parametrize(("key", "literal", "value"), GOOD)
def test_a_stated_value_is_taken(key: str, literal: str, value: object) -> None:
    """The key holds the value in its own type, and no other key moved (but the endpoint with the listen port)."""
    settings = parse_settings(toml(key, literal), {}, "host")
    assert at(settings, key) == value
    assert type(at(settings, key)) is type(value)
    default = parse_settings("[pricing]" if key.startswith("pricing.") else "", {}, "host")
    others = {".".join(path) for path in KEYS if path[0] != "pricing" or default.pricing} - {key}
    moved = {other for other in others if at(settings, other) != at(default, other)}
    assert moved <= ({"wireguard.endpoint_port"} if key == "wireguard.listen_port" else set())


BAD: list[tuple[str, str]] = [
    ("node.name", '"two\\nlines"'),
    ("node.name", f'"{"n" * 65}"'),
    ("node.name", "7"),
    ("node.region", '""'),
    ("node.region", '"FSN"'),
    ("node.region", '"-fsn"'),
    ("node.region", '"fsn\\n"'),
    ("node.region", f'"{"a" * 33}"'),
    ("node.public_ip", '""'),
    ("node.public_ip", '"exit.example"'),
    ("node.public_ip", '"0.0.0.0"'),
    ("node.public_ip", '"224.0.0.1"'),
    ("node.public_ip", '"fe80::1%eth0"'),
    ("node.public_ip", "3405803783"),
    ("node.state_dir", '""'),
    ("node.state_dir", '"a\\u0000b"'),
    ("wireguard.backend", '"Kernel"'),
    ("wireguard.interface", '""'),
    ("wireguard.interface", '"sixteen-chars-xx"'),
    ("wireguard.interface", '"wg/0"'),
    ("wireguard.interface", '"wg 0"'),
    ("wireguard.interface", '"-wg0"'),
    ("wireguard.interface", '"all"'),
    ("wireguard.interface", '"lo"'),
    ("wireguard.listen_port", "0"),
    ("wireguard.listen_port", "65536"),
    ("wireguard.listen_port", "-1"),
    ("wireguard.listen_port", "true"),
    ("wireguard.listen_port", '"51820"'),
    ("wireguard.listen_port", "51820.0"),
    ("wireguard.endpoint_port", "70000"),
    ("wireguard.subnet", '"10.0.0.0/15"'),
    ("wireguard.subnet", '"10.0.0.0/31"'),
    ("wireguard.subnet", '"10.0.0.1/24"'),
    ("wireguard.subnet", '"10.0.0.0"'),
    ("wireguard.subnet", '"fd00::/112"'),
    ("wireguard.subnet", '"127.0.0.0/24"'),
    ("wireguard.subnet", '"224.1.0.0/24"'),
    ("wireguard.subnet", '"240.0.0.0/24"'),
    ("wireguard.subnet", '"169.254.0.0/16"'),
    ("wireguard.subnet", '""'),
    ("wireguard.subnet6", '"10.0.0.0/24"'),
    ("wireguard.subnet6", '"fd00::/63"'),
    ("wireguard.subnet6", '"fd00::/127"'),
    ("wireguard.subnet6", '"fd00::1/112"'),
    ("wireguard.subnet6", '"fe80::/64"'),
    ("wireguard.subnet6", '"::/112"'),
    ("wireguard.mtu", "575"),
    ("wireguard.mtu", "9001"),
    ("wireguard.mtu", '"automatic"'),
    ("wireguard.mtu", '"1420"'),
    ("wireguard.dns", '"9.9.9.9"'),
    ("wireguard.app_dns", "[]"),
    ("wireguard.app_dns", '["127.0.0.1"]'),
    ("wireguard.dns", '["dns.example"]'),
    ("wireguard.dns", "[9]"),
    ("wireguard.keepalive", "65536"),
    ("wireguard.keepalive", "-1"),
    ("wireguard.keepalive", '"25s"'),
    ("wireguard.apply_timeout", "0"),
    ("wireguard.apply_timeout", "5.0"),
    ("wireguard.apply_timeout", '"5"'),
    ("wireguard.apply_timeout", "nan"),
    ("wireguard.keep_on_exit", "1"),
    ("wireguard.keep_on_exit", '"true"'),
    ("egress.block_smtp", "0"),
    ("egress.extra_block", '["10.0.0.1/8"]'),
    ("egress.extra_block", '[["10.0.0.0/8"]]'),
    ("egress.extra_allow", '"172.19.0.10:53"'),
    ("egress.extra_allow", "[53]"),
    ("egress.extra_allow", '["172.19.0.1/16"]'),
    ("egress.extra_allow", '["172.19.0.10:0"]'),
    ("egress.extra_allow", '["172.19.0.10:65536"]'),
    ("egress.extra_allow", '["172.19.0.10:053"]'),
    ("egress.extra_allow", '["172.19.0.10:domain"]'),
    ("egress.extra_allow", '["172.19.0.10:53/udp"]'),
    ("egress.extra_allow", '["172.19.0.0/16:53"]'),
    ("egress.extra_allow", '["172.19.0.10 :53"]'),
    ("egress.extra_allow", '[" 172.19.0.10:53"]'),
    ("egress.extra_allow", '["172.19.0.10:53\\n"]'),
    ("egress.extra_allow", '["172.19.0.300:53"]'),
    ("egress.extra_allow", '["0.0.0.0:53"]'),
    ("egress.extra_allow", '["224.0.0.251:5353"]'),
    ("egress.extra_allow", '["resolver:53"]'),
    ("egress.extra_allow", '["resolver"]'),
    ("egress.extra_allow", '[""]'),
    ("egress.extra_allow", '["fd00::1:53"]'),
    ("egress.extra_allow", '["fd00::10/64"]'),
    ("egress.extra_allow", '["[fd00::10]"]'),
    ("egress.extra_allow", '["[fd00::10%eth0]:53"]'),
    ("egress.extra_allow", '["[172.19.0.10]:53"]'),
    ("egress.extra_allow", '["[::ffff:172.19.0.10]:53"]'),
    ("egress.extra_allow", '["::ffff:172.19.0.0/112"]'),
    ("api.proxy_in_tunnel", "1"),
    ("api.listen", '""'),
    ("api.listen", "[]"),
    ("api.listen", '["127.0.0.1:80", ""]'),
    ("api.listen", '["127.0.0.1:80", 80]'),
    ("metrics.listen", '["127.0.0.1:80"]'),
    ("wireguard.endpoint", "false"),
    ("wireguard.endpoint", '"exit.example:51820"'),
    ("wireguard.endpoint", '"[2001:db8::7]"'),
    ("wireguard.endpoint", '"exit_1.example"'),
    ("wireguard.endpoint", '"-exit.example"'),
    ("wireguard.endpoint", '"exit..example"'),
    ("wireguard.endpoint", f'"{"a" * 64}.example"'),
    ("wireguard.endpoint", f'"{".".join(["a" * 60] * 5)}"'),
    ("wireguard.endpoint", '"exit.example\\nPostUp = true"'),
    ("wireguard.endpoint", '"192.0.2.256"'),
    ("wireguard.endpoint", '"0.0.0.0"'),
    ("wireguard.endpoint", '"224.0.0.1"'),
    ("wireguard.endpoint", '"fe80::1%eth0"'),
    ("wireguard.endpoint", '"::ffff:192.0.2.1"'),
    ("api.listen", '"8080"'),
    ("api.listen", '":8080"'),
    ("api.listen", '"127.0.0.1"'),
    ("api.listen", '"127.0.0.1:0"'),
    ("api.listen", '"127.0.0.1:65536"'),
    ("api.listen", '"127.0.0.256:80"'),
    ("api.listen", '"::1:8080"'),
    ("api.listen", '"[::1]"'),
    ("api.listen", '"[127.0.0.1]:80"'),
    ("api.listen", '"unix:run/api.sock"'),
    ("api.listen", f'"unix:/{"x" * 107}"'),
    ("api.tls_cert", "true"),
    ("api.insecure_http", '"yes"'),
    ("api.max_body", "0"),
    ("api.max_body", '"64 kib"'),
    ("api.max_body", '"1.5 KiB"'),
    ("api.max_body", '"KiB"'),
    ("api.max_body", '"-1 KiB"'),
    ("api.max_body", '"٣ KiB"'),
    ("api.max_body", '"2 GiB"'),
    ("api.public_requests_per_minute", "0"),
    ("api.public_burst", "0"),
    ("api.trusted_proxies", '["proxy"]'),
    ("metrics.listen", '"off"'),
    ("meter.interval", "0"),
    ("meter.interval", '"500ms"'),
    ("meter.retention", "-1"),
    ("meter.retention", '"1h30m"'),
    ("meter.retention", '"36501d"'),
    ("meter.retention", "2026-11-01"),
    ("pricing.keep", "-1"),
    ("pricing.keep", '"10y"'),
    ("pricing.keep", '"36501d"'),
    ("pricing.currency", '"EUR"'),
    ("pricing.currency", '"euro"'),
    ("pricing.currency", '"€€€"'),
    ("pricing.millicents_per_minute", "-1"),
    ("pricing.millicents_per_gib", "0.5"),
    ("pricing.millicents_per_gib", str(2**63)),
    ("tiers.anonymous.max_session", "0"),
    ("tiers.anonymous.max_session", '"31d"'),
    ("tiers.free.max_session", str(30 * DAY + 1)),
    ("tiers.free.bytes_limit", "-1"),
    ("tiers.free.bytes_limit", str(2**63)),
    ("tiers.free.bytes_limit", '"9000000000 GiB"'),
    ("tiers.free.bytes_limit", "true"),
    ("tiers.free.bytes_limit", "{ value = 1 }"),
    ("tiers.free.bytes_window", "0"),
    ("tiers.paid.max_live_sessions", "-1"),
    ("tiers.free.max_devices", "-1"),
    ("tiers.free.max_devices", "2.0"),
    ("tiers.free.max_devices", "true"),
    ("tiers.free.max_devices", '"3"'),
    ("tiers.free.max_devices", '"None"'),
    ("tiers.free.max_devices", '""'),
    ("tiers.free.max_devices", str(2**63)),
    ("tiers.paid.requests_per_minute", "0"),
    ("tiers.paid.idle_timeout", "-1"),
]


@pytest.mark.parametrize(("key", "literal"), BAD)
def test_an_impossible_value_is_refused_by_name(key: str, literal: str) -> None:
    """One line names the key, the value and what is allowed."""
    message = refusal(toml(key, literal))
    assert message.startswith(f"config.toml: {key} = ")
    assert ": must be " in message
    value = literal.strip('"[]{} ').encode("ascii", "backslashreplace").decode()
    assert value[:40].replace("value = 1", '"value": 1').replace("nan", "NaN") in message


AGAINST_OTHERS: list[tuple[str, str]] = [
    ("wireguard.subnet6", '"fd00::/125"'),  # 8 addresses for the default subnet's 256
    ("wireguard.mtu", "1279"),  # with the default subnet6
    ("api.listen", '"0.0.0.0:8080"'),  # plain HTTP for everybody
    ("api.listen", '"[::]:8080"'),
    ("api.listen", '"exit.example:8080"'),
    ("metrics.listen", '"127.0.0.1:8080"'),  # the API's
]


@pytest.mark.parametrize(("key", "literal"), AGAINST_OTHERS)
def test_a_value_the_other_defaults_forbid_is_refused_by_name(key: str, literal: str) -> None:
    """Possible by itself, but not with the other keys as they are: one line names key, value and way out."""
    message = refusal(toml(key, literal))
    assert message.startswith(f"{key} = {literal}: must ")


def test_a_value_of_a_whole_screen_is_cut() -> None:
    """A message stays readable, whatever a value's length; also of a number Python refuses to print."""
    assert len(refusal(toml("node.region", f'"{"x" * 100_000}"'))) < 400
    assert len(refusal(toml("wireguard.mtu", "0x" + "f" * 10_000))) < 400


UNKNOWN: list[tuple[str, str, str]] = [
    ("[wireguard]\nmtuu = 1400", "wireguard.mtuu = 1400", "did you mean wireguard.mtu?"),
    ("[api]\nretention = 7", "api.retention = 7", "did you mean meter.retention?"),
    ("mtu = 1400", "mtu = 1400", "did you mean wireguard.mtu?"),
    ("[wiregaurd]\nmtu = 1400", 'wiregaurd = {"mtu": 1400}', "did you mean wireguard?"),
    ("[NODE]\nname = 'x'", "NODE = ", "did you mean node?"),
    ("[tiers.gold]\nbytes_limit = 1", 'tiers.gold = {"bytes_limit": 1}', "unknown key; [tiers] may hold anonymous"),
    ("[tiers]\nbytes_limit = 1", "tiers.bytes_limit = 1", "may hold anonymous, free, paid"),
    ("[wireguard]\nport = 1", "wireguard.port = 1", "unknown key; [wireguard] may hold"),
    ("[tiers.free]\nbyte_limit = 1", "tiers.free.byte_limit = 1", "did you mean tiers.free.bytes_limit?"),
    ('"node.name" = 5', '"node.name" = 5', "unknown key"),
    ('[node]\n"na\\nme" = 5', 'node."na\\nme" = 5', "did you mean node.name?"),
    ('"" = 5', '"" = 5', "the file may hold api, egress"),
    ("[node.name]\nx = 1", 'node.name = {"x": 1}', "must be text"),
    ("node = 5", "node = 5", "must be a table, [node]"),
    ("[[tiers]]\nx = 1", 'tiers = [{"x": 1}]', "must be a table, [tiers]"),
]


@pytest.mark.parametrize(("text", "said", "hint"), UNKNOWN)
def test_an_unknown_key_is_refused_and_the_nearest_suggested(text: str, said: str, hint: str) -> None:
    """One line names the key, its value and what was probably meant, or what the table may hold."""
    message = refusal(text)
    assert said in message
    assert hint in message


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("[node]\nname = \n", "line 2"),
        ("[node]\nname = 'a'\nname = 'b'\n", "line 3"),
        ("[node]\n\n[node]\n", "line 3"),
        ("[node]\nname = 'a", "line 2"),
        ("[wireguard]\ndns = [\n", "line 3"),
        ("<node/>", "line 1"),
    ],
)
def test_bad_toml_is_refused_with_its_line(text: str, line: str) -> None:
    """One line names the file, the line and the reason."""
    with pytest.raises(ConfigError) as caught:
        parse_settings(text, {}, "host", "/etc/x.toml")
    message = str(caught.value)
    assert message.startswith("/etc/x.toml: ")
    assert line in message
    assert len(message.splitlines()) == 1


@pytest.mark.parametrize("text", ["x = " + "[" * 100_000, "x = " + "9" * 5000])
def test_hostile_toml_is_refused(text: str) -> None:
    """Nesting without end and numbers without end are refused like any other mistake."""
    refusal(text)


@given(st.text())
def test_no_text_crashes_it(text: str) -> None:
    """Any text either loads or is refused in one line."""
    message = ""
    try:
        parse_settings(text, {}, "host")
    except ConfigError as error:
        message = str(error)
    assert len(message.splitlines()) <= 1


@given(
    st.sampled_from(sorted(KEYS)),
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(), lambda inner: st.lists(inner, max_size=3)
    ),
)
def test_no_value_crashes_it(path: tuple[str, ...], value: object) -> None:
    """Every kind of value meets anything TOML may hold with a value or ValueError, never another exception."""
    try:
        KEYS[path].kind.parse(value)
    except ValueError:
        return
