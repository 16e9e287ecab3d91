"""Names what wg-quick(8) needs on this host and does not find, before anything is begun.

Its own complaint would be lost: it ends at the first failing command, behind what the others have printed.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from appliance.domain.errors import HostError
from appliance.network.programs import search_path

if TYPE_CHECKING:
    from collections.abc import Mapping

WG_QUICK = "wg-quick"
# Debian's packages of the programs that it runs to set up a tunnel for all traffic.
PACKAGES = {"wg": "wireguard-tools", "ip": "iproute2", "sysctl": "procps", "bash": "bash", "sort": "coreutils"}
FILTERS = (("nft",), ("iptables-restore", "ip6tables-restore"))  # one of the two; nft comes first
ONE_PROGRAM = "or run one program through the tunnel, which does not need it: connect -- COMMAND"


def check(environ: Mapping[str, str]) -> None:
    """Raises HostError that names the programs that are missing, and their packages."""
    path = search_path(environ)
    own = shutil.which(WG_QUICK, path=path)
    if own is None:
        raise HostError(f"{WG_QUICK} is missing: apt-get install wireguard-tools; {ONE_PROGRAM}")
    path = f"{Path(own).resolve().parent}:{path}"  # where it looks first
    missing = [program for program in PACKAGES if shutil.which(program, path=path) is None]
    if missing:
        packages = " ".join(dict.fromkeys(PACKAGES[program] for program in missing))
        raise HostError(f"{WG_QUICK} needs {', '.join(missing)}: apt-get install {packages}; {ONE_PROGRAM}")
    if not any(all(shutil.which(program, path=path) for program in programs) for programs in FILTERS):
        raise HostError(
            f"{WG_QUICK} needs nft or iptables to keep others out of the tunnel, and this host has neither: "
            f"apt-get install nftables; {ONE_PROGRAM}"
        )
