"""All that the one file does by itself, once the bootloader has unpacked it: become the program that was in it.

The bootloader waits, hands on signals, and removes what it unpacked.
"""

import os
import sys

# The program has a bootloader too, which is not to take itself for a part of this one.
# https://pyinstaller.org/en/stable/advanced-topics.html#bootloader-environment-variables
os.environ["PYINSTALLER_RESET_ENVIRONMENT"] = "1"
# The program's bootloader sets it for itself, and .make/own_libraries.py puts it back.
before = os.environ.pop("LD_LIBRARY_PATH_ORIG", None)
os.environ.pop("LD_LIBRARY_PATH", None)
if before is not None:
    os.environ["LD_LIBRARY_PATH"] = before
os.execv(f"{sys._MEIPASS}/wg-appliance", sys.argv)  # noqa: S606 (the program that was in this file)
