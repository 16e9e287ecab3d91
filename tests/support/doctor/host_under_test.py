"""A host on which `wg-appliance doctor` runs: the exit of a world, with nothing wrong until a test breaks it."""

from __future__ import annotations

import json
import subprocess
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from click.testing import CliRunner

from appliance.cli import cli
from tests.support.tunnel.appliance_process import Appliance
from tests.support.tunnel.foreign_rules import RULES, load_rules
from tests.support.tunnel.world import World, new_world

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping


# The kernel has one clock for all namespaces: what it says of it is said in its place.
_CLOCK = """
#include <stdlib.h>
int adjtimex(void *timex) { const char *answer = getenv("ADJTIMEX"); (void)timex; return answer ? atoi(answer) : 0; }
"""


@dataclass(frozen=True, slots=True)
class Found:
    status: str
    what: str
    mend: str


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """`exit_status` and `error`: the command's, and its line on stderr."""

    exit_status: int
    error: str
    checks: Mapping[str, Found]

    def __getitem__(self, check: str) -> Found:
        return self.checks[check]

    def not_ok(self) -> dict[str, Found]:
        return {check: found for check, found in self.checks.items() if found.status != "ok"}


class Host:
    """`clock`: the library that answers in the place of the kernel's clock."""

    def __init__(self, world: World, backend: str, folder: Path, clock: Path) -> None:
        self.world = world
        self.space = world.exit
        self.appliance = Appliance(world, backend, folder / "appliance", {})
        self.interface = self.appliance.interface
        self._clock = clock

    def init(self) -> None:
        """In this process: it does not depend on where it runs, and a start takes longer than all of it."""
        done = CliRunner().invoke(cli, ["--config", str(self.appliance.config), "init"])
        assert done.exit_code == 0, done.output

    def doctor(self, **environ: str) -> Diagnosis:
        """What it says; each status has to go with the exit status."""
        done = self.appliance.attempt("doctor", "--json", environ={"LD_PRELOAD": str(self._clock), **environ})
        checks: list[Any] = json.loads(done.stdout)["checks"]
        found = {each.pop("check"): Found(**each) for each in checks}
        failed = [check for check, each in found.items() if each.status == "failed"]
        assert done.returncode == (1 if failed else 0), done
        assert done.stderr.count("\n") == (1 if failed else 0), done.stderr
        assert all((each.status == "ok") == (each.mend == "") for each in found.values()), found
        return Diagnosis(done.returncode, done.stderr, found)

    def ip(self, *lines: str) -> None:
        self.space.run("ip", "-batch", "-", text_input="\n".join(lines) + "\n")

    def shell(self, script: str) -> None:
        self.space.run("sh", "-ec", script)

    def nft(self, script: str) -> None:
        self.space.run("nft", "-f", "-", text_input=script)

    def load(self, *names: str) -> None:
        """Rules as other programs wrote them."""
        for name in names:
            load_rules(self.space, RULES / name, self.interface)

    def without(self, *programs: str, folder: Path) -> str:
        """A PATH with everything on it but these."""
        for directory in ("/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin"):
            for program in Path(directory).glob("*"):
                link = folder / program.name
                if program.name not in programs and not link.is_symlink():
                    link.symlink_to(program)
        return str(folder)


@contextmanager
def new_host(backend: str, folder: Path, clock: Path) -> Iterator[Host]:
    with new_world(0) as world:
        yield Host(world, backend, folder, clock)


def build_clock(folder: Path) -> Path:
    source, library = folder / "clock.c", folder / "clock.so"
    source.write_text(_CLOCK, encoding="ascii")
    subprocess.run(["gcc", "-shared", "-fPIC", "-o", library, source], check=True, timeout=120)
    return library
