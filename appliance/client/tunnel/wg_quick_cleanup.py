"""What wg-quick(8) makes beside its interface, changed or taken away where it cannot do so itself.

For all traffic to go into the tunnel: rules of routing (policy_rules.py) and of the packet filter (filter_rules.py).
For DNS: an entry of resolvconf(8).
"""

from __future__ import annotations

import re
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from appliance.client.tunnel import ip_rules, nft_guard
from appliance.client.tunnel.subprocesses import run
from appliance.domain.errors import HostError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

RESOLVCONF = "resolvconf"
RESOLVCONF_ORDER = Path("/etc/resolvconf/interface-order")


def set_resolvers(interface: str, addresses: Sequence[str], environ: Mapping[str, str]) -> None:
    """Names are resolved there and nowhere else; none: as before there was a tunnel."""
    if addresses:
        text = "".join(f"nameserver {address}\n" for address in addresses)
        run(RESOLVCONF, "-a", _resolvconf_name(interface), "-m", "0", "-x", text=text, environ=environ)
    else:
        run(RESOLVCONF, "-d", _resolvconf_name(interface), "-f", environ=environ)


def remove(
    interface: str,
    mark: int | None,
    resolvers: Sequence[str],
    environ: Mapping[str, str],
    remark: Callable[[str], None],
) -> None:
    """All of it, once the interface has gone. `mark`: its own, None where it had none. Raises HostError when as much as
    can be is taken away."""
    steps = [partial(nft_guard.remove, interface, environ)]
    if mark is not None:
        steps.append(partial(ip_rules.remove, mark, remark))
    if resolvers:
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
    """Some have an order of interfaces by their names, where wg-quick takes the first that is a prefix."""
    try:
        lines = RESOLVCONF_ORDER.read_text(encoding="ascii", errors="replace").splitlines()
    except OSError:
        return interface
    found = (re.fullmatch(r"([A-Za-z0-9-]+)\*", line) for line in lines)
    return next((f"{prefix[1]}.{interface}" for prefix in found if prefix), interface)
