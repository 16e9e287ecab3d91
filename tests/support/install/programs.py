"""The one file, as `make dist` builds it, and others to upgrade to: one that works, and one that does not."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
from pathlib import Path

PROJECT = Path(__file__).resolve().parents[3]
BUILT = PROJECT / "build" / "install-tests"
SECONDS = 600

NEWER = "99.0.0"
BROKEN = "99.1.0"

# Migrates the store, and is never ready.
BROKEN_MAIN = """
import asyncio
import sys
import time
from pathlib import Path

from appliance.cli import main
from appliance.store.database import Store


async def migrate():
    await (await Store.open(Path("/var/lib/wg-appliance/store.sqlite"))).close()


if sys.argv[1:] == ["serve"]:
    asyncio.run(migrate())
    time.sleep(1000)
main()
"""


def own() -> Path:
    """This checkout's."""
    return _built(PROJECT, "own")


def newer() -> Path:
    """Another version, with another schema of the store."""
    return _built(_variant("newer", NEWER), "newer")


def broken() -> Path:
    """A version newer still, that is never ready, and has changed the store by then."""
    source = _variant("broken", BROKEN, migrations=2)
    (source / "appliance" / "__main__.py").write_text(BROKEN_MAIN, encoding="utf-8")
    return _built(source, "broken")


def _built(source: Path, name: str) -> Path:
    """Built anew only where something in the source, or in how it is built, has changed."""
    target = BUILT / f"{name}-{_digest(source / 'appliance', source / 'systemd', PROJECT / '.make')}"
    if not target.exists():
        for earlier in BUILT.glob(f"{name}-*"):
            shutil.rmtree(earlier)
        making = BUILT / f"{name}.making"
        shutil.rmtree(making, ignore_errors=True)
        command = [str(PROJECT / ".make" / "dist"), str(source), str(making)]
        environment = os.environ | {"DIST_NO_WHEEL": "1"}
        done = subprocess.run(
            command, cwd=PROJECT, env=environment, capture_output=True, text=True, timeout=SECONDS, check=False
        )
        assert done.returncode == 0, done.stderr
        making.rename(target)
    (found,) = target.glob("wg-appliance-*")
    return found


def _variant(name: str, version: str, migrations: int = 1) -> Path:
    """A copy of the checkout's program that says it is of this version, with migrations more."""
    source = BUILT / f"{name}.source"
    shutil.rmtree(source, ignore_errors=True)
    for folder in ("appliance", "systemd"):
        unwanted = shutil.ignore_patterns("__pycache__")
        shutil.copytree(PROJECT / folder, source / folder, symlinks=True, ignore=unwanted)
    (source / "appliance" / "__init__.py").write_text(f'__version__ = "{version}"\n', encoding="utf-8")
    folder = source / "appliance" / "store" / "migrations"
    there = len(list(folder.glob("*.sql")))
    for number in range(there + 1, there + 1 + migrations):
        sql = f"CREATE TABLE added_{number} (n INTEGER) STRICT;\n"
        (folder / f"{number:04d}_added.sql").write_text(sql, encoding="utf-8")
    return source


def _digest(*folders: Path) -> str:
    digest = hashlib.sha256()
    for folder in folders:
        for path in sorted(folder.rglob("*")):
            if path.is_file() and "__pycache__" not in path.parts:
                digest.update(f"{path.relative_to(folder)}\0".encode())
                digest.update(path.read_bytes())
    return digest.hexdigest()[:12]
