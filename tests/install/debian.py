"""A Debian with systemd to boot: made once, and kept outside of the checkout for the next run."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import tempfile
from pathlib import Path

SUITE = "bookworm"
# What a small VPS image has.
INCLUDED = ("systemd", "systemd-sysv", "dbus", "iproute2", "procps", "kmod", "ca-certificates")
# Downloaded and not installed: a machine under test has no way out to a mirror.
AT_HAND = ("nftables", "wireguard-go", "caddy", "nginx-light")
SECONDS = 600


def base() -> Path:
    """The tar of a fresh host. apt-get there can install what is in AT_HAND, from its cache."""
    wanted = hashlib.sha256(repr((SUITE, INCLUDED, AT_HAND)).encode()).hexdigest()[:12]
    tar = _cache() / f"{SUITE}-{wanted}.tar"
    if not tar.exists():
        tar.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=tar.parent) as folder:
            made = Path(folder) / "made.tar"
            _make(made)
            made.replace(tar)
    return tar


def unpack(target: Path) -> None:
    subprocess.run(["tar", "--extract", "--file", str(base()), "--directory", str(target)], check=True, timeout=SECONDS)


def _cache() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "wg-appliance-tests"


def _make(tar: Path) -> None:
    install = "apt-get install --yes --no-install-recommends --download-only"
    command = [
        *("mmdebstrap", "--quiet", "--variant=minbase", f"--include={','.join(INCLUDED)}", "--skip=cleanup/apt"),
        '--customize-hook=rm -f "$1"/var/cache/apt/archives/*.deb',
        f'--customize-hook=chroot "$1" {install} {" ".join(AT_HAND)}',
        *(SUITE, str(tar), *_sources()),
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS, check=False)
    assert done.returncode == 0, f"mmdebstrap: {done.stderr[-2000:]}"


def _sources() -> list[str]:
    """This host's own mirrors, where it is a Debian of the same suite; else mmdebstrap's."""
    own = Path("/etc/apt/sources.list.d/debian.sources")
    return [str(own)] if own.exists() and f"Suites: {SUITE}" in own.read_text(encoding="utf-8") else []


def missing_tools() -> list[str]:
    return [tool for tool in ("mmdebstrap", "systemd-nspawn") if shutil.which(tool) is None]
