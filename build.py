"""Builds `appliance._native`, the C extension, from native/ (cffi, API mode, limited API).

    python build.py      in place, for a checkout: appliance/_native.abi3.so
    pip install . and pip wheel .   through setuptools, which takes `BuildNative` as its build_ext

What is compiled stands in pyproject.toml under `tool.setuptools.ext-modules`; this file adds the
binding that cffi generates from native/appliance.cdef.h, and the compiler flags. Python holds the
struct layouts and signatures to the C headers when the binding is compiled.
"""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import TYPE_CHECKING

from cffi import FFI
from setuptools import Distribution, Extension
from setuptools.command.build_ext import build_ext

if TYPE_CHECKING:
    from typing import Any

ROOT = Path(__file__).resolve().parent
FLAGS = ["-O2", "-Wall", "-Wextra", "-Werror", "-std=c11"]
LIMITED_API = "0x030b0000"  # Python 3.11, as `requires-python` and the wheel's tag say

# cffi's own code leaves the `self` and `noarg` of its C functions unused; ours is held to -Wextra.
PREAMBLE = """
#pragma GCC diagnostic ignored "-Wunused-parameter"
#include "appliance.h"
"""


def write_binding(module: str, path: Path) -> None:
    """Have cffi write the C source of `module` to `path`."""
    ffi = FFI()
    ffi.cdef((ROOT / "native" / "appliance.cdef.h").read_text(encoding="ascii"))
    ffi.set_source(module, PREAMBLE)
    path.parent.mkdir(parents=True, exist_ok=True)
    ffi.emit_c_code(str(path))


class BuildNative(build_ext):
    def build_extension(self, ext: Extension) -> None:
        binding = Path(self.build_temp) / "_native.c"
        write_binding(ext.name, binding)
        ext.sources = [*ext.sources, str(binding)]
        ext.include_dirs = [str(ROOT / "native")]
        ext.define_macros.append(("Py_LIMITED_API", LIMITED_API))
        ext.extra_compile_args.extend(FLAGS)
        super().build_extension(ext)


def build_in_place() -> None:
    project: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    tables = project["tool"]["setuptools"]["ext-modules"]
    extensions = [Extension(**{key.replace("-", "_"): value for key, value in table.items()}) for table in tables]
    distribution = Distribution(
        {"name": "wg-appliance", "ext_modules": extensions, "cmdclass": {"build_ext": BuildNative}}
    )
    command = distribution.get_command_obj("build_ext")
    command.inplace = True
    # setuptools would not notice changed flags; a build takes a second.
    command.force = True
    distribution.run_command("build_ext")


if __name__ == "__main__":
    import os

    os.chdir(ROOT)
    build_in_place()
