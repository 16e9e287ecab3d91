"""Runs the appliance, as `python -m appliance` does, with one request in each batch: what batches are compared with."""

from __future__ import annotations

from appliance.cli import main
from appliance.sessions import waiting

if __name__ == "__main__":
    waiting.MOST_IN_BATCH = 1
    main()
