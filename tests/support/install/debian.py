"""A Debian with systemd to boot: made once, and kept outside of the checkout for the next run."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

SECONDS = 600


@dataclass(frozen=True, slots=True)
class Release:
    """`at_hand`: packages that are downloaded and not installed, since a machine under test has no way to a mirror."""

    suite: str
    included: tuple[str, ...]
    at_hand: tuple[str, ...]


# What a small VPS image has, and what is installed on it here.
IMAGE = ("systemd", "systemd-sysv", "dbus", "iproute2", "procps", "kmod", "ca-certificates")
MACHINE = Release("bookworm", IMAGE, ("nftables", "wireguard-go", "caddy", "nginx-light", "prometheus"))
NEXT = Release("trixie", IMAGE, ("nftables", "wireguard-go"))


def base(release: Release) -> Path:
    """The tar of a fresh host. apt-get there can install what is at hand, from its cache."""
    wanted = hashlib.sha256(repr(release).encode()).hexdigest()[:12]
    tar = _cache() / f"{release.suite}-{wanted}.tar"
    if not tar.exists():
        tar.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=tar.parent) as folder:
            made = Path(folder) / "made.tar"
            _make(release, made)
            made.replace(tar)
    return tar


def unpack(release: Release, target: Path) -> None:
    command = ["tar", "--extract", "--file", str(base(release)), "--directory", str(target)]
    subprocess.run(command, check=True, timeout=SECONDS)


def _cache() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "wg-appliance-tests"


def _make(release: Release, tar: Path) -> None:
    install = "apt-get install --yes --no-install-recommends --download-only"
    command = [
        *("mmdebstrap", "--quiet", "--variant=minbase", "--skip=cleanup/apt"),
        f"--include={','.join(release.included)}",
        '--customize-hook=rm -f "$1"/var/cache/apt/archives/*.deb',
        f'--customize-hook=chroot "$1" {install} {" ".join(release.at_hand)}',
        *(release.suite, str(tar), *_sources(release.suite, tar.parent)),
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS, check=False)
    assert done.returncode == 0, f"mmdebstrap: {done.stderr[-2000:]}"


def _sources(suite: str, folder: Path) -> list[str]:
    """This host's own mirrors, where it is a Debian; else mmdebstrap's."""
    own = Path("/etc/apt/sources.list.d/debian.sources")
    if not own.exists():
        return []
    text = own.read_text(encoding="utf-8")
    found = re.search(r"^Suites: (\w+)", text, re.MULTILINE)
    if found is None:
        return []
    file = folder / "mirrors.sources"
    file.write_text(text.replace(found[1], suite), encoding="utf-8")
    return [str(file)]


def missing_tools() -> list[str]:
    return [tool for tool in ("mmdebstrap", "systemd-nspawn") if shutil.which(tool) is None]
