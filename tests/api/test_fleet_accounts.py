"""An exit that follows the hub does at its next tick what an admin command on it would have it do."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from appliance.domain import ids
from appliance.domain.entities import Token
from appliance.fleet.accounts.replica import Replica
from appliance.store.queries import accounts, devices, fleet_state, tokens
from tests.support.api.exit_under_test import Client, serving
from tests.support.fleet.bus import Bus
from tests.support.fleet.followers import AMS, Follower, hub, turn

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from pathlib import Path

    from tests.support.api.exit_under_test import ExitUnderTest
    from tests.support.fleet.followers import Followed

    Story = Callable[[Followed, "Follower", ExitUnderTest, Client], Awaitable[None]]


def with_a_session(folder: Path, story: Story) -> None:
    """A hub, and an exit on which an account of the hub's has a session."""

    async def told() -> None:
        bus = Bus()
        one = await hub(folder, bus)
        (folder / "exit").mkdir()
        async with serving(folder / "exit") as exit_:
            async with exit_.store.write() as db:
                await fleet_state.enter(db, "spoke", AMS, 1)
            ams = Follower(exit_.path, exit_.store, None, exit_.clock)  # type: ignore[arg-type]  # made at once
            ams.replica = Replica(bus.node(AMS), exit_.store, AMS, exit_.clock, ams.reactions)
            ada = await one.account("ada", 0)
            client = Client(exit_, ada, ids.token_secret())
            async with one.store.write() as db:
                token = Token(ids.token_id(), "ada", ada.tier, "", 1, None, None)
                await tokens.insert(db, ada, token, ids.token_hash(client.token))
            assert (await client.post()).status_code == 401
            await beats(one, ams, exit_)
            await client.open()
            await story(one, ams, exit_, client)
        await one.store.close()

    asyncio.run(told())


async def beats(one: Followed, ams: Follower, exit_: ExitUnderTest) -> None:
    """Two turns of beats, each with the tick that follows; the exit's own are not whole unless it was rung."""
    for _ in range(2):
        rings = ams.rings
        await turn(one, [ams])
        await exit_.parts.ticker.tick(whole=ams.rings > rings)
        await exit_.settled()


async def revoke(one: Followed, client: Client) -> None:
    async with one.store.write() as db:
        (token,) = await tokens.of_account(db, client.account.id)
        await tokens.revoke(db, token.id, 5)


async def disable(one: Followed, client: Client) -> None:
    async with one.store.write() as db:
        await accounts.update(db, client.account.id, tier=client.account.tier, disabled=True)


async def delete(one: Followed, client: Client) -> None:
    async with one.store.write() as db:
        await accounts.delete(db, client.account.id, 5)


def test_a_revoked_token_is_refused(tmp_path: Path) -> None:
    """401, though it was good a moment ago and is remembered; its session goes on."""

    async def story(one: Followed, ams: Follower, exit_: ExitUnderTest, client: Client) -> None:
        await revoke(one, client)
        await beats(one, ams, exit_)
        assert (await client.post()).status_code == 401
        assert exit_.rows("SELECT state FROM sessions") == [("live",)]

    with_a_session(tmp_path, story)


@pytest.mark.parametrize("change", [disable, delete])
def test_sessions_of_an_account_that_may_not_connect_end(
    tmp_path: Path, change: Callable[[Followed, Client], Awaitable[None]]
) -> None:
    """With the reason that an admin's command gives, peer and all."""

    async def story(one: Followed, ams: Follower, exit_: ExitUnderTest, client: Client) -> None:
        await change(one, client)
        await beats(one, ams, exit_)
        assert exit_.rows("SELECT state, reason FROM sessions") == [("terminated", "admin")]
        assert exit_.tunnel.peers == {}
        assert (await client.post()).status_code == 401
        assert exit_.rows("SELECT requested = applied FROM node") == [(1,)]

    with_a_session(tmp_path, story)


def test_a_devices_account_that_is_deleted_takes_it_out_of_the_tunnel(tmp_path: Path) -> None:
    """Its peer goes with the row."""

    async def story(one: Followed, ams: Follower, exit_: ExitUnderTest, client: Client) -> None:
        answer = await exit_.http.post("/v1/devices", json={"name": "phone", "region": "fsn"}, headers=client.headers)
        assert answer.status_code == 201
        assert len(exit_.tunnel.peers) == 2
        await delete(one, client)
        await beats(one, ams, exit_)
        assert exit_.tunnel.peers == {}
        async with exit_.store.read() as db:
            assert await devices.count_of(db, client.account.id) == 0

    with_a_session(tmp_path, story)


def test_another_tier_is_in_force_for_live_sessions(tmp_path: Path) -> None:
    """And an account that is enabled again opens sessions again."""

    async def story(one: Followed, ams: Follower, exit_: ExitUnderTest, client: Client) -> None:
        await one.change("UPDATE accounts SET tier = 'free'")
        await beats(one, ams, exit_)
        (session,) = exit_.parts.records.live
        assert session.account_tier == "free"
        await one.change("UPDATE accounts SET disabled = 1")
        await beats(one, ams, exit_)
        await one.change("UPDATE accounts SET disabled = 0")
        await beats(one, ams, exit_)
        await client.open()

    with_a_session(tmp_path, story)


def test_a_new_token_costs_the_exit_no_reading(tmp_path: Path) -> None:
    """It is good at once, without a request to the ticker."""

    async def story(one: Followed, ams: Follower, exit_: ExitUnderTest, client: Client) -> None:
        rings = ams.rings
        secret = ids.token_secret()
        async with one.store.write() as db:
            token = Token(ids.token_id(), "ada", client.account.tier, "", 1, None, None)
            await tokens.insert(db, client.account, token, ids.token_hash(secret))
        await turn(one, [ams])
        await Client(exit_, client.account, secret).open()
        assert ams.rings == rings

    with_a_session(tmp_path, story)
