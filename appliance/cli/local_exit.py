"""Finds the exit that this host itself is, for the client's commands where no other is named."""

from __future__ import annotations

import os
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
    """Returns where this host's API listens; None where there is no configuration.

    Raises ConfigError if there is one that cannot be read, or is not as it must be.
    """
    from appliance.client.api.dialer import parse_url
    from appliance.config.load import AS_ROOT, ENV_FILE, config_path, read_settings
    from appliance.ops.selftest.api_client import reached

    file = config_path(config_file, os.environ)
    if config_file is None and not os.environ.get(ENV_FILE) and not _is_there(file):
        return None
    try:
        api = read_settings(config_file, os.environ).api
        url = parse_url(reached(api).url("http" if api.tls_cert is None else "https"))
        return ExitHere(url, None if api.tls_cert is None else _trusting(api.tls_cert))
    except ConfigError as error:
        advice = "" if str(error).endswith(AS_ROOT) else "; mend it"
        raise ConfigError(f"{error}{advice}, or give an exit's URL: --api URL") from error


def _is_there(file: Path) -> bool:
    """Tells whether there is a file, or a folder that hides whether there is."""
    try:
        file.lstat()
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError:
        return True
    return True


def _trusting(certificate: Path) -> ssl.SSLContext:
    from appliance.config.value_types import show
    from appliance.ops.selftest.api_client import trusting

    try:
        return trusting(certificate)
    except OSError as error:  # of ssl too
        raise ConfigError(f"api.tls_cert = {show(str(certificate))}: must be a certificate in PEM form") from error
