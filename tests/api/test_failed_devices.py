"""Changes of devices that fail on the way, or that their clients give up: made or not made, never half."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import TYPE_CHECKING

import pytest

from appliance.domain.errors import TunnelError
from tests.api.test_failed_opens import MADE_AND_LOST, NOT_BEGUN, transactions_go
from tests.support.api.answers import refused
from tests.support.api.device_owner import Owner, key_of
from tests.support.api.exit_under_test import IMPATIENT, ExitUnderTest, address, new_key, on_exit, until

if TYPE_CHECKING:
    from collections.abc import Coroutine

    import httpx

FAILED = "peer apply failed; node may be disconnected"


async def nothing_is_left(ada: Owner, key: str) -> None:
    """No address, no row, no peer, no place of the tier; name and key are free."""
    exit_ = ada.client.exit_
    await exit_.tick(after=1)
    await exit_.tick(after=1)
    assert exit_.rows("SELECT id FROM devices") == []
    assert len(exit_.parts.records.devices) == 0
    assert exit_.parts.live.in_sync
    assert not exit_.tunnel.peers
    assert exit_.parts.pool.in_use == 0
    exit_.parts.node.health.apply_succeeded()
    bob = await Owner.of(exit_, "bob")
    await bob.add(client_public_key=key)
    await ada.add()


@on_exit(environ=IMPATIENT)
async def test_a_tunnel_that_hangs(exit_: ExitUnderTest) -> None:
    """503 after the timeout; what the tunnel had begun is undone."""
    ada, (key, _) = await Owner.of(exit_), new_key()
    exit_.tunnel.gate.clear()
    refused(await ada.post(client_public_key=key), 503, FAILED)
    exit_.tunnel.gate.set()
    await nothing_is_left(ada, key)


@pytest.mark.parametrize("fates", [[MADE_AND_LOST], [MADE_AND_LOST, NOT_BEGUN], [NOT_BEGUN]])
@on_exit()
async def test_a_store_that_fails(exit_: ExitUnderTest, *, fates: list[str]) -> None:
    """The row that was made all the same is deleted, the peer and the address are given back."""
    ada, (key, _) = await Owner.of(exit_), new_key()
    transactions_go(exit_, fates)
    refused(await ada.post(client_public_key=key), 503, "store unavailable")
    await nothing_is_left(ada, key)


async def given_up(exit_: ExitUnderTest, asking: Coroutine[None, None, httpx.Response], *, held: bool = True) -> None:
    """The client goes while its request waits: for the tunnel, or for its turn if the lock is not `held` by it."""
    if held:
        exit_.tunnel.gate.clear()
        request = asyncio.create_task(asking)
        await until(lambda: exit_.tunnel.waiting, "it waits for the tunnel")
        request.cancel()
    else:
        async with exit_.parts.peers.exit_lock:
            request = asyncio.create_task(asking)
            await until(lambda: bool(exit_.parts.peers.exit_lock._waiters), "it waits for its turn")
            request.cancel()
            await asyncio.sleep(0)
    with suppress(asyncio.CancelledError):
        await request
    exit_.tunnel.gate.set()
    await exit_.parts.services.devices.settled()


@pytest.mark.parametrize("held", [True, False])
@on_exit()
async def test_a_client_that_gives_up(exit_: ExitUnderTest, *, held: bool) -> None:
    """A device that nobody was told of is not there."""
    ada, (key, _) = await Owner.of(exit_), new_key()
    await given_up(exit_, ada.post(client_public_key=key), held=held)
    await nothing_is_left(ada, key)


@on_exit()
async def test_told_too_late(exit_: ExitUnderTest) -> None:
    """One that was stored when its client had gone is removed again."""
    ada, (key, _) = await Owner.of(exit_), new_key()
    writer = exit_.store._writer
    real, stored = writer.execute, asyncio.Event()

    async def execute(sql: str, *arguments: object) -> object:
        found = await real(sql, *arguments)  # type: ignore[arg-type]  # as it is given
        if sql == "COMMIT":
            asking.cancel()
            stored.set()
            await asyncio.sleep(0)
        return found

    asking = asyncio.create_task(ada.post(client_public_key=key))
    writer.execute = execute  # type: ignore[method-assign,assignment]  # what it does, and says so
    with suppress(asyncio.CancelledError):
        await asking
    await stored.wait()
    writer.execute = real  # type: ignore[method-assign]  # as it was
    await exit_.parts.services.devices.settled()
    await nothing_is_left(ada, key)


@pytest.mark.parametrize("change", ["pause", "rotate", "remove"])
@on_exit()
async def test_peers_that_cannot_be_changed(exit_: ExitUnderTest, *, change: str) -> None:
    """503, and all is as it was: the session goes on, with all that it has moved."""
    ada = await Owner.of(exit_)
    made = await ada.add()
    key = key_of(exit_, made["id"])
    await exit_.shake(key)
    exit_.tunnel.add_traffic(key, rx=100)
    ask = {
        "pause": lambda: ada.patch(made["id"], paused=True),
        "rotate": lambda: ada.rotate(made["id"]),
        "remove": lambda: ada.remove(made["id"]),
    }[change]
    real = exit_.tunnel.apply

    async def lost(changes: object) -> None:
        """The kernel does it, and its answer does not come."""
        await real(changes)  # type: ignore[arg-type]  # as they are given
        raise TunnelError("no answer")

    exit_.tunnel.apply = lost  # type: ignore[method-assign]  # what it does, and says
    refused(await ask(), 503, FAILED)
    exit_.tunnel.apply = real  # type: ignore[method-assign]  # as it was
    await exit_.tick(after=1)
    assert set(exit_.tunnel.peers) == {key}
    exit_.tunnel.add_traffic(key, rx=11)
    await exit_.tick(after=1)
    found = await ada.get(made["id"])
    assert (found["state"], found["bytes_in"]) == ("connected", 111)
    assert (await ask()).status_code == 200
    assert key not in exit_.tunnel.peers
    await exit_.tick(after=1)
    assert exit_.rows("SELECT count(*), sum(bytes_in) FROM sessions WHERE state = 'terminated'") == [(1, 111)]


@pytest.mark.parametrize("change", ["pause", "rotate", "remove"])
@on_exit()
async def test_a_commit_that_is_lost(exit_: ExitUnderTest, *, change: str) -> None:
    """503, and the tunnel, the store and memory agree on one of the two."""
    ada = await Owner.of(exit_)
    made = await ada.add()
    key = key_of(exit_, made["id"])
    await exit_.shake(key)
    exit_.tunnel.add_traffic(key, rx=100)
    transactions_go(exit_, ["", MADE_AND_LOST])  # the figures, then the change
    body = {"paused": True} if change == "pause" else {}
    method, path = {"pause": ("PATCH", ""), "rotate": ("POST", "/rotate"), "remove": ("DELETE", "")}[change]
    refused(await ada.ask(method, f"/v1/devices/{made['id']}{path}", body), 503, "store unavailable")
    await exit_.tick(after=1)
    await exit_.tick(after=1)
    assert exit_.parts.live.in_sync
    left = {"pause": set(), "rotate": {key_of(exit_, made["id"])} if change == "rotate" else set(), "remove": set()}
    assert set(exit_.tunnel.peers) == left[change]
    assert key not in exit_.tunnel.peers
    assert exit_.rows("SELECT state, bytes_in FROM sessions") == [("terminated", 100)]
    assert exit_.parts.pool.in_use == (change != "remove")


@on_exit()
async def test_a_rotation_that_is_given_up(exit_: ExitUnderTest) -> None:
    """The new file would go nowhere: the old one stays good."""
    ada = await Owner.of(exit_)
    made = await ada.add()
    key = key_of(exit_, made["id"])
    await given_up(exit_, ada.rotate(made["id"]))
    await exit_.tick(after=1)
    assert set(exit_.tunnel.peers) == {key} == {key_of(exit_, made["id"])}
    assert address(made) == "10.101.0.2"


@on_exit()
async def test_a_restart_in_between(exit_: ExitUnderTest) -> None:
    """Devices, their pauses and their names outlive the process; what it was doing is done or not."""
    ada = await Owner.of(exit_)
    phone, paused = await ada.add(), await ada.add("paused")
    await ada.patch(paused["id"], paused=True)
    await ada.patch(phone["id"], name="telephone")
    await exit_.restart()
    assert set(exit_.tunnel.peers) == {key_of(exit_, phone["id"])}
    listed = (await ada.ask("GET", "/v1/devices")).json()["devices"]
    assert [(d["name"], d["state"]) for d in listed] == [("paused", "paused"), ("telephone", "idle")]
