"""Compares two versions. Semantic Versioning: 1.2.0-rc.1 comes before 1.2.0."""

from __future__ import annotations

import re

from appliance.domain.errors import HostError

Order = tuple[tuple[int, ...], bool, tuple[tuple[bool, int, str], ...]]


def order(version: str) -> Order:
    """Returns a sort key for a version (https://semver.org/#spec-item-11). Raises HostError if it is not a version."""
    found = re.fullmatch(r"(\d+(?:\.\d+)*)(?:-?([A-Za-z0-9.-]+))?(?:\+.*)?", version)
    if found is None:
        raise HostError(f"{version} is no version")
    release = tuple(map(int, found[1].split(".")))
    parts = re.findall(r"\d+|[A-Za-z-]+", found[2] or "")
    return release, not parts, tuple((not p.isdigit(), int(p) if p.isdigit() else 0, p) for p in parts)
