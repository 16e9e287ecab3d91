"""Writes .constraints.txt, -dev.txt and -bench.txt: each package with its version and the SHA-256 of its wheels.

Run by `make constraints`, in the project's folder. Versions stay as they are in the files; what is not in them gets its
newest. To renew a package, delete its lines first; to renew all, the files.
"""

import json
import re
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Iterable
from pathlib import Path

ARCHITECTURES = ("x86_64", "aarch64")
PYTHONS = ("3.11", "3.12", "3.13", "3.14")
# Minor versions of glibc: pip takes the newest wheel that the host can load, which differs between Debian 11 and 12.
GLIBC = (range(5, 32), range(5, 37))
LEGACY = ("manylinux2014", "manylinux2010", "manylinux1", "linux")

HEAD = """\
# {what}, with the wheels' SHA-256 for x86_64 and arm64, Python {pythons}.
# For pip install --require-hashes -r. Made by: make constraints
"""
PINNED = re.compile(r"^([A-Za-z0-9._-]+)==(\S+)", re.MULTILINE)


class Pip:
    """Asks pip what it would install, without installing it."""

    def __init__(self, scratch: Path) -> None:
        self._scratch = scratch

    def would_install(self, requirements: Iterable[str], pins: dict[str, str], *options: str) -> dict[str, dict]:
        """Returns what `requirements` lead to, by normalized name, as in pip's installation report.

        https://pip.pypa.io/en/stable/reference/installation-report/
        """
        asked, held, report = (self._scratch / name for name in ("asked.txt", "held.txt", "report.json"))
        asked.write_text("\n".join(requirements))
        held.write_text("\n".join(f"{name}=={version}" for name, version in pins.items()))
        command = [sys.executable, "-m", "pip", "install", "--quiet", "--dry-run", "--ignore-installed"]
        command += ["--only-binary", ":all:", "--report", str(report), "-c", str(held), "-r", str(asked), *options]
        subprocess.run(command, check=True, stdout=sys.stderr)  # noqa: S603 (a list of words, of this file's own)
        return {normal(item["metadata"]["name"]): item for item in json.loads(report.read_text())["install"]}

    def hashes(self, pins: dict[str, str]) -> dict[str, set[str]]:
        """Returns the hashes of the wheels of these versions that any of the targets takes, by name."""
        found: dict[str, set[str]] = {name: set() for name in pins}
        for options in targets():
            wanted = [f"{name}=={version}" for name, version in pins.items()]
            for name, item in self.would_install(wanted, {}, "--no-deps", *options).items():
                found[name].add(item["download_info"]["archive_info"]["hashes"]["sha256"])
        return found


def normal(name: str) -> str:
    """Returns a package's name as https://packaging.python.org/en/latest/specifications/name-normalization/ has it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def targets(glibc: Iterable[range] = GLIBC) -> Iterable[list[str]]:
    """Yields pip's options for each kind of machine."""
    for architecture in ARCHITECTURES:
        for minors in glibc:
            platforms = [f"manylinux_2_{minor}_{architecture}" for minor in reversed(minors)]
            platforms += [f"{tag}_{architecture}" for tag in LEGACY]
            for python in PYTHONS:
                options = ["--target", "nowhere", "--python-version", python]
                yield options + [word for platform in platforms for word in ("--platform", platform)]


def groups() -> list[tuple[Path, str, list[str]]]:
    """Returns each file, what it holds, and what is asked for in it and in those before it."""
    project = tomllib.loads(Path("pyproject.toml").read_text(encoding="utf-8"))
    more = project["project"]["optional-dependencies"]
    running = project["project"]["dependencies"] + more["fleet"] + project["build-system"]["requires"]
    return [
        (Path(".constraints.txt"), "What builds and runs the appliance", running),
        (Path(".constraints-dev.txt"), "What tests and packs it, beside .constraints.txt", running + more["dev"]),
        (
            Path(".constraints-bench.txt"),
            "What its benches need, beside the other two",
            running + more["dev"] + more["bench"],
        ),
    ]


def write(path: Path, what: str, pins: dict[str, str], hashes: dict[str, set[str]]) -> None:
    """Writes one file, a package with its hashes after another."""
    lines = [HEAD.format(what=what, pythons=f"{PYTHONS[0]} to {PYTHONS[-1]}")]
    for name in sorted(pins):
        entries = [f"{name}=={pins[name]}", *(f"--hash=sha256:{digest}" for digest in sorted(hashes[name]))]
        lines.append(" \\\n    ".join(entries) + "\n")
    path.write_text("".join(lines), encoding="utf-8")


def main() -> None:
    with tempfile.TemporaryDirectory() as scratch:
        pip = Pip(Path(scratch))
        known = {
            normal(name): version
            for path, _, _ in groups()
            if path.exists()
            for name, version in PINNED.findall(path.read_text(encoding="utf-8"))
        }
        before: set[str] = set()
        for path, what, asked in groups():
            found = pip.would_install(asked, known)
            for options in targets(GLIBC[-1:]):  # some are needed by one Python, or on one kind of machine, alone
                found |= pip.would_install(asked, known, *options)
            known |= {name: item["metadata"]["version"] for name, item in found.items()}
            pins = {name: known[name] for name in found if name not in before}
            before |= set(found)
            write(path, what, pins, pip.hashes(pins))
            print(f"{path}: {len(pins)} packages", file=sys.stderr)  # noqa: T201 (a script)


if __name__ == "__main__":
    main()
