"""Runs the tests that need nothing but the program, on any wg-appliance: `python -m tests.black_box PATH [ARGUMENTS]`.

PATH is its executable. ARGUMENTS go to pytest, such as `-k mtu`. The tests are those with the mark `black_box`: they
speak to the program as its users and its host do, so they also tell what another version of it does.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from tests.support.tunnel.appliance_process import PROGRAM_VARIABLE


def main(arguments: list[str]) -> int:
    if not arguments or not os.access(arguments[0], os.X_OK):
        sys.stderr.write("usage: python -m tests.black_box PATH_TO_WG_APPLIANCE [ARGUMENTS OF PYTEST]\n")
        return 2
    program, *rest = arguments
    os.environ[PROGRAM_VARIABLE] = str(Path(program).absolute())
    return pytest.main(["-m", "black_box", "--kernel", "without", *rest])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
