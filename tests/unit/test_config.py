"""Configuration as a whole: defaults, the written file, keys together, the environment, files."""

from __future__ import annotations

import dataclasses
import socket
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_network
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from appliance.config.cautions import cautions
from appliance.config.load import HostPort, Settings, check_overlap, parse_settings, read_settings
from appliance.config.settings import KEYS, SECTIONS
from appliance.config.template import default_text
from appliance.domain.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Mapping

GIB = 1024**3
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


# Defaults -----------------------------------------------------------------------------------------

DEFAULTS: Mapping[str, object] = {
    "node.name": "host",
    "node.region": "local",
    "node.public_ip": None,
    "node.state_dir": Path("/var/lib/wg-appliance"),
    "wireguard.backend": "auto",
    "wireguard.interface": "wga0",
    "wireguard.listen_port": 51820,
    "wireguard.endpoint": None,
    "wireguard.endpoint_port": 51820,
    "wireguard.subnet": IPv4Network("10.101.0.0/24"),
    "wireguard.subnet6": IPv6Network("fd65:7869:7400::/112"),
    "wireguard.mtu": None,
    "wireguard.dns": (),
    "wireguard.app_dns": (IPv4Address("9.9.9.9"), IPv6Address("2620:fe::fe")),
    "wireguard.keepalive": 25,
    "wireguard.apply_timeout": 5,
    "wireguard.keep_on_exit": True,
    "egress.block_smtp": True,
    "egress.block_private": True,
    "egress.isolate_clients": True,
    "egress.extra_block": (),
    "egress.extra_allow": (),
    "egress.max_flows": None,  # auto
    "egress.new_flows": 200,
    "egress.forward_others": False,
    "egress.mark": None,
    "egress.rule_priority": None,
    "api.listen": (HostPort("127.0.0.1", 8080),),
    "api.tls_cert": None,
    "api.tls_key": None,
    "api.insecure_http": False,
    "api.max_body": 64 * 1024,
    "api.public_requests_per_minute": 60,
    "api.public_burst": 10,
    "api.trusted_proxies": (),
    "api.proxy_in_tunnel": False,
    "metrics.listen": HostPort("127.0.0.1", 9586),
    "meter.interval": 10,
    "meter.retention": 90 * DAY,
    "fleet.listen": HostPort("0.0.0.0", 7422),  # noqa: S104
    "fleet.advertise": None,
    "fleet.report": 60,
    "fleet.offline_tokens": 86400,
    "fleet.when_cut_off": "share",
    "fleet.servers": (),
    "pricing": None,
} | {
    f"tiers.{tier}.{name}": value
    for tier, values in {
        "anonymous": (GIB, 7 * DAY, 1800, DAY, 30 * DAY, 2, None, 60, 300),
        "free": (5 * GIB, 7 * DAY, 7200, DAY, 30 * DAY, 5, 3, 120, 300),
        "paid": (0, 7 * DAY, 0, DAY, 30 * DAY, 0, 0, 600, 300),
    }.items()
    for name, value in zip(
        (
            "bytes_limit",
            "bytes_window",
            "seconds_limit",
            "seconds_window",
            "max_session",
            "max_live_sessions",
            "max_devices",
            "requests_per_minute",
            "idle_timeout",
        ),
        values,
        strict=True,
    )
}


def test_an_empty_file_gives_every_documented_default() -> None:
    """With nothing configured, each key holds what the documentation says, and there is no undocumented key."""
    settings = parse_settings("", {}, "host")
    assert {key: at(settings, key) for key in DEFAULTS} == DEFAULTS
    assert {".".join(path) for path in KEYS if path[0] != "pricing"} == DEFAULTS.keys() - {"pricing"}


def test_every_field_of_every_section_is_a_key() -> None:
    """A field added to a dataclass cannot be forgotten: it is a key, and every section of Settings is known."""
    fields = {(*section, field.name) for section, cls in SECTIONS.items() for field in dataclasses.fields(cls)}
    assert fields == set(KEYS)
    assert {section[0] for section in SECTIONS} == {field.name for field in dataclasses.fields(Settings)}


def test_environment_names_tell_all_keys_apart() -> None:
    """No two keys share a WG_APPLIANCE_* name."""
    assert len({"_".join(path).upper() for path in KEYS}) == len(KEYS)


@pytest.mark.parametrize(("hostname", "name"), [("exit7", "exit7"), ("", "localhost")])
def test_the_node_is_called_after_the_host(hostname: str, name: str) -> None:
    """node.name is the host's name, also where the host has none."""
    assert parse_settings("", {}, hostname).node.name == name


def test_clients_dial_the_listen_port_unless_told_otherwise() -> None:
    """Changing listen_port alone moves the endpoint along; a stated endpoint_port stays."""
    assert parse_settings("[wireguard]\nlisten_port = 500", {}, "host").wireguard.endpoint_port == 500
    both = parse_settings("[wireguard]\nlisten_port = 500\nendpoint_port = 51820", {}, "host")
    assert both.wireguard.endpoint_port == 51820


def test_settings_cannot_be_changed() -> None:
    """Settings are frozen, the mapping of tiers too."""
    settings = parse_settings("", {}, "host")
    with pytest.raises(dataclasses.FrozenInstanceError):
        settings.node.name = "other"  # type: ignore[misc]  # the point of the test
    with pytest.raises(TypeError):
        settings.tiers["gold"] = settings.tiers["paid"]  # type: ignore[index]  # the point of the test


# The written file -------------------------------------------------------------------------------


def uncommented(text: str) -> str:
    """The text with every commented key in force, [pricing] too."""
    lines = text.splitlines()
    return "\n".join(line[1:] if line.startswith("#") and line[1:2] not in ("", " ") else line for line in lines)


def test_the_written_file_gives_exactly_the_defaults() -> None:
    """What init writes changes nothing as it is."""
    assert parse_settings(default_text(), {}, "host") == parse_settings("", {}, "host")


def test_the_written_file_states_every_key_at_its_default() -> None:
    """With its keys uncommented the written file still gives the defaults, and prices where there were none."""
    text = uncommented(default_text())
    assert parse_settings(text, {}, "host") == parse_settings("[pricing]", {}, "host")
    for path in KEYS:
        assert text.count(f"\n{path[-1]} = ") == sum(other[-1] == path[-1] for other in KEYS), path


def test_the_written_file_can_be_read_on_a_terminal() -> None:
    """Each key carries a remark, and no line is longer than 120 characters."""
    for line in default_text().splitlines():
        assert len(line) <= 120, line
        assert "=" not in line or "  # " in line, line


# Keys that must fit each other --------------------------------------------------------------------


def test_smaller_mtus_are_for_ipv4_alone() -> None:
    """Below 1280 there is no IPv6; without subnet6 the tunnel may go down to 576."""
    assert parse_settings('[wireguard]\nmtu = 576\nsubnet6 = ""', {}, "host").wireguard.mtu == 576


@pytest.mark.parametrize(("prefix", "prefix6"), [(16, 112), (24, 120), (30, 126)])
def test_subnet6_holds_as_many_addresses_as_subnet(prefix: int, prefix6: int) -> None:
    """A subnet6 of exactly the subnet's size is enough; the next smaller one is refused."""
    text = '[wireguard]\nsubnet = "10.0.0.0/{}"\nsubnet6 = "fd00::/{}"'
    assert parse_settings(text.format(prefix, prefix6), {}, "host").wireguard.subnet.prefixlen == prefix
    assert f'wireguard.subnet6 = "fd00::/{prefix6 + 1}"' in refusal(text.format(prefix, prefix6 + 1))


@pytest.mark.parametrize("address", ["10.101.0.9", "fd65:7869:7400::9"])
def test_the_public_address_is_not_a_tunnel_address(address: str) -> None:
    """Clients could not dial an endpoint inside the tunnel."""
    assert f'node.public_ip = "{address}"' in refusal(toml("node.public_ip", f'"{address}"'))


@pytest.mark.parametrize("address", ["10.101.0.9", "fd65:7869:7400::9"])
def test_the_endpoint_is_not_a_tunnel_address(address: str) -> None:
    """Clients could not dial it either."""
    assert f'wireguard.endpoint = "{address}"' in refusal(toml("wireguard.endpoint", f'"{address}"'))


def test_a_list_of_listeners_is_public_if_one_is() -> None:
    """Plain HTTP to others is refused wherever in the list it stands; the same socket for the metrics too."""
    text = '[api]\nlisten = ["127.0.0.1:1", "192.0.2.1:2"]'
    assert 'api.listen = "192.0.2.1:2"' in refusal(text)
    api = parse_settings(f"{text}\ninsecure_http = true", {}, "host").api
    assert (api.urls, api.loopback) == (("http://127.0.0.1:1", "http://192.0.2.1:2"), False)
    assert "metrics.listen" in refusal('[api]\nlisten = ["127.0.0.1:1", "127.0.0.1:9586"]')


@pytest.mark.parametrize(("given_key", "missing"), [("tls_cert", "tls_key"), ("tls_key", "tls_cert")])
def test_certificate_and_key_come_together(given_key: str, missing: str) -> None:
    """One without the other is refused, naming both and the path."""
    message = refusal(toml(f"api.{given_key}", '"/etc/ssl/x.pem"'))
    assert f'api.{missing} = ""' in message
    assert f'api.{given_key} = "/etc/ssl/x.pem"' in message


@pytest.mark.parametrize("extra", ["insecure_http = true", 'tls_cert = "/c"\ntls_key = "/k"'])
def test_the_api_may_face_the_world_on_purpose(extra: str) -> None:
    """A non-loopback listener is accepted with TLS, or where plain HTTP was asked for."""
    (listener,) = parse_settings(f'[api]\nlisten = "0.0.0.0:8080"\n{extra}', {}, "host").api.listen
    assert str(listener) == "0.0.0.0:8080"


@pytest.mark.parametrize("listen", ["127.0.0.1:80", "[::1]:80", "exit.example:80", "unix:/run/x"])
def test_a_listener_prints_as_it_is_written(listen: str) -> None:
    """str() of a listener is the text it came from."""
    assert str(parse_settings(toml("metrics.listen", f'"{listen}"'), {}, "host").metrics.listen) == listen


@pytest.mark.parametrize(
    ("listen", "dialled", "logged", "metrics"),
    [
        ("[::1]:9000", "http://[::1]:9000", "http://[::1]:9000", "http://[::1]:9000/metrics"),
        ("0.0.0.0:9000", "http://127.0.0.1:9000", "http://0.0.0.0:9000", "http://0.0.0.0:9000/metrics"),
        ("[::]:9000", "http://127.0.0.1:9000", "http://[::]:9000", "http://[::]:9000/metrics"),
        ("unix:/run/x/metrics", "unix:/run/x/metrics", "unix:/run/x/metrics", "unix:/run/x/metrics, at /metrics"),
    ],
)
def test_a_listener_is_named_as_it_is_asked(listen: str, dialled: str, logged: str, metrics: str) -> None:
    """A URL at which this host reaches it, and the log's words: where it listens, or the socket and what to ask for."""
    facing = toml("api.listen", f'"{listen}"') + "\ninsecure_http = true"
    api = parse_settings(facing, {}, "host").api
    assert (api.url, api.urls) == (dialled, (logged,))
    assert parse_settings(toml("metrics.listen", f'"{listen}"'), {}, "host").metrics.url == metrics
    assert parse_settings(toml("metrics.listen", '""'), {}, "host").metrics.url is None


def test_api_and_metrics_may_not_share_a_socket() -> None:
    """The same Unix path for both is refused, as the same address and port is."""
    message = refusal('[api]\nlisten = "unix:/run/x"\n[metrics]\nlisten = "unix:/run/x"')
    assert 'metrics.listen = "unix:/run/x"' in message


@pytest.mark.parametrize(
    ("network", "key", "value"),
    [
        ("10.101.0.0/16", "wireguard.subnet", "10.101.0.0/24"),
        ("10.101.0.77/32", "wireguard.subnet", "10.101.0.0/24"),
        ("10.0.0.0/8", "wireguard.subnet", "10.101.0.0/24"),
        ("fd65:7869:7400::/64", "wireguard.subnet6", "fd65:7869:7400::/112"),
    ],
)
def test_a_subnet_the_host_uses_is_refused(network: str, key: str, value: str) -> None:
    """The refusal names the key, its value, the host's network and its interface."""
    used = iter([("lan", ip_network("192.168.0.0/16")), ("wg7", ip_network(network))])
    with pytest.raises(ConfigError) as caught:
        check_overlap(parse_settings("", {}, "host"), used)
    message = str(caught.value)
    assert f'{key} = "{value}"' in message
    assert f"{network} of wg7" in message
    assert len(message.splitlines()) == 1


def test_neighbours_and_default_routes_are_no_overlap() -> None:
    """A default route covers every subnet and is none's; adjacent networks are free, and so is IPv6 unused."""
    others = ("0.0.0.0/0", "::/0", "10.101.1.0/24", "10.100.0.0/16", "fd65::/32")
    check_overlap(parse_settings("", {}, "host"), [("lan", ip_network(text)) for text in others])
    off = parse_settings(toml("wireguard.subnet6", '""'), {}, "host")
    check_overlap(off, [("lan", ip_network("fd65:7869:7400::/64"))])


# Prices and tiers -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "environ"),
    [("[pricing]", {}), ("[pricing]\ncurrency = 'eur'", {}), ("", {"WG_APPLIANCE_PRICING_CURRENCY": "eur"})],
)
def test_naming_pricing_at_all_sets_prices(text: str, environ: dict[str, str]) -> None:
    """The section, even empty, or one of its variables turns prices on, the rest at their defaults."""
    pricing = parse_settings(text, environ, "host").pricing
    assert pricing is not None
    assert (pricing.currency, pricing.millicents_per_minute, pricing.millicents_per_gib) == ("eur", 1000, 1000)
    assert pricing.keep == 3650 * DAY


def test_a_tier_keeps_the_defaults_it_does_not_state() -> None:
    """Stating one key of a tier leaves its others, and the other tiers, at their defaults."""
    settings = parse_settings("[tiers.free]\nmax_live_sessions = 9", {}, "host")
    default = parse_settings("", {}, "host")
    assert settings.tiers["free"] == dataclasses.replace(default.tiers["free"], max_live_sessions=9)
    assert settings.tiers["paid"] == default.tiers["paid"]


# Environment ----------------------------------------------------------------------------------------

OVERRIDES: list[tuple[str, str, str, object]] = [
    ("WG_APPLIANCE_TIERS_FREE_BYTES_LIMIT", "2 GiB", "tiers.free.bytes_limit", 2 * GIB),
    ("WG_APPLIANCE_TIERS_FREE_BYTES_LIMIT", "2048", "tiers.free.bytes_limit", 2048),
    ("WG_APPLIANCE_TIERS_FREE_MAX_DEVICES", "none", "tiers.free.max_devices", None),
    ("WG_APPLIANCE_TIERS_ANONYMOUS_MAX_DEVICES", "1", "tiers.anonymous.max_devices", 1),
    ("WG_APPLIANCE_WIREGUARD_LISTEN_PORT", "500", "wireguard.listen_port", 500),
    ("WG_APPLIANCE_WIREGUARD_SUBNET6", "", "wireguard.subnet6", None),
    (
        "WG_APPLIANCE_WIREGUARD_DNS",
        "9.9.9.9, 1.1.1.1",
        "wireguard.dns",
        (IPv4Address("9.9.9.9"), IPv4Address("1.1.1.1")),
    ),
    ("WG_APPLIANCE_WIREGUARD_DNS", "", "wireguard.dns", ()),
    ("WG_APPLIANCE_EGRESS_BLOCK_SMTP", "false", "egress.block_smtp", False),
    ("WG_APPLIANCE_API_INSECURE_HTTP", "TRUE", "api.insecure_http", True),
    ("WG_APPLIANCE_METRICS_LISTEN", "", "metrics.listen", None),
    ("WG_APPLIANCE_METER_INTERVAL", "2s", "meter.interval", 2),
    ("WG_APPLIANCE_NODE_NAME", "007", "node.name", "007"),
    ("WG_APPLIANCE_PRICING_MILLICENTS_PER_GIB", "7", "pricing.millicents_per_gib", 7),
    ("WG_APPLIANCE_PRICING_KEEP", "0", "pricing.keep", 0),
]


@pytest.mark.parametrize(("name", "text", "key", "value"), OVERRIDES)
def test_the_environment_comes_before_the_file(name: str, text: str, key: str, value: object) -> None:
    """A variable overrides its key, whether the file states the key or not."""
    stated = uncommented(default_text())
    assert at(parse_settings(stated, {name: text}, "host"), key) == value
    assert at(parse_settings("", {name: text, "WG_APPLIANCE_CONFIG": "/x", "PATH": "/bin"}, "host"), key) == value


@pytest.mark.parametrize(
    ("name", "text", "key"),
    [
        ("WG_APPLIANCE_WIREGUARD_MTU", "big", "wireguard.mtu"),
        ("WG_APPLIANCE_WIREGUARD_MTU", "", "wireguard.mtu"),
        ("WG_APPLIANCE_WIREGUARD_LISTEN_PORT", "-1", "wireguard.listen_port"),
        ("WG_APPLIANCE_WIREGUARD_LISTEN_PORT", "\u0665\u0660\u0660", "wireguard.listen_port"),
        ("WG_APPLIANCE_EGRESS_BLOCK_SMTP", "1", "egress.block_smtp"),
        ("WG_APPLIANCE_WIREGUARD_DNS", "9.9.9.9 1.1.1.1", "wireguard.dns"),
        ("WG_APPLIANCE_NODE_NAME", "caf\udce9", "node.name"),
        ("WG_APPLIANCE_TIERS_FREE_MAX_DEVICES", "many", "tiers.free.max_devices"),
    ],
)
def test_a_bad_variable_is_refused_by_name(name: str, text: str, key: str) -> None:
    """One line names the variable, the key and the value."""
    message = refusal("", {name: text})
    assert message.startswith(f"{name}: {key} = ")
    assert text.encode("ascii", "backslashreplace").decode() in message


def test_an_unknown_variable_is_refused_by_name() -> None:
    """A misspelt override must not be passed over in silence; its value, perhaps a secret, is not repeated."""
    message = refusal("", {"WG_APPLIANCE_WIREGUARD_MTUU": "hush", "WG_APPLIANCE_CONFIG": "/x"})
    assert "WG_APPLIANCE_WIREGUARD_MTUU" in message
    assert "did you mean WG_APPLIANCE_WIREGUARD_MTU?" in message
    assert "hush" not in message


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("WG_APPLIANCE_PORT", "tcp://10.0.0.7:8080"),  # of a service called wg-appliance
        ("WG_APPLIANCE_PORT_8080_TCP", "tcp://10.0.0.7:8080"),
        ("WG_APPLIANCE_PORT_8080_TCP_PROTO", "tcp"),
        ("WG_APPLIANCE_PORT_51820_UDP_ADDR", "10.0.0.7"),
        ("WG_APPLIANCE_SERVICE_HOST", "10.0.0.7"),
        ("WG_APPLIANCE_SERVICE_PORT", "8080"),
        ("WG_APPLIANCE_SERVICE_PORT_HTTP", "8080"),
        ("WG_APPLIANCE_API_PORT", "tcp://10.0.0.7:8080"),  # wg-appliance-api
        ("WG_APPLIANCE_API_SERVICE_HOST", "10.0.0.7"),
        ("WG_APPLIANCE_WIREGUARD_PORT_51820_UDP", "udp://10.0.0.7:51820"),
        ("WG_APPLIANCE_NAME", "/web/exit"),  # of a container that is linked
        ("WG_APPLIANCE_ENV_PATH", "/bin"),
        ("WG_APPLIANCE_HOME", "/srv"),
        ("WG_APPLIANCE_", ""),
        ("WG_APPLIANCE_X\n", "hush"),
    ],
)
def test_a_variable_of_a_platform_is_left_alone(
    name: str, text: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """What only looks like ours is named in a warning of one line, without its value, and changes nothing."""
    assert parse_settings("", {name: text}, "host") == parse_settings("", {}, "host")
    read_settings(None, {name: text}, tmp_path / "config.toml")
    (record,) = caplog.records
    assert record.levelname == "WARNING"
    assert record.getMessage().startswith(name.strip() if name.isprintable() else ascii(name))
    assert "left alone" in record.getMessage()
    assert "\n" not in record.getMessage()
    assert not text or text not in record.getMessage()


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("WG_APPLIANCE_TIER_FREE_BYTES_LIMIT", "1"),  # for TIERS
        ("WG_APPLIANCE_WIREGUARD_PORT", "51820"),  # for LISTEN_PORT: a number is no platform's
        ("WG_APPLIANCE_API_LISTENS", "127.0.0.1:1"),
        ("WG_APPLIANCE_EGRES_BLOCK_SMTP", "false"),
        ("WG_APPLIANCE_NODE_ADDRESS", "192.0.2.1"),
    ],
)
def test_a_variable_that_was_meant_is_refused(name: str, text: str) -> None:
    """Misspelt, or of a section of ours: what it was to change would not be changed."""
    assert refusal("", {name: text}).startswith(f"{name}: unknown variable; ")


def test_a_file_may_begin_with_a_byte_order_mark(tmp_path: Path) -> None:
    """The mark that editors of Windows write is no part of the first key; within the file it is refused."""
    file = tmp_path / "config.toml"
    file.write_bytes(b"\xef\xbb\xbf[node]\r\nregion = 'marked'\r\n")
    assert read_settings(file, {}).node.region == "marked"
    file.write_bytes(b"[node]\n\xef\xbb\xbfregion = 'marked'\n")
    with pytest.raises(ConfigError):
        read_settings(file, {})


def test_the_clients_variables_are_none_of_ours() -> None:
    """Where the client's exit is and its token may stand in an operator's environment."""
    environ = {"WG_APPLIANCE_API": "https://exit.example", "WG_APPLIANCE_TOKEN": "secret"}
    assert parse_settings("", environ, "host") == parse_settings("", {}, "host")


def test_an_override_does_not_hide_a_mistake_in_the_file() -> None:
    """A bad value in the file is refused though a variable replaces it."""
    assert "wireguard.mtu = 7" in refusal("[wireguard]\nmtu = 7", {"WG_APPLIANCE_WIREGUARD_MTU": "1400"})


# Files ------------------------------------------------------------------------------------------------


def test_no_file_at_the_default_place_means_all_defaults(tmp_path: Path) -> None:
    """A host without a configuration runs with the defaults and its own name."""
    settings = read_settings(None, {}, default=tmp_path / "none.toml")
    assert settings == parse_settings("", {}, socket.gethostname())


def test_a_named_file_must_exist(tmp_path: Path) -> None:
    """A file named by argument or variable and missing is refused, naming it."""
    missing = tmp_path / "none.toml"
    for path, environ in ((missing, {}), (None, {"WG_APPLIANCE_CONFIG": str(missing)})):
        with pytest.raises(ConfigError, match="No such file") as caught:
            read_settings(path, environ, default=tmp_path / "default.toml")
        assert str(caught.value).startswith(f"{missing}: ")


def test_the_argument_comes_before_the_variable_and_the_variable_before_the_default(tmp_path: Path) -> None:
    """Which of three files is read; an empty variable names none."""
    files = {}
    for region in ("argument", "variable", "default"):
        files[region] = tmp_path / f"{region}.toml"
        files[region].write_text(toml("node.region", f'"{region}"'), encoding="utf-8")
    environ = {"WG_APPLIANCE_CONFIG": str(files["variable"])}
    assert read_settings(files["argument"], environ, files["default"]).node.region == "argument"
    assert read_settings(None, environ, files["default"]).node.region == "variable"
    assert read_settings(None, {"WG_APPLIANCE_CONFIG": ""}, files["default"]).node.region == "default"


def test_messages_name_the_file(tmp_path: Path) -> None:
    """Who has several files must see which one is wrong: its values, its text, its encoding, its kind."""
    file = tmp_path / "c.toml"
    for content, said in (
        (b"[wireguard]\nmtu = 7", "wireguard.mtu = 7"),
        (b"[wireguard", "line 1"),
        (b"[node]\nname = 'caf\xe9'", "not UTF-8 text (at line 2)"),
    ):
        file.write_bytes(content)
        with pytest.raises(ConfigError) as caught:
            read_settings(file, {})
        assert str(caught.value).startswith(f"{file}: ")
        assert said in str(caught.value)
    with pytest.raises(ConfigError, match="Is a directory"):
        read_settings(tmp_path, {})
    with pytest.raises(ConfigError, match="Not a directory"):
        read_settings(None, {}, default=file / "config.toml")


def test_windows_line_ends_are_fine(tmp_path: Path) -> None:
    """CRLF ends a line as LF does."""
    file = tmp_path / "c.toml"
    file.write_bytes(b'[node]\r\nregion = "fsn"\r\n')
    assert read_settings(file, {}).node.region == "fsn"


def test_certificate_and_key_must_be_readable(tmp_path: Path) -> None:
    """A path that is no file is refused at start, naming key and path; with both in place it loads."""
    cert, key, file = tmp_path / "c.pem", tmp_path / "k.pem", tmp_path / "config.toml"
    file.write_text(f'[api]\ntls_cert = "{cert}"\ntls_key = "{key}"\n', encoding="utf-8")
    for name, path in (("tls_cert", cert), ("tls_key", key)):
        with pytest.raises(ConfigError) as caught:
            read_settings(file, {})
        assert f'api.{name} = "{path}"' in str(caught.value)
        path.write_text("pem", encoding="utf-8")
    assert read_settings(file, {}).api.tls_key == key


# What is allowed and hardly meant ------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("", []),
        ("[wireguard]\nkeepalive = 0\n", ["wireguard.keepalive = 0 beside tiers.anonymous.idle_timeout = 300s, "]),
        ("[wireguard]\nkeepalive = 600\n", ["wireguard.keepalive = 600 beside tiers.anonymous.idle_timeout"]),
        ("[wireguard]\nkeepalive = 120\n", []),
        (
            "[wireguard]\nkeepalive = 0\n"
            + "".join(f"[tiers.{t}]\nidle_timeout = 0\n" for t in ("anonymous", "free", "paid")),
            [],
        ),
        ('[tiers.free]\nidle_timeout = "2m"\n', ["tiers.free.idle_timeout = 120s: "]),
        ('[tiers.free]\nidle_timeout = "3m"\n', []),
        (
            '[wireguard]\nkeepalive = 0\n[tiers.free]\nidle_timeout = "1m"\n',
            ["wireguard.keepalive = 0", "tiers.free.idle_timeout = 60s: "],
        ),
        (
            '[fleet]\nservers = ["192.0.2.1:4222"]\nwhen_cut_off = "strict"\n',
            ["fleet.servers: "],
        ),
    ],
)
def test_what_is_hardly_meant_is_said(text: str, named: list[str]) -> None:
    """In one line each, with what to try: what ends sessions in use as idle, or is not used by this version."""
    lines = list(cautions(parse_settings(text, {}, "host")))
    assert len(lines) == len(named)
    assert all(line.startswith(start) for line, start in zip(lines, named, strict=True))
    assert all("; set " in line and "\n" not in line for line in lines)


@pytest.mark.parametrize("key", ["api.trusted_proxies", "egress.extra_block"])
def test_a_network_in_ipv6_form_is_the_ipv4_one(key: str) -> None:
    """Addresses are compared as IPv4: in the other form it would hold nobody."""
    for text, network in (("::ffff:10.0.0.0/104", "10.0.0.0/8"), ("::ffff:192.0.2.7/128", "192.0.2.7/32")):
        assert at(parse_settings(toml(key, f'["{text}"]'), {}, "host"), key) == (ip_network(network),)
    assert at(parse_settings(toml(key, '["::/0"]'), {}, "host"), key) == (ip_network("::/0"),)
