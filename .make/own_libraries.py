"""Run by the packed program before anything of its own: the programs that it starts are to load the host's libraries.

PyInstaller's bootloader points LD_LIBRARY_PATH at the libraries it brings. The dynamic linker has read it by now, so
that this process keeps them. https://pyinstaller.org/en/stable/runtime-information.html#ld-library-path-libpath-considerations
"""

import os

_before = os.environ.pop("LD_LIBRARY_PATH_ORIG", None)
os.environ.pop("LD_LIBRARY_PATH", None)
if _before is not None:
    os.environ["LD_LIBRARY_PATH"] = _before
