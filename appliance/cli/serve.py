"""Implements `wg-appliance serve`."""

from __future__ import annotations

import faulthandler
import logging
import os
import sys
from typing import TYPE_CHECKING

import click

from appliance.cli.unexpected import is_journal
from appliance.config.cautions import cautions
from appliance.config.load import read_settings
from appliance.config.log_format import FORMATS, formatter
from appliance.domain.errors import ApplianceError

if TYPE_CHECKING:
    from pathlib import Path

    from appliance.config.load import Settings

log = logging.getLogger(__name__)


@click.command()
@click.option(
    "--log-format",
    type=click.Choice(FORMATS),
    default=FORMATS[0],
    show_default=True,
    help="Text, or one JSON object per line.",
)
@click.pass_obj
def serve(config_file: Path | None, log_format: str) -> None:
    """Run the appliance in the foreground.

    Creates the state directory, store and server key if they are missing. Logs to stderr. SIGTERM and Ctrl-C stop it;
    SIGHUP applies tiers, prices and egress from the configuration.
    """
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(formatter(log_format, with_time=not is_journal(sys.stderr, os.environ)))
    logging.basicConfig(level=logging.INFO, handlers=[handler])
    from appliance._native import lib
    from appliance.server import start

    # What all sessions together take for a moment, at the start and when all are read again, is not kept.
    lib.wga_return_freed_memory()
    # SIGABRT, by which systemd's watchdog ends a process, then prints every thread's traceback.
    faulthandler.enable(file=2)
    try:
        start.serve(lambda: _read(config_file), os.environ)
    except ApplianceError as error:
        if log_format == "text":
            raise
        log.critical("cannot serve: %s", error)
        raise SystemExit(1) from error
    except Exception as error:
        if log_format == "text":
            raise
        log.critical("unexpected %s", type(error).__name__, exc_info=True)
        raise SystemExit(1) from error


def _read(config_file: Path | None) -> Settings:
    """Reads the settings, and logs what in them is hardly meant. Raises ConfigError."""
    settings = read_settings(config_file, os.environ)
    for line in cautions(settings):
        log.warning("%s", line)
    return settings
