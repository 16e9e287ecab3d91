"""Changes or removes what wg-quick(8) sets up beside its interface, where it cannot do so itself.

For all traffic to go into the tunnel: routing rules (ip_rules.py) and packet filter rules (nft_guard.py). For DNS: an
entry of resolvconf(8).
"""

from __future__ import annotations

import re
import shutil
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from appliance.client.tunnel import ip_rules, nft_guard
from appliance.domain.errors import HostError
from appliance.network import programs

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

RESOLVCONF = "resolvconf"
RESOLVCONF_ORDER = Path("/etc/resolvconf/interface-order")


def set_resolvers(interface: str, addresses: Sequence[str], environ: Mapping[str, str]) -> None:
    """Makes `addresses` the only resolvers; an empty list restores those from before the tunnel.

    Raises HostError if resolvconf fails.
    """
    if addresses:
        text = "".join(f"nameserver {address}\n" for address in addresses)
        programs.run(RESOLVCONF, "-a", _resolvconf_name(interface), "-m", "0", "-x", text=text, environ=environ)
    else:
        programs.run(RESOLVCONF, "-d", _resolvconf_name(interface), "-f", environ=environ)


def remove(
    interface: str,
    mark: int | None,
    environ: Mapping[str, str],
    remark: Callable[[str], None],
    *,
    resolvers: bool,
) -> None:
    """Removes everything, once the interface has gone. `mark`: the tunnel's fwmark, None if it had none. `resolvers`:
    it may have an entry of resolvconf; without that program there is none.

    Raises HostError if a step fails, after the other steps.
    """
    steps = [partial(nft_guard.remove, interface, environ)]
    if mark is not None:
        steps += [partial(ip_rules.remove, mark, remark), partial(ip_rules.allow_ipv6, mark)]
    if resolvers and shutil.which(RESOLVCONF, path=programs.search_path(environ)):
        steps.append(partial(set_resolvers, interface, (), environ))
    failed = []
    for step in steps:
        try:
            step()
        except HostError as error:
            failed.append(str(error))
    if failed:
        raise HostError("; ".join(failed))


def _resolvconf_name(interface: str) -> str:
    """Returns the interface's name for resolvconf. Some implementations order interfaces by name; as wg-quick does,
    this prepends the first prefix of that order."""
    try:
        lines = RESOLVCONF_ORDER.read_text(encoding="ascii", errors="replace").splitlines()
    except OSError:
        return interface
    prefixes = (re.fullmatch(r"([A-Za-z0-9-]+)\*", line) for line in lines)
    return next((f"{prefix[1]}.{interface}" for prefix in prefixes if prefix), interface)
