"""`wg-appliance serve`."""

from __future__ import annotations

import faulthandler
import logging
import os
import sys
from typing import IO, TYPE_CHECKING

import click

from appliance import config

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path


@click.command()
@click.pass_obj
def serve(config_file: Path | None) -> None:
    """Run the appliance in the foreground.

    Creates what is missing of state directory, store and server key. Logs to stderr. SIGTERM and Ctrl-C stop it;
    SIGHUP takes over tiers, prices and egress from the configuration.
    """
    logging.basicConfig(
        stream=sys.stderr,
        level=logging.INFO,
        format=("" if is_journal(sys.stderr, os.environ) else "%(asctime)s ") + "%(levelname)s %(name)s: %(message)s",
    )
    from appliance import server

    # SIGABRT, by which systemd's watchdog ends a process, then says where every thread was.
    faulthandler.enable()
    server.serve(lambda: config.read(config_file, os.environ), os.environ)


def is_journal(stderr: IO[str], environ: Mapping[str, str]) -> bool:
    """systemd.exec(5): JOURNAL_STREAM is the device and inode of the stream to the journal, which adds the time.

    Programs started by a service inherit the variable, whatever their stderr is.
    """
    try:
        stream = os.fstat(stderr.fileno())
    except (OSError, ValueError):
        return False
    return environ.get("JOURNAL_STREAM") == f"{stream.st_dev}:{stream.st_ino}"
