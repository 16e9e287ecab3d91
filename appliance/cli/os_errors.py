"""Reports the host's errors (no permission, disk full) as one line instead of a traceback."""

from __future__ import annotations

import os
from contextlib import contextmanager
from typing import TYPE_CHECKING

from appliance.domain.errors import HostError

if TYPE_CHECKING:
    from collections.abc import Iterator


@contextmanager
def host_faults(what: str) -> Iterator[None]:
    """Turns an OSError into HostError: `what`, the file if known, and the reason."""
    try:
        yield
    except BrokenPipeError:
        raise  # the reader of the output has gone; click exits quietly
    except OSError as error:
        where = f" {error.filename}" if error.filename else ""
        refused = isinstance(error, PermissionError) and os.geteuid() != 0
        advice = "; run as root, or as the user it belongs to" if refused else ""
        raise HostError(f"{what}{where}: {error.strerror or error}{advice}") from error
