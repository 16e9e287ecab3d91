"""A process of a test that answers what it is asked, a line of JSON each, until it is killed."""

from __future__ import annotations

import asyncio
import json
import signal
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

PROJECT = Path(__file__).resolve().parents[3]
ANSWER_S = 60.0


class MemberDied(Exception):
    """The process that was asked has been killed, or has died."""


class AskedProcess:
    """Runs `python -m MODULE FILE`; the file has what `start` is given. Its log is in `folder`."""

    def __init__(self, module: str, folder: Path) -> None:
        self._module = module
        self._folder = folder
        self._process: asyncio.subprocess.Process | None = None
        self._asking = asyncio.Lock()

    @property
    def pid(self) -> int | None:
        return None if self._process is None else self._process.pid

    async def start(self, config: bytes) -> None:
        """Starts the process. It may be killed before it is ready."""
        file = self._folder / "config.json"
        file.write_bytes(config)
        async with self._asking:
            with (self._folder / "log").open("ab") as log:
                process = self._process = await asyncio.create_subprocess_exec(
                    sys.executable,
                    "-m",
                    self._module,
                    str(file),
                    stdin=asyncio.subprocess.PIPE,
                    stdout=asyncio.subprocess.PIPE,
                    stderr=log,
                    cwd=PROJECT,
                )
            try:
                assert await _line(process) == {"ready": True}
            except MemberDied:
                if process is self._process:  # nobody has killed it
                    raise

    async def ask(self, **what: object) -> Any:
        """Returns what is answered; None for a refusal. Raises MemberDied: it may be done or not."""
        async with self._asking:
            process = self._process
            if process is None or process.stdin is None:
                raise MemberDied
            with suppress(ConnectionError):
                process.stdin.write(json.dumps(what).encode() + b"\n")
                await process.stdin.drain()
            return (await _line(process)).get("done")

    async def kill(self) -> None:
        process, self._process = self._process, None
        if process is not None:
            with suppress(ProcessLookupError):
                process.kill()
            await process.wait()

    def stop(self) -> None:
        """Has it do nothing, until `go_on` or `kill`."""
        if self._process is not None:
            self._process.send_signal(signal.SIGSTOP)

    def go_on(self) -> None:
        if self._process is not None:
            self._process.send_signal(signal.SIGCONT)

    def last_words(self, most: int = 3000) -> str:
        return (self._folder / "log").read_text(errors="replace")[-most:]


async def _line(process: asyncio.subprocess.Process) -> dict[str, Any]:
    assert process.stdout is not None
    async with asyncio.timeout(ANSWER_S):
        line = await process.stdout.readline()
    if not line.endswith(b"\n"):
        raise MemberDied
    answer: dict[str, Any] = json.loads(line)
    return answer
