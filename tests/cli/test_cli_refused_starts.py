"""A start of the server that is refused: what is said where several things are wrong, and what is left of it."""

from __future__ import annotations

import json
import socket
from contextlib import ExitStack, closing, nullcontext
from typing import TYPE_CHECKING

import pytest

from tests.support.cli.command_line import python

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractContextManager
    from pathlib import Path

    from tests.support.cli.command_line import CommandLine

PAGE = 4096
# Before the store has been checked, most of the program is not imported: importing it waits for the check.
WAITS_FOR_THE_CHECK = """
import sys, threading
from importlib.abc import MetaPathFinder
from appliance.cli import main
from appliance.store import integrity

check, ended = integrity.check, threading.Event()

def checked(path):
    try:
        check(path)
    finally:
        ended.set()

class Waits(MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if name in ("appliance.server.run", "litestar", "uvicorn", "pyroute2", "prometheus_client"):
            assert ended.wait(30), name

integrity.check = checked
sys.meta_path.insert(0, Waits())
main()
"""


def damage(store: Path) -> None:
    whole = store.read_bytes()
    store.write_bytes(whole[:PAGE] + b"\xa5" * (len(whole) - PAGE))


def settings(wga: CommandLine, **sections: dict[str, object]) -> None:
    """Adds them to the configuration: JSON's text is TOML's too."""
    with wga.config.open("a", encoding="utf-8") as file:
        for section, keys in sections.items():
            file.write(f"[{section}]\n" + "".join(f"{key} = {json.dumps(value)}\n" for key, value in keys.items()))


def own_socket(wga: CommandLine) -> str:
    return f"unix:{wga.config.with_name('api')}"


def unknown_key(wga: CommandLine) -> AbstractContextManager[object]:
    settings(wga, meter={"pace": "1s"})
    return nullcontext()


def another_server(wga: CommandLine) -> AbstractContextManager[object]:
    return wga.state.serving()


def unfinished_restore(wga: CommandLine) -> AbstractContextManager[object]:
    wga.state.unfinished_restore.touch()
    return nullcontext()


def taken_port(wga: CommandLine) -> AbstractContextManager[object]:
    listener = socket.create_server(("127.0.0.1", 0))
    settings(wga, api={"listen": f"127.0.0.1:{listener.getsockname()[1]}"})
    return closing(listener)


def no_certificate(wga: CommandLine) -> AbstractContextManager[object]:
    pem = wga.config.with_name("pem")
    pem.touch()
    settings(wga, api={"listen": own_socket(wga), "tls_cert": str(pem), "tls_key": str(pem)})
    return nullcontext()


def broken_key(wga: CommandLine) -> AbstractContextManager[object]:
    """It is read where the host is looked at."""
    wga.state.create()
    wga.state.key.write_text("no key", encoding="utf-8")
    with wga.config.open("a", encoding="utf-8") as file:
        file.write('public_ip = "192.0.2.1"\n')  # in [node]: whatever the host's routes are
    settings(wga, api={"listen": own_socket(wga)})
    return nullcontext()


FAULTS = {
    unknown_key: "meter.pace = ",
    another_server: "another wg-appliance is already serving ",
    unfinished_restore: "was cut short; run it again: ",
    taken_port: "Address already in use",
    no_certificate: "cannot be used: ",
    broken_key: "holds no WireGuard private key",
}


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.__name__)
def test_what_is_wrong_besides_the_store_is_said(wga: CommandLine, fault: Callable[..., object]) -> None:
    """In one line, as the first of two reasons; the damaged store is left as it is."""
    damage(wga.state.store)
    before = wga.state.store.read_bytes()
    with ExitStack() as stack:
        stack.enter_context(fault(wga))
        refused = wga.process("serve")
    last = refused.err.splitlines()[-1]
    assert refused.status == 1
    assert last.startswith("wg-appliance: error: ")
    assert FAULTS[fault] in last
    assert "damaged" not in refused.err
    assert "Traceback" not in refused.err
    assert wga.state.store.read_bytes() == before


def test_no_store_is_made_by_a_start_that_is_refused(bare: CommandLine) -> None:
    """The host is looked at beside the check of the store, of which there is none yet."""
    broken_key(bare)
    assert bare.process("serve").status == 1
    assert not [*bare.state.path.glob("store*")]


def test_the_store_is_checked_before_most_is_imported(wga: CommandLine) -> None:
    """The check begins as soon as the state is this server's, and takes as long as importing what serves."""
    broken_key(wga)
    refused = python("-c", WAITS_FOR_THE_CHECK, "--config", str(wga.config), "serve")
    assert FAULTS[broken_key] in refused.err.splitlines()[-1], refused.err
