"""Exits that tell each other of themselves over a hub in memory: regions and candidates within their bounds."""

from __future__ import annotations

import asyncio
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest

from appliance.domain.errors import NoActiveNodeInRegion, NoActiveNodes
from appliance.fleet.link.link import LinkState
from appliance.fleet.presence.beats import encoded, parse
from appliance.fleet.status.status import KnownTokens, ReportState, fleet_status, rows
from tests.support.fleet.bus import BusMessage
from tests.support.fleet.members import AMS, FRA, SIN, a_beat, a_member
from tests.support.fleet.presence import LOOK_S, PresenceWorld, PresentExit

if TYPE_CHECKING:
    from collections.abc import Coroutine, Iterator
    from typing import Any

A, F, S = a_member(AMS, "ams1", "eu"), a_member(FRA, "fra1", "eu"), a_member(SIN, "sin1", "as")
BOTH, EU, ALL = [("as", 1), ("eu", 1)], [("eu", 1)], [("as", 1), ("eu", 2)]
DEAD_S, HEALED_S, DRAINED_S = 3.6, 1.4, 2 * LOOK_S


def run(story: Coroutine[Any, Any, None]) -> None:
    asyncio.run(story)


async def two() -> tuple[PresenceWorld, PresentExit, PresentExit]:
    world = PresenceWorld()
    ams, sin = await world.add(A), await world.add(S)
    await world.pass_s(1)
    assert ams.nodes.regions() == sin.nodes.regions() == BOTH
    return world, ams, sin


@contextmanager
def refused(region: str, available: tuple[str, ...], nodes: PresentExit) -> Iterator[None]:
    """The exit refuses the region, naming the same regions as its list has."""
    yield
    assert tuple(code for code, _ in nodes.nodes.regions()) == available
    with pytest.raises(NoActiveNodeInRegion) as error:
        nodes.nodes.candidates(region)
    assert error.value.available == available


def test_two_exits_know_of_each_other_within_a_beat() -> None:
    """Each one names both regions, and asks the other one for sessions of its region; it places on itself alone."""

    async def story() -> None:
        _, ams, sin = await two()
        assert ams.nodes.candidates("as") == sin.nodes.candidates("as") == [SIN]
        assert sin.nodes.choose("as") is sin.node
        with pytest.raises(NoActiveNodeInRegion) as error:
            sin.nodes.choose("eu")
        assert error.value.available == ("as", "eu")

    run(story())


def test_a_dead_exit_is_routed_around() -> None:
    """An exit that is killed is out of the list 3.6 s later at most, and in it again with its first beat."""

    async def story() -> None:
        world, ams, sin = await two()
        sin.running = False
        assert 2.4 <= await world.until(lambda: ams.nodes.regions() == EU) <= DEAD_S
        with refused("as", ("eu",), ams):
            assert ams.nodes.candidates("eu") == [AMS]
            assert ams.nodes.standing() == {AMS: True, SIN: False}
        del world.exits["sin1 A"]
        await world.add(S, inst="B")
        assert await world.until(lambda: ams.nodes.regions() == BOTH) <= HEALED_S
        await world.pass_s(15)
        assert ams.nodes.regions() == BOTH

    run(story())


@pytest.mark.parametrize("noticed", [True, False])
def test_an_exit_that_is_cut_off_goes_on_alone(noticed: bool, caplog: pytest.LogCaptureFixture) -> None:
    """Cut off, it knows itself alone, and the others know each other; healed, all know of all a beat later."""

    async def story() -> None:
        world, ams, sin = await two()
        fra = await world.add(F)
        await world.until(lambda: ams.nodes.regions() == sin.nodes.regions() == ALL)
        world.bus.cut(SIN, noticed)
        alone = await world.until(lambda: sin.nodes.regions() == [("as", 1)])
        assert alone <= (0 if noticed else DEAD_S)
        await world.until(lambda: ams.nodes.regions() == fra.nodes.regions() == [("eu", 2)], DEAD_S)
        with refused("eu", ("as",), sin):
            assert sin.nodes.candidates("as") == [SIN]
        await world.pass_s(600)
        world.bus.heal(SIN)
        exits = (ams, fra, sin)
        assert await world.until(lambda: all(each.nodes.regions() == ALL for each in exits)) <= HEALED_S

    run(story())
    assert len([each for each in caplog.messages if "but what it sends does not come back" in each]) == (not noticed)


def test_a_short_cut_is_followed_by_a_beat_at_once() -> None:
    """With the connection comes a beat, and not when the next one would have been due."""

    async def story() -> None:
        world, _, _ = await two()
        had = len(world.bus.sent)
        await world.until(lambda: len(world.bus.sent) > had)
        world.bus.cut(SIN)
        await world.step()
        world.bus.heal(SIN)
        before = len(world.bus.sent)
        await world.step()
        assert [node for node, _, _ in world.bus.sent[before:]] == [SIN]

    run(story())


def test_a_beat_counts_from_when_it_came() -> None:
    """That it waited its turn in this process is no sign of a later life, and no difference of clocks."""

    async def story() -> None:
        world, ams, _ = await two()
        world.members.append(F)
        link, beat = world.bus.node(FRA), a_beat(FRA, name="fra1", t=world.clock.wall_ms)
        message = BusMessage(link, f"wga.hb.{FRA}", encoded(beat), "")
        world.clock.advance(3)
        await ams.beating.take(message)
        found = {each.member.id: each for each in ams.nodes.presences()}[FRA]
        assert (found.silent_ms, found.skew_ms) == (3000, 0)

    run(story())


def test_a_drained_exit_is_out_of_the_lists_at_once() -> None:
    """Drained and resumed, not ready and ready again: the others know at the next look, not a beat later."""

    async def story() -> None:
        world, ams, sin = await two()
        await world.pass_s(10)
        for _ in range(3):
            sin.node.drained = True
            assert await world.until(lambda: ams.nodes.regions() == EU) <= DRAINED_S
            assert ams.nodes.standing() == {AMS: True, SIN: True}
            with pytest.raises(NoActiveNodes):
                sin.nodes.choose("as")
            sin.node.drained = False
            assert await world.until(lambda: ams.nodes.regions() == BOTH) <= DRAINED_S
            sin.node.health.checked("the interface is gone")
            assert await world.until(lambda: ams.nodes.regions() == EU) <= DRAINED_S
            sin.node.health.checked(None)
            assert await world.until(lambda: ams.nodes.regions() == BOTH) <= DRAINED_S

    run(story())


def test_a_hubs_accounts_are_followed_at_once() -> None:
    """A change of a hub's accounts is in a beat at once, and told to those who follow it; a spoke's word is not."""

    async def story() -> None:
        world = PresenceWorld()
        hub, sin, fra = await world.add(a_member(AMS, "ams1", "eu", role="hub")), await world.add(S), await world.add(F)
        await world.pass_s(5)
        assert set(sin.accounts.told) == set(fra.accounts.told) == {(1, 1)}
        fra.accounts.at = (9, 9)
        await world.pass_s(5)
        hub.accounts.at = (1, 2)
        assert await world.until(lambda: sin.accounts.told[-1] == fra.accounts.told[-1] == (1, 2)) <= DRAINED_S
        assert (9, 9) not in sin.accounts.told
        assert hub.accounts.told == []

    run(story())


def test_an_exit_that_stops_says_so() -> None:
    """The others ask it no more at once, and again with the first beat of its next process."""

    async def story() -> None:
        world, ams, sin = await two()
        sin.running = False
        stopping = asyncio.Event()
        stopping.set()
        await sin.beating.run(stopping)
        await world.bus.idle()
        assert ams.nodes.regions() == EU
        await world.pass_s(0.4)
        await world.add(S, inst="B")
        assert await world.until(lambda: ams.nodes.regions() == BOTH) <= DRAINED_S

    run(story())


def test_beats_are_a_second_apart_where_nothing_changes() -> None:
    """An exit sends a beat a second, whatever its looks."""

    async def story() -> None:
        world, _, _ = await two()
        before = len(world.bus.sent)
        await world.pass_s(60)
        assert len(world.bus.sent) - before == 2 * 60

    run(story())


def test_two_machines_with_one_id_refuse_work_for_the_fleet(caplog: pytest.LogCaptureFixture) -> None:
    """Both say so and work alone, no other asks them; with one of them stopped, the other is back by itself."""

    async def story() -> None:
        world, ams, sin = await two()
        copy = await world.add(S, inst="copy")
        await world.until(lambda: sin.directory.own_fault(world.clock.now()) is not None, 3)
        await world.until(lambda: copy.directory.own_fault(world.clock.now()) is not None, 3)
        for _ in range(50):
            await world.step()
            assert ams.nodes.regions() == EU
            assert sin.nodes.regions() == copy.nodes.regions() == [("as", 1)]
        own = [parse(subject, data) for node, subject, data in world.bus.sent if node == SIN]
        assert not any(beat.ready for beat in own[-16:])
        assert len([beat for beat in own if beat.t > world.clock.wall_ms - 8000]) == 16
        copy.running = False
        assert 9 < await world.until(lambda: ams.nodes.regions() == sin.nodes.regions() == BOTH) <= 11.2

    run(story())
    assert len([each for each in caplog.messages if f"two machines are {SIN}" in each]) == 2


def test_what_is_no_beat_is_dropped_and_counted() -> None:
    """A record that does not parse, or names another exit than the one that may send on its subject."""

    async def story() -> None:
        world, ams, _ = await two()
        link = world.bus.node(SIN)
        await link.publish(f"wga.hb.{SIN}", b'{"stream":"STATE","seq":1}')
        await link.publish(f"wga.hb.{SIN}", b"\xff")
        await world.pass_s(0.2)
        assert ams.directory.dropped == {"malformed": 2}
        assert ams.nodes.regions() == BOTH
        assert world.bus.failures == []

    run(story())


@pytest.mark.parametrize(("speaks", "works"), [((1, 2), True), ((1, 9), True), ((2, 3), False)])
def test_versions_that_have_a_protocol_in_common_work_together(speaks: tuple[int, int], works: bool) -> None:
    """A newer exit that speaks this one's protocol too is as any other, with fields that are not known here; one that
    speaks newer ones alone is inactive, and named with what to do in `fleet status`."""

    async def story() -> None:
        world = PresenceWorld()
        ams = await world.add(A)
        world.members.append(S)
        link = world.bus.node(SIN)
        for n in range(1, 6):
            beat = a_beat(SIN, name="sin1", region="as", p=speaks, version="9.0", n=n, t=world.clock.now().wall_ms)
            await link.publish(f"wga.hb.{SIN}", encoded(beat)[:-1] + b',"colour":{"r":1}}')
            await world.pass_s(1)
        assert ams.nodes.regions() == (BOTH if works else EU)
        assert ams.nodes.standing()[SIN] == works
        now = world.clock.now()
        link_state = LinkState(connected=True, since=now)
        tokens = KnownTokens(hold=True, until=None)
        shown = rows(fleet_status(ams.nodes.presences(), AMS, None, link_state, ReportState(), tokens, now))
        refusal = "runs 9.0, which this exit cannot talk to: upgrade the older of the two"
        assert [(row[0], row[3], row[7]) for row in shown if row[0] == "sin1"] == [
            ("sin1", "takes sessions" if works else refusal, "9.0")
        ]

    run(story())


def test_late_beats_do_not_bring_back_a_dead_exit_for_longer_than_one() -> None:
    """Beats that the hub held and gives out together are one sign of life, and do not make its clock look wrong."""

    async def story() -> None:
        world, ams, _ = await two()
        world.members.append(F)
        link = world.bus.node(FRA)
        with world.bus.hold(f"wga.hb.{FRA}") as held:
            for n in range(1, 31):
                beat = a_beat(FRA, name="fra1", n=n, t=world.clock.wall_ms)
                await link.publish(f"wga.hb.{FRA}", encoded(beat))
                await world.pass_s(1)
            assert ams.nodes.regions() == BOTH
            held.release()
            await world.bus.idle()
        assert ams.nodes.regions() == ALL
        found = {each.member.id: each for each in ams.nodes.presences()}[FRA]
        assert found.skew_ms == -1000
        assert await world.until(lambda: ams.nodes.regions() == BOTH) <= DEAD_S

    run(story())


def test_a_clock_that_differs_is_warned_of_once(caplog: pytest.LogCaptureFixture) -> None:
    """A difference of more than two seconds is warned of as it begins; of more than five minutes, nobody is asked."""

    async def story() -> None:
        world, ams, _ = await two()
        link = world.bus.node(FRA)
        world.members.append(F)
        for n in range(1, 30):
            off = 3000 if n < 15 else 400_000
            beat = a_beat(FRA, name="fra1", n=n, t=world.clock.now().wall_ms + off)
            await link.publish(f"wga.hb.{FRA}", encoded(beat))
            await world.pass_s(1)
            assert dict(ams.nodes.regions())["eu"] == (2 if n < 15 else 1)

    run(story())
    assert len([each for each in caplog.messages if "the clock of fra1 differs" in each]) == 2  # ams1, sin1
