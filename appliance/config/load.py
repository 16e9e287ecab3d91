"""Loads frozen `Settings` from TOML text and the environment.

`parse_settings` and `check_overlap` are pure; `read_settings` is the edge that reads files and the host's name. Every
refusal is a `ConfigError` of one line: the source of the value, the key, the value, and what is allowed.
"""

from __future__ import annotations

import difflib
import json
import logging
import os
import re
import socket
import tomllib
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from appliance.config import foreign_variables, reject_after
from appliance.config.foreign_variables import NAMES, PREFIX
from appliance.config.settings import (
    KEYS,
    SECTIONS,
    TIERS,
    ApiSettings,
    EgressSettings,
    FleetSettings,
    KeyPath,
    MeterSettings,
    MetricsSettings,
    NodeSettings,
    Pricing,
    Settings,
    TierSettings,
    WireGuardSettings,
)
from appliance.config.value_types import HostPort, UnixPath, show
from appliance.domain.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from ipaddress import IPv4Network, IPv6Network

__all__ = [
    "DEFAULT_PATH",
    "ApiSettings",
    "EgressSettings",
    "FleetSettings",
    "HostPort",
    "MeterSettings",
    "MetricsSettings",
    "NodeSettings",
    "Pricing",
    "Settings",
    "TierSettings",
    "UnixPath",
    "WireGuardSettings",
    "check_overlap",
    "config_path",
    "parse_settings",
    "read_settings",
]

log = logging.getLogger(__name__)

DEFAULT_PATH = Path("/etc/wg-appliance/config.toml")
ENV_FILE = "WG_APPLIANCE_CONFIG"  # names the file; not a setting
AS_ROOT = "; run as root"  # ends the message where that is what to try
ENV_CLIENT = ("WG_APPLIANCE_API", "WG_APPLIANCE_TOKEN")  # the client's: its exit's URL, and its token
NOT_SETTINGS = (ENV_FILE, *ENV_CLIENT, reject_after.VARIABLE)

TABLES = {path[:depth] for path in SECTIONS for depth in range(1, len(path) + 1)}


def config_path(path: Path | None, environ: Mapping[str, str], default: Path = DEFAULT_PATH) -> Path:
    """Returns the configuration file to use: the one named, else the environment's, else the default."""
    return path or Path(environ.get(ENV_FILE) or default)


def read_settings(path: Path | None, environ: Mapping[str, str], default: Path = DEFAULT_PATH) -> Settings:
    """Reads this host's settings. Only the file at the default path may be missing: all defaults apply then.

    Logs which variables only look like settings. Raises ConfigError if the file cannot be read or a value is not
    allowed.
    """
    file = config_path(path, environ, default)
    named = path is not None or bool(environ.get(ENV_FILE))
    settings = parse_settings(_file_text(file, may_be_missing=not named), environ, socket.gethostname(), str(file))
    for line in foreign_variables.warnings(foreign_variables.foreign(environ, NOT_SETTINGS)):
        log.warning("%s", line)
    _check_readable("tls_cert", settings.api.tls_cert)
    _check_readable("tls_key", settings.api.tls_key)
    return settings


def parse_settings(text: str, environ: Mapping[str, str], hostname: str, source: str = "config.toml") -> Settings:
    """Combines TOML `text` and `environ` into settings; `source` names the text in messages. Raises ConfigError."""
    tree = _toml(text, source)
    stated = {path: _value(path, value, source) for path, value in _leaves(tree, source)} | _overrides(environ)
    values = {path: key.kind.parse(key.default) for path, key in KEYS.items()} | stated
    values["node", "name"] = values["node", "name"] or hostname or "localhost"
    if ("wireguard", "endpoint_port") not in stated:
        values["wireguard", "endpoint_port"] = values["wireguard", "listen_port"]

    def section(*path: str) -> dict[str, Any]:
        return {key: value for (*table, key), value in values.items() if tuple(table) == path}

    priced = "pricing" in tree or any(table == "pricing" for table, *_ in stated)
    settings = Settings(
        node=NodeSettings(**section("node")),
        wireguard=WireGuardSettings(**section("wireguard")),
        egress=EgressSettings(**section("egress")),
        api=ApiSettings(**section("api")),
        metrics=MetricsSettings(**section("metrics")),
        meter=MeterSettings(**section("meter")),
        fleet=FleetSettings(**section("fleet")),
        pricing=Pricing(**section("pricing")) if priced else None,
        tiers=MappingProxyType({tier: TierSettings(**section("tiers", tier)) for tier in TIERS}),
    )
    contradiction = next(_contradictions(settings), None)
    if contradiction is not None:
        raise ConfigError(contradiction)
    return settings


def check_overlap(settings: Settings, host_networks: Iterable[tuple[str, IPv4Network | IPv6Network]]) -> None:
    """Raises ConfigError for a tunnel subnet that the host already uses, on an interface (name, network).

    The caller leaves out the networks of the appliance's own interface, which exist after a restart. Default
    routes cover everything and do not count.
    """
    wireguard = settings.wireguard
    taken = tuple(host_networks)
    for key, subnet in (("subnet", wireguard.subnet), ("subnet6", wireguard.subnet6)):
        for name, network in taken:
            if subnet and network.version == subnet.version and network.prefixlen > 0 and network.overlaps(subnet):
                raise ConfigError(
                    f"wireguard.{key} = {show(str(subnet))}: overlaps with {network} of {name}, which this host "
                    "already uses; must be a network that is free here"
                )


# Reading -------------------------------------------------------------------------------------------


def _file_text(file: Path, *, may_be_missing: bool) -> str:
    try:
        return file.read_bytes().decode("utf-8-sig")  # editors of Windows write a byte order mark
    except UnicodeDecodeError as error:
        line = error.object.count(b"\n", 0, error.start) + 1
        raise ConfigError(f"{file}: not UTF-8 text (at line {line})") from None
    except OSError as error:
        if isinstance(error, FileNotFoundError) and may_be_missing:
            return ""
        hint = "; wg-appliance init writes one" if isinstance(error, FileNotFoundError) else ""
        hint = AS_ROOT if isinstance(error, PermissionError) and os.geteuid() != 0 else hint
        raise ConfigError(f"{file}: cannot read the configuration: {error.strerror}{hint}") from None


def _check_readable(key: str, file: Path | None) -> None:
    if file is not None and not (os.path.isfile(file) and os.access(file, os.R_OK)):  # noqa: PTH113  Path's may raise
        raise ConfigError(f"api.{key} = {show(str(file))}: must be a file that the appliance can read")


def _toml(text: str, source: str) -> dict[str, Any]:
    try:
        return tomllib.loads(text)
    except ValueError as error:  # TOMLDecodeError, or an integer with more digits than CPython reads
        last = f"at line {text.count(chr(10)) + 1}, the end"
        raise ConfigError(f"{source}: {str(error).replace('at end of document', last)}") from None
    except RecursionError:
        raise ConfigError(f"{source}: arrays or tables are nested too deeply") from None


def _leaves(tree: Mapping[str, Any], source: str, table: KeyPath = ()) -> Iterator[tuple[KeyPath, object]]:
    for name, value in tree.items():
        path = (*table, name)
        if path in KEYS:
            yield path, value
        elif path not in TABLES:
            raise ConfigError(f"{source}: {_dotted(path)} = {show(value)}: unknown key; {_known(path)}")
        elif isinstance(value, dict):
            yield from _leaves(value, source, path)
        else:
            raise ConfigError(f"{source}: {_dotted(path)} = {show(value)}: must be a table, [{_dotted(path)}]")


def _overrides(environ: Mapping[str, str]) -> dict[KeyPath, Any]:
    values = {}
    left_alone = {*NOT_SETTINGS, *foreign_variables.foreign(environ, NOT_SETTINGS)}
    for name in sorted(name for name in environ if name.startswith(PREFIX) and name not in left_alone):
        path = NAMES.get(name)
        if path is None:
            # The value is not repeated: unlike a key of the file, it may be a secret for another program.
            near = foreign_variables.alike(name)
            meant = f"did you mean {near}? " if near else ""
            raise ConfigError(f"{_bare(name)}: unknown variable; {meant}must be {PREFIX}<SECTION>_<KEY> of a known key")
        values[path] = _value(path, KEYS[path].kind.from_env(environ[name]), name)
    return values


def _value(path: KeyPath, value: object, source: str) -> Any:
    kind = KEYS[path].kind
    try:
        return kind.parse(value)
    except ValueError:
        raise ConfigError(f"{source}: {_dotted(path)} = {show(value)}: must be {kind.allowed}") from None


# Contradictions between keys -----------------------------------------------------------------------


def _contradictions(settings: Settings) -> Iterator[str]:
    wireguard, api, public_ip = settings.wireguard, settings.api, settings.node.public_ip
    subnet, subnet6 = wireguard.subnet, wireguard.subnet6
    if subnet6 and 128 - subnet6.prefixlen < 32 - subnet.prefixlen:
        yield (
            f'wireguard.subnet6 = "{subnet6}": must have an address for each of wireguard.subnet = "{subnet}": '
            f"/{96 + subnet.prefixlen} or larger"
        )
    if subnet6 and wireguard.mtu is not None and wireguard.mtu < 1280:  # RFC 8200, section 5
        yield f'wireguard.mtu = {wireguard.mtu}: must be 1280 to 9000, or wireguard.subnet6 "": IPv6 needs 1280'
    if public_ip and (public_ip in subnet or (subnet6 and public_ip in subnet6)):
        yield f'node.public_ip = "{public_ip}": must be outside wireguard.subnet and wireguard.subnet6'
    endpoint = wireguard.endpoint
    if isinstance(endpoint, IPv4Address | IPv6Address) and (endpoint in subnet or (subnet6 and endpoint in subnet6)):
        yield f'wireguard.endpoint = "{endpoint}": must be outside wireguard.subnet and wireguard.subnet6'
    if api.tls_cert and not api.tls_key:
        yield f'api.tls_key = "": must be a path, since api.tls_cert = {show(str(api.tls_cert))}: both or neither'
    if api.tls_key and not api.tls_cert:
        yield f'api.tls_cert = "": must be a path, since api.tls_key = {show(str(api.tls_key))}: both or neither'
    open_to_others = next((each for each in api.listen if not each.loopback), None)
    if open_to_others is not None and not (api.insecure_http or api.tls_cert):
        yield (
            f'api.listen = "{open_to_others}": must be a loopback address or unix:/path for plain HTTP; '
            "else set api.tls_cert and api.tls_key, or api.insecure_http = true"
        )
    if settings.metrics.listen in api.listen:
        yield f'metrics.listen = "{settings.metrics.listen}": must differ from api.listen, which is the same'
    if settings.fleet.listen in (*api.listen, settings.metrics.listen):
        yield f'fleet.listen = "{settings.fleet.listen}": must differ from api.listen and metrics.listen'


# Wording -------------------------------------------------------------------------------------------


def _bare(name: str) -> str:
    return name if re.fullmatch(r"[A-Za-z0-9_-]+", name) else json.dumps(name)


def _dotted(path: KeyPath) -> str:
    return ".".join(map(_bare, path))


def _known(path: KeyPath) -> str:
    """Suggests similar keys for an unknown key, and lists those of its table."""
    table = path[:-1]
    siblings = sorted({known[len(table)] for known in KEYS if known[: len(table)] == table})
    elsewhere = [_dotted(known) for known in KEYS if known[-1] == path[-1] and known[0] != "tiers"]
    # Its own name alone is compared: with the table's before it, all of a table's keys are alike.
    alike = difflib.get_close_matches(path[-1].lower(), siblings, 1)
    near = elsewhere or [_dotted((*table, name)) for name in alike]
    meant = f"did you mean {near[0]}? " if near else ""
    place = f"[{_dotted(table)}]" if table else "the file"
    return f"{meant}{place} may hold {', '.join(siblings)}"
