"""Package data: what the package reads at run time is in the wheel."""

from __future__ import annotations

import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[2]
BUILT = {".so", ".pyc"}


def test_every_data_file_is_in_the_wheel() -> None:
    """Each file of the package that is no module matches a pattern of pyproject.toml, and each pattern a file."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    package = ROOT / "appliance"
    by_pattern = {each: set(package.glob(each)) for each in project["tool"]["setuptools"]["package-data"]["appliance"]}
    files = {file for file in package.rglob("*") if file.is_file() and file.suffix not in {".py", *BUILT}}
    assert files - set().union(*by_pattern.values()) == set()
    assert [pattern for pattern, matched in by_pattern.items() if not matched] == []
