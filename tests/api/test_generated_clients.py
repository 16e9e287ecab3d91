"""Clients that generators make of the document: made without a remark, type-checked, and used for every call."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import pytest

from tests.support.api.exit_under_test import UNHURRIED, ExitUnderTest, on_exit
from tests.support.api.served import served

if TYPE_CHECKING:
    from litestar.types import ASGIApp

PROJECT = Path(__file__).parents[2]
PROGRAMS = PROJECT / "tests/support/api/generated"
GENERATORS = PROJECT / "build/generators"  # `make build/generators`
PYTHON, TYPESCRIPT = GENERATORS / ".venv/bin", GENERATORS / "node_modules/.bin"

pytestmark = [pytest.mark.long, pytest.mark.timeout(600)]


def made_by(program: Path) -> pytest.MarkDecorator:
    return pytest.mark.skipif(not program.exists(), reason=f"takes make build/generators, for {program.name}")


async def run(*command: str | Path, folder: Path, **environ: str) -> str:
    """What a program prints, on both streams; it must succeed."""
    process = await asyncio.create_subprocess_exec(
        *map(str, command),
        cwd=folder,
        env=os.environ | environ | {"PATH": f"{PYTHON}:{os.environ['PATH']}"},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    said = (await process.communicate())[0].decode()
    assert process.returncode == 0, said
    return said


def holds(told: dict[str, Any]) -> None:
    """What the program has seen of the API, call by call."""
    assert told["id"].startswith("ses_")
    assert told["tier"] == "paid"
    assert "PrivateKey" in told["wg_config"]
    assert "DNS = 9.9.9.9" in told["wg_config"]
    assert told["listed"] == [told["id"]]
    assert told["shown"] == told["id"]
    assert told["expires_in_days"] == 30
    assert told["ended"] == "closed"
    assert told["bytes_limit"] == 0
    assert told["device"] == ["phone", "paused", "paused", "removed", "device_not_found"]
    assert told["devices"] == [True]
    assert told["keys"]
    assert told["regions"] == ["fsn"]
    assert told["healthy"] == "ok"
    assert told["ready"] == "ok"
    assert told["refused"] == {"code": "region_unavailable", "available": ["fsn"]}
    assert told["unknown"] == "session_not_found"
    assert told["stranger"] == "missing_token"


@made_by(PYTHON / "openapi-python-client")
@on_exit(UNHURRIED)
async def test_a_client_in_python(exit_: ExitUnderTest) -> None:
    """openapi-python-client."""
    folder = exit_.path.parent
    (folder / "openapi.json").write_text((await exit_.http.get("/schema/openapi.json")).text, encoding="utf-8")
    made = await run(
        PYTHON / "openapi-python-client", "generate", "--path", "openapi.json", "--meta", "none", folder=folder
    )
    assert "warning" not in made.lower(), made
    shutil.copy(PROGRAMS / "use.py", folder)
    assert "no issues" in await run(PYTHON / "mypy", "--strict", "--follow-imports=silent", "use.py", folder=folder)
    ada = await exit_.client()
    async with served(app=cast("ASGIApp", exit_.app)) as server:
        api = f"http://127.0.0.1:{server.port}"
        holds(json.loads(await run(PYTHON / "python", "use.py", folder=folder, API=api, TOKEN=ada.token)))


@made_by(TYPESCRIPT / "tsc")
@on_exit(UNHURRIED)
async def test_a_client_in_typescript(exit_: ExitUnderTest) -> None:
    """openapi-typescript, and openapi-fetch, which calls by its types."""
    folder = exit_.path.parent
    shutil.copy(PROGRAMS / "package.json", folder)
    (folder / "node_modules").symlink_to(GENERATORS / "node_modules")
    (folder / "openapi.json").write_text((await exit_.http.get("/schema/openapi.json")).text, encoding="utf-8")
    made = await run(TYPESCRIPT / "openapi-typescript", "openapi.json", "-o", "schema.d.ts", folder=folder)
    assert not [word for word in ("warn", "error") if word in made.lower()], made
    shutil.copy(PROGRAMS / "use.ts", folder)
    options = ("--strict", "--target", "es2022", "--module", "nodenext", "--lib", "es2022,dom")
    await run(TYPESCRIPT / "tsc", *options, "use.ts", folder=folder)
    ada = await exit_.client()
    async with served(app=cast("ASGIApp", exit_.app)) as server:
        api = f"http://127.0.0.1:{server.port}"
        holds(json.loads(await run("node", "use.js", folder=folder, API=api, TOKEN=ada.token)))
