"""All that the one file does by itself, once the bootloader has unpacked it: become the program that was in it.

The bootloader waits, hands on signals, and removes what it unpacked.
"""

import os
import sys

# The program has a bootloader too, which is not to take itself for a part of this one.
# https://pyinstaller.org/en/stable/advanced-topics.html#bootloader-environment-variables
os.environ["PYINSTALLER_RESET_ENVIRONMENT"] = "1"
os.environ["LD_LIBRARY_PATH"] = os.environ.pop("LD_LIBRARY_PATH_ORIG", "")
if not os.environ["LD_LIBRARY_PATH"]:
    del os.environ["LD_LIBRARY_PATH"]
os.execv(os.path.join(sys._MEIPASS, "wg-appliance"), sys.argv)
