"""The packages' checksums: every package that the project needs is in .constraints*.txt, with hashes, and so is what
those need on any machine that the wheels are for."""

from __future__ import annotations

import importlib.metadata
import itertools
import re
import tomllib

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.support.cli.command_line import PROJECT

PYTHONS = ("3.11", "3.12", "3.13", "3.14")
MACHINES = ("x86_64", "aarch64")
ENTRY = re.compile(r"^([a-z0-9-]+)==([^\s\\]+)((?: \\\n    --hash=sha256:[0-9a-f]{64})+)$", re.MULTILINE)


def pins(*names: str) -> dict[str, str]:
    """The version of each package in these files, which hold nothing but packages with hashes."""
    found: dict[str, str] = {}
    for name in names:
        text = (PROJECT / name).read_text(encoding="utf-8")
        assert not ENTRY.sub("", re.sub(r"^#.*\n", "", text, flags=re.MULTILINE)).strip(), f"{name}: without a hash"
        found |= {entry[1]: entry[2] for entry in ENTRY.finditer(text)}
    return found


def needed_by(requirement: Requirement) -> list[Requirement]:
    """What a package that is installed needs, on any of the machines."""
    needs = importlib.metadata.requires(requirement.name) or []
    machines = [
        {"python_version": python, "python_full_version": f"{python}.1", "platform_machine": machine, "extra": extra}
        for python, machine, extra in itertools.product(PYTHONS, MACHINES, ("", *requirement.extras))
    ]
    parsed = [Requirement(need) for need in needs]
    return [need for need in parsed if need.marker is None or any(map(need.marker.evaluate, machines))]


@pytest.mark.parametrize(
    ("files", "groups"), [((".constraints.txt",), ()), ((".constraints.txt", ".constraints-dev.txt"), ("dev",))]
)
def test_every_package_has_its_hashes(files: tuple[str, ...], groups: tuple[str, ...]) -> None:
    """With --require-hashes, pip refuses what is missing here; versions fit what pyproject.toml asks for."""
    project = tomllib.loads((PROJECT / "pyproject.toml").read_text(encoding="utf-8"))
    asked = [*project["project"]["dependencies"], *project["build-system"]["requires"]]
    asked += [need for group in ("fleet", *groups) for need in project["project"]["optional-dependencies"][group]]
    pinned, waiting, seen = pins(*files), [Requirement(need) for need in asked], set()
    while waiting:
        need = waiting.pop()
        name = canonicalize_name(need.name)
        assert name in pinned, f"{name} is not in {files[-1]}: make constraints"
        assert need.specifier.contains(pinned[name], prereleases=True), (str(need), pinned[name])
        if (name, *sorted(need.extras)) not in seen:
            seen.add((name, *sorted(need.extras)))
            waiting += needed_by(need)
    assert not set(pinned) - {name for name, *_ in seen}, "what nothing needs"
