"""Finds the exit that this host itself is, for the client's commands where no other is named."""

from __future__ import annotations

import os
from contextlib import suppress
from typing import TYPE_CHECKING, NamedTuple

from appliance.domain.errors import ConfigError

if TYPE_CHECKING:
    import ssl
    from pathlib import Path

    from appliance.client.api.dialer import Url


class ExitHere(NamedTuple):
    """`trusted`: the configured certificate, which names a host while an address is dialled; None without TLS."""

    url: Url
    trusted: ssl.SSLContext | None


def find(config_file: Path | None) -> ExitHere | None:
    """Returns where this host's API listens; None where there is no configuration, or this user cannot read it."""
    from appliance.client.api.dialer import parse_url
    from appliance.config.load import config_path, read_settings
    from appliance.ops.selftest.api_client import reached, trusting

    with suppress(ConfigError, OSError):
        if not config_path(config_file, os.environ).is_file():
            return None
        api = read_settings(config_file, os.environ).api
        scheme = "http" if api.tls_cert is None else "https"
        return ExitHere(parse_url(reached(api).url(scheme)), None if api.tls_cert is None else trusting(api.tls_cert))
    return None
