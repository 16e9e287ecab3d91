"""What admin commands say while the wall clock is another than the one that the exit goes by."""

from __future__ import annotations

import json
import re
import time
from datetime import datetime
from typing import TYPE_CHECKING, Any

import pytest

from appliance.domain.clock import HostClock
from appliance.store.queries import node as node_row
from tests.support.cli.command_line import Done, python
from tests.support.tunnel.wall_clock import ShownClock

if TYPE_CHECKING:
    from pathlib import Path

    import aiosqlite

    from tests.support.cli.command_line import CommandLine

DAY = 86_400
YEAR = 365 * DAY
ACCEPT = ("node", "resume", "--accept-clock")


class Stepped:
    """The commands, as processes that go by a clock that steps. The server has run a moment ago."""

    def __init__(self, wga: CommandLine, folder: Path) -> None:
        self.clock = ShownClock(folder)
        self._wga, self.state = wga, wga.state

        async def beat(db: aiosqlite.Connection) -> None:
            await node_row.write_heartbeat(db, HostClock().now())

        wga.write(beat)

    def __call__(self, *arguments: str, status: int = 0) -> Done:
        config = ("--config", str(self._wga.config))
        environ = {**self.clock.environment, "WG_APPLIANCE_NODE_PUBLIC_IP": "192.0.2.1"}
        done = python("-m", "appliance", *config, *arguments, environ=environ)
        assert done.status == status, done
        return done

    def json(self, *arguments: str) -> Any:
        return json.loads(self(*arguments, "--json").out)


@pytest.fixture
def stepped(wga: CommandLine, tmp_path: Path) -> Stepped:
    return Stepped(wga, tmp_path)


@pytest.mark.parametrize("step", [YEAR, -3 * DAY])
def test_commands_go_by_the_time_believed(stepped: Stepped, step: int) -> None:
    """A token is valid for as long as asked for, by the time at which the server judges it; windows reset in time."""
    stepped("token", "create", "--account", "ada", "--expires", "30d")
    stepped.clock.step(step)
    stepped("token", "create", "--account", "ada", "--expires", "30d")
    for token in stepped.json("token", "list")["tokens"]:
        ends = datetime.fromisoformat(token["expires_at"]).timestamp()
        assert ends == pytest.approx(time.time() + 30 * DAY, abs=300)
    assert stepped("token", "list").out.count(" valid ") == 2
    resets = datetime.fromisoformat(stepped.json("usage", "ada")["seconds_window_resets_at"]).timestamp()
    assert resets == pytest.approx(time.time() + DAY, abs=300)


def test_node_status_shows_a_clock_that_is_doubted(stepped: Stepped) -> None:
    """Both times, and what to do; while the clock is believed, that it is."""
    assert re.search(r"^clock doubted +no$", stepped("node", "status").out, re.MULTILINE)
    assert stepped.json("node", "status")["clock_doubted"] is False
    stepped.clock.step(YEAR)
    shown = stepped("node", "status").out
    assert re.search(r"^clock doubted +yes$", shown, re.MULTILINE)
    assert "node resume --accept-clock" in shown
    stepped.clock.synchronise()
    assert re.search(r"^clock doubted +no$", stepped("node", "status").out, re.MULTILINE)


def test_accepting_says_what_was_accepted(stepped: Stepped) -> None:
    """The time and how far it is off; nothing to accept before and after. Of a clock that is synchronised, too: the
    server may not be able to see that."""
    nothing = "is believed already: there is nothing to accept"
    assert nothing in stepped(*ACCEPT).err
    stepped.clock.step(YEAR)
    assert "which is 365 d ahead of what was believed" in stepped(*ACCEPT).err
    assert nothing in stepped(*ACCEPT).err
    stepped.clock.step(DAY)
    assert "which is 366 d ahead of what was believed" in stepped(*ACCEPT).err
    stepped.clock.step(-YEAR)
    stepped.clock.synchronise()
    assert "which is 24 h ahead of what was believed" in stepped(*ACCEPT).err
    assert nothing in stepped(*ACCEPT).err


def test_resume_alone_accepts_nothing(stepped: Stepped) -> None:
    """A drained exit is resumed with a clock in doubt, and the clock stays in doubt."""
    stepped("node", "drain")
    stepped.clock.step(YEAR)
    stepped("node", "resume")
    status = stepped.json("node", "status")
    assert (status["drained"], status["clock_doubted"]) == (False, True)


def test_a_host_whose_clock_is_doubted_is_in_no_fleet(stepped: Stepped) -> None:
    """Its beats would differ from the others' by as much, and its certificates begin at another time. One line says so
    and what to do, before a token is read or anything is made."""
    stepped.clock.step(900)
    for command in (("node", "join", "hello"), ("fleet", "init")):
        said = stepped(*command, status=1).err.splitlines()
        assert "15 min ahead of that, and doubted; set it right, or if it is: wg-appliance node resume" in said[-1]
    assert not stepped.state.fleet_status.parent.exists()
    stepped(*ACCEPT)
    assert "this is no join token" in stepped("node", "join", "hello", status=1).err
