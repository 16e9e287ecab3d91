"""Limits of an account hold over all exits of a fleet."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from appliance.domain.tiers import Tier
from appliance.fleet.quota.opening_place import AGAIN_S
from appliance.sessions.arrivals import ASKING_AT_ONCE
from tests.support.api.answers import refused
from tests.support.api.device_owner import Owner
from tests.support.api.exit_under_test import new_key, until
from tests.support.fleet.exits_under_test import on_fleet
from tests.support.fleet.lent_limits import lent

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.support.fleet.exits_under_test import ExitsUnderTest, FleetClient
    from tests.support.fleet.lent_limits import LentLimits

QUOTA = 50_000_000
LOOK = 2_000_000  # what an exit moves in one look
LIMITS = f"""
[tiers.free]
bytes_limit = {QUOTA}
bytes_window = "1h"
seconds_limit = 0
idle_timeout = 0
max_live_sessions = 0
"""


class Using:
    """A client with a session on each exit, that uses them alike."""

    def __init__(self, limits: LentLimits, client: FleetClient) -> None:
        self.limits = limits
        self.client = client
        self.sessions: dict[str, str] = {}
        self.moved = 0

    async def open(self, *names: str) -> Using:
        for name in names:
            self.sessions[name] = (await self.client.at(name).connect(region=name))["id"]
        return self

    def live(self) -> list[str]:
        return [n for n, each in self.sessions.items() if self.limits.exits[n].exit_.state_of(each)[0] == "live"]

    async def look(self, moved: int = LOOK) -> None:
        """Each session that lives moves so much until the next look."""
        for name in self.live():
            exit_ = self.limits.exits[name].exit_
            exit_.tunnel.add_traffic(exit_.key_of(self.sessions[name]), rx=moved)
            self.moved += moved
        await self.limits.pass_time(0.25)

    async def use_up(self, most_looks: int = 200) -> int:
        """Goes on until no session lives. Returns what was moved in all."""
        for _ in range(most_looks):
            if not self.live():
                return self.moved
            await self.look()
        raise AssertionError(f"{self.moved} bytes moved, and {self.live()} live on")

    def reasons(self) -> set[str | None]:
        return {self.limits.exits[name].exit_.state_of(each)[1] for name, each in self.sessions.items()}


@on_fleet("ams", "fra", config_text=LIMITS)
async def test_a_quota_is_one_on_two_exits(exits: ExitsUnderTest, show: Callable[[str], None]) -> None:
    """Used half on each, both cut, and neither opens before the window ends; all that was free could be used."""
    async with lent(exits) as limits:
        using = await Using(limits, await exits.client(tier=Tier.FREE)).open("ams", "fra")
        moved = await using.use_up()
        show(f"of 50 MB, two exits moved {moved / 1e6:g} MB")
        assert QUOTA * 0.9 <= moved <= QUOTA + 2 * LOOK
        assert using.reasons() == {"quota_exceeded"}
        for name in exits.hosts:
            answer = await using.client.at(name).post(region=name)
            assert answer.status_code == 402
            assert answer.json()["bytes_used"] == pytest.approx(moved, abs=2 * LOOK)
        await limits.pass_time(3600, look=900)
        await using.open("ams", "fra")
        await using.look()
        assert using.live() == ["ams", "fra"]


@pytest.mark.parametrize("strict", [False, True], ids=["share", "strict"])
@pytest.mark.parametrize("cut", ["ams", "fra"])
def test_an_exit_that_is_cut_off_uses_no_more_than_it_may(cut: str, strict: bool, tmp_path: object) -> None:
    """By share: what it was lent and its part of what was free; strictly: what it was lent."""

    @on_fleet("ams", "fra", config_text=LIMITS)
    async def story(exits: ExitsUnderTest) -> None:
        async with lent(exits, strict=strict) as limits:
            using = await Using(limits, await exits.client(tier=Tier.FREE)).open("ams", "fra")
            for _ in range(4):
                await using.look()
            limits.away.add(cut)
            moved = await using.use_up()
            assert moved <= (QUOTA if strict else QUOTA + QUOTA // 2) + 2 * LOOK
            assert using.reasons() == {"quota_exceeded"}

    story(tmp_path)


@on_fleet("ams", "fra", config_text=LIMITS)
async def test_a_restarted_exit_goes_on_with_what_it_was_lent(exits: ExitsUnderTest) -> None:
    """Also where no ledger answers it; what it gave back before, it has no more."""
    async with lent(exits) as limits:
        using = await Using(limits, await exits.client(tier=Tier.FREE)).open("ams", "fra")
        for _ in range(4):
            await using.look()
        limits.away.add("ams")
        await limits.restart("ams")
        await using.look()
        assert using.live() == ["ams", "fra"]
        assert await using.use_up() <= QUOTA + QUOTA // 2 + 2 * LOOK


SECONDS = """
[tiers.free]
bytes_limit = 0
seconds_limit = "30s"
seconds_window = "1h"
idle_timeout = 0
max_live_sessions = 0
"""


@on_fleet("ams", "fra", config_text=SECONDS)
async def test_session_time_is_counted_over_all_exits(exits: ExitsUnderTest, show: Callable[[str], None]) -> None:
    """Two sessions side by side use it up together."""
    async with lent(exits) as limits:
        using = await Using(limits, await exits.client(tier=Tier.FREE)).open("ams", "fra")
        seconds = 0.0
        while using.live() and seconds < 100:
            seconds += len(using.live()) / 4
            await using.look(0)
        show(f"of 30 s of session time, two exits used {seconds:g} s")
        assert 29 <= seconds <= 30.5
        assert using.reasons() == {"quota_exceeded"}


LIVE = """
[tiers.free]
bytes_limit = 0
seconds_limit = 0
idle_timeout = 0
max_live_sessions = 2
"""


@on_fleet("ams", "fra", config_text=LIVE)
async def test_the_live_session_limit_is_one_on_two_exits(exits: ExitsUnderTest) -> None:
    """A third session is refused on either; one that ends on an exit leaves room on the other."""
    async with lent(exits) as limits:
        using = await Using(limits, await exits.client(tier=Tier.FREE)).open("ams", "fra")
        await limits.pass_time(0.5)
        for api in exits.hosts:
            for region in exits.hosts:
                refused(await using.client.at(api).post(region=region), 403, "live session limit reached")
        await using.client.at("ams").delete(using.sessions["ams"])
        await limits.pass_time(0.5)
        await using.client.at("fra").open(region="fra")
        refused(await using.client.at("ams").post(region="ams"), 403, "live session limit reached")


@on_fleet("ams", "fra", config_text=LIVE)
async def test_a_key_that_moves_to_another_exit_needs_no_more_room(exits: ExitsUnderTest) -> None:
    """Its session there takes the place of the one here, though the account has as many as it may."""
    async with lent(exits) as limits:
        client = await exits.client(tier=Tier.FREE)
        using = await Using(limits, client).open("fra")
        text, _ = new_key()
        here = await client.at("ams").open(region="ams", client_public_key=text)
        await exits.settled()
        there = await client.at("fra").open(region="fra", client_public_key=text)
        await exits.carry_out()
        assert exits["ams"].exit_.state_of(here["id"]) == ("terminated", "replaced")
        assert exits["fra"].exit_.state_of(there["id"])[0] == "live"
        await limits.pass_time(0.5)
        refused(await using.client.at("ams").post(region="ams"), 403, "live session limit reached")


@on_fleet("ams", "fra", config_text=LIVE.replace("max_live_sessions = 2", "max_live_sessions = 1"))
async def test_a_device_is_held_while_another_exit_has_the_accounts_session(exits: ExitsUnderTest) -> None:
    """And let go once that has ended."""
    async with lent(exits) as limits:
        client = await exits.client(tier=Tier.FREE)
        phone = await Owner(client.at("fra")).add("phone", region="fra")
        using = await Using(limits, client).open("ams")
        key = exits["fra"].exit_.rows("SELECT public_key FROM devices")[0][0]
        await exits["fra"].exit_.shake(key)
        await limits.pass_time(1)
        shown = await Owner(client.at("fra")).get(phone["id"])
        assert (shown["state"], shown["held_reason"]) == ("held", "live_session_limit")
        assert key not in exits["fra"].exit_.tunnel.peers
        await client.at("ams").delete(using.sessions["ams"])
        await limits.pass_time(6)
        shown = await Owner(client.at("fra")).get(phone["id"])
        assert shown["state"] == "idle"
        assert key in exits["fra"].exit_.tunnel.peers


MOVES = 20


@on_fleet("ams", "fra", config_text=LIVE.replace("max_live_sessions = 2", "max_live_sessions = 1"))
async def test_a_session_that_has_ended_on_one_exit_leaves_room_on_the_other_at_once(exits: ExitsUnderTest) -> None:
    """The exit where it ended gives that back by its next look, after the other was asked."""
    async with lent(exits, again_s=(0.05, *AGAIN_S)) as limits, limits.running():
        client = await exits.client(tier=Tier.FREE)
        here, there = "ams", "fra"
        for _ in range(MOVES):
            session = await client.at(here).open(region=here)
            await client.at(here).delete(session["id"])
            here, there = there, here
        assert not sum(each.denied for each in limits.leasing.values())


@on_fleet("ams", "fra", config_text=LIVE.replace("max_live_sessions = 2", "max_live_sessions = 1"))
async def test_a_session_that_lives_on_another_exit_leaves_no_room(exits: ExitsUnderTest) -> None:
    """However often it is asked for; it is refused once, in time, and counted once."""
    async with lent(exits) as limits, limits.running():
        using = await Using(limits, await exits.client(tier=Tier.FREE)).open("ams")
        refused(await using.client.at("fra").post(region="fra"), 403, "live session limit reached")
        assert limits.leasing["fra"].denied == 1


@on_fleet("ams", "fra", config_text=LIMITS)
async def test_use_on_all_exits_is_shown_on_each(exits: ExitsUnderTest) -> None:
    """By the usage, by a session and by the command, which reads the store."""
    async with lent(exits) as limits:
        using = await Using(limits, await exits.client(tier=Tier.FREE)).open("ams", "fra")
        for _ in range(4):
            await using.look()
        await limits.pass_time(31, look=1)
        for name in exits.hosts:
            usage = (await using.client.at(name).get("/v1/usage")).json()
            session = await using.client.at(name).status(using.sessions[name])
            assert usage["bytes_used"] == session["quota_bytes_used"] == using.moved


@on_fleet("ams", "fra", config_text=LIMITS)
async def test_what_is_left_of_a_grant_is_given_back_with_the_last_session(exits: ExitsUnderTest) -> None:
    """The other exit can use all that this one has not."""
    async with lent(exits) as limits:
        using = await Using(limits, await exits.client(tier=Tier.FREE)).open("ams", "fra")
        for _ in range(4):
            await using.look()
        await using.client.at("ams").delete(using.sessions["ams"])
        await limits.pass_time(0.5)
        moved = await using.use_up()
        assert QUOTA <= moved <= QUOTA + LOOK


@on_fleet("ams", "fra", config_text=LIMITS)
async def test_a_device_is_held_when_another_exit_has_used_up_the_quota(exits: ExitsUnderTest) -> None:
    """From its next handshake until the window ends."""
    async with lent(exits) as limits:
        client = await exits.client(tier=Tier.FREE)
        owner = Owner(client.at("fra"))
        phone = await owner.add("phone", region="fra")
        await (await Using(limits, client).open("ams")).use_up()
        key = exits["fra"].exit_.rows("SELECT public_key FROM devices")[0][0]
        await exits["fra"].exit_.shake(key)
        await limits.pass_time(1)
        shown = await owner.get(phone["id"])
        assert (shown["state"], shown["held_reason"]) == ("held", "quota_exceeded")
        await limits.pass_time(3600, look=900)
        assert (await owner.get(phone["id"]))["state"] == "idle"


@on_fleet("ams", "fra", config_text=LIMITS)
async def test_a_ledger_that_has_lost_its_memory_is_told_what_is_lent(exits: ExitsUnderTest) -> None:
    """Nothing is lent twice for it."""
    async with lent(exits) as limits:
        using = await Using(limits, await exits.client(tier=Tier.FREE)).open("ams", "fra")
        for _ in range(4):
            await using.look()
        limits.ledger.lost()
        await limits.tell_again()
        assert limits.ledger.told == {host.node_id for host in exits.hosts.values()}
        assert await using.use_up() <= QUOTA + 2 * LOOK


@on_fleet("ams", "fra", config_text=LIMITS + 'seconds_window = "1h"\n')
async def test_a_new_ledger_is_told_nothing_of_windows_that_are_over(exits: ExitsUnderTest) -> None:
    """Else it had a record again of each account that was ever there."""
    async with lent(exits) as limits:
        using = await Using(limits, await exits.client(tier=Tier.FREE)).open("ams", "fra")
        await using.use_up()
        limits.ledger.lost()
        await limits.tell_again()
        assert len(limits.ledger.records) == 1
        await limits.pass_time(3600, look=900)
        limits.ledger.lost()
        await limits.tell_again()
        assert limits.ledger.told == {host.node_id for host in exits.hosts.values()}
        assert not limits.ledger.records


DEVICES = 3 * ASKING_AT_ONCE


@on_fleet("ams", "fra", config_text=LIVE)
async def test_devices_that_arrive_together_are_asked_for_a_few_at_a_time(exits: ExitsUnderTest) -> None:
    """Each gets its session."""
    async with lent(exits) as limits:
        for number in range(DEVICES):
            client = await exits.client(f"account-{number}", tier=Tier.FREE)
            await Owner(client.at("fra")).add("phone", region="fra")
        exit_ = exits["fra"].exit_
        keys = [row[0] for row in exit_.rows("SELECT public_key FROM devices")]
        limits.ledger.open.clear()
        await exit_.shake(*keys)
        await until(lambda: limits.ledger.under_way == ASKING_AT_ONCE, "those that may are asked for")
        await exit_.shake(*keys)  # nobody else is
        assert limits.ledger.under_way == ASKING_AT_ONCE
        limits.ledger.open.set()
        live = "SELECT 1 FROM sessions WHERE state = 'live'"
        await until(lambda: len(exit_.rows(live)) == DEVICES, "all have their sessions")
