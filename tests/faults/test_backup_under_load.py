"""Backups of a server that is busy."""

from __future__ import annotations

import tempfile
import threading
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING

import pytest

from tests.support.cli.backups import members
from tests.support.faults.clients import Client
from tests.support.faults.serving import serving
from tests.support.tunnel.waiting import until

if TYPE_CHECKING:
    from collections.abc import Callable

CLIENTS = 4
pytestmark = pytest.mark.timeout(600)


@pytest.mark.parametrize("backups", [3, pytest.param(8, marks=pytest.mark.long)])
def test_a_backup_holds_every_answered_session(backend: str, show: Callable[[str], None], backups: int) -> None:
    """Whatever was answered before a backup began is in it; the copy is whole, and clients notice nothing."""
    with serving(backend) as exit_, tempfile.TemporaryDirectory() as folder:
        clients = [Client(exit_, exit_.token(f"a{n}", "free"), "free", Random(n)) for n in range(CLIENTS)]  # noqa: S311
        enough = threading.Event()
        threads = [threading.Thread(target=client.run, args=(enough,)) for client in clients]
        for thread in threads:
            thread.start()
        try:
            sizes = []
            for number in range(backups):
                known = len(_told(clients))
                until(lambda known=known: len(_told(clients)) >= known + 10, "clients are served")
                told = _told(clients)
                file = Path(folder) / f"backup{number}"
                exit_.command("backup", str(file))
                store = Path(folder) / f"store{number}"
                store.write_bytes(members(file)["store.sqlite"])
                assert exit_.rows("PRAGMA integrity_check", store) == [("ok",)]
                found = {session_id for (session_id,) in exit_.rows("SELECT id FROM sessions", store)}
                assert told - found == set()
                sizes.append(len(found))
        finally:
            enough.set()
            for thread in threads:
                thread.join()
        assert [client.odd for client in clients] == [[]] * CLIENTS
        show(f"{backups} backups of {sizes[0]} to {sizes[-1]} sessions")


def _told(clients: list[Client]) -> set[str]:
    """The ids that answers have told them. Another thread adds to them meanwhile."""
    return {session_id for client in clients for session_id in client.sessions.copy()}
