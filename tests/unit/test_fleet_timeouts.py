"""Exits that do not answer three times in a row are not asked for ten seconds."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from appliance.domain.errors import CutOff, NoResponder, NotAnswered
from appliance.fleet.presence.counted_call import CountedCall
from tests.support.fleet.members import AMS, SIN, a_member
from tests.support.fleet.presence import PresenceWorld

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tests.support.fleet.presence import PresentExit


class Scripted:
    """Answers requests as the script says: with an error, or `None` for an answer, "wait" for none at all."""

    def __init__(self, world: PresenceWorld, script: Sequence[type[Exception] | str | None]) -> None:
        self._world = world
        self._script = list(script)

    async def __call__(self, node_id: str, operation: str, payload: bytes, timeout_s: float) -> bytes:
        assert (node_id, operation, payload) == (SIN, "open", b"{}")
        step = self._script.pop(0)
        if step == "wait":
            self._world.clock.advance(timeout_s)
            await asyncio.Event().wait()
        if isinstance(step, type):
            raise step(node_id)
        return b"done"


async def asked(
    script: Sequence[type[Exception] | str | None], *, cut: bool = False
) -> tuple[PresenceWorld, PresentExit]:
    """A fleet of two, where one has asked the other so often."""
    world = PresenceWorld()
    ams = await world.add(a_member(AMS, "ams1", "eu"))
    await world.add(a_member(SIN, "sin1", "as"))
    await world.pass_s(1)
    link = world.bus.node(AMS)
    call = CountedCall(Scripted(world, script), ams.directory, link, world.clock)
    if cut:
        world.bus.cut(AMS)
    for step in script:
        try:
            async with asyncio.timeout(0.01 if step == "wait" else 60):
                assert await call(SIN, "open", b"{}", 0.2) == b"done"
        except (NotAnswered, NoResponder, CutOff, TimeoutError):
            continue
    if cut:
        world.bus.heal(AMS)
    await world.pass_s(1.2)
    return world, ams


@pytest.mark.parametrize(
    ("script", "inactive"),
    [
        ([NotAnswered] * 3, True),
        (["wait"] * 3, True),
        ([NotAnswered, "wait", NotAnswered], True),
        ([NotAnswered] * 2, False),
        ([NotAnswered, NotAnswered, None, NotAnswered, NotAnswered], False),
        ([NotAnswered, NotAnswered, NoResponder, NotAnswered], True),
        ([NoResponder] * 5, False),
        ([CutOff] * 5, False),
    ],
)
def test_three_requests_in_a_row_without_an_answer(
    script: Sequence[type[Exception] | str | None], inactive: bool
) -> None:
    """An exit is inactive for this one after three timeouts in a row, for ten seconds; others go on asking it."""

    async def story() -> None:
        world, ams = await asked(script)
        assert ams.nodes.standing()[SIN] == (not inactive)
        assert (("as", 1) in ams.nodes.regions()) == (not inactive)
        assert world.exits["sin1 A"].nodes.standing() == {AMS: True, SIN: True}
        await world.pass_s(10)
        assert ams.nodes.standing()[SIN]

    asyncio.run(story())


def test_a_lost_connection_is_not_the_others_fault() -> None:
    """Requests that were not answered as this exit was cut off say nothing of the exit that was asked."""

    async def story() -> None:
        _, ams = await asked([NotAnswered] * 5, cut=True)
        assert ams.nodes.standing()[SIN]

    asyncio.run(story())
