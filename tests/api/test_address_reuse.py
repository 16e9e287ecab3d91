"""When the address of a session that has ended may be another's."""

from __future__ import annotations

import asyncio

from appliance.domain.entities import Reason
from tests.support.api.exit_under_test import ExitUnderTest, address, new_key, on_exit, until

SMALLEST = 'subnet = "10.101.0.0/30"\n'  # one client


@on_exit()
async def test_not_before_its_flows_are_forgotten(exit_: ExitUnderTest) -> None:
    """The session has ended and its client is told, its address is taken; requests and ticks go on. Then it is free."""
    ada = await exit_.client()
    opened = await ada.open()
    exit_.egress.gate.clear()
    assert (await ada.delete(opened["id"])).status_code == 200
    await until(lambda: exit_.egress.forgotten, "flows are being forgotten")
    assert exit_.state_of(opened["id"]) == ("terminated", Reason.CLOSED)
    assert exit_.parts.pool.in_use == 1
    second = await ada.open()
    assert address(second) != address(opened)
    await exit_.tick()
    assert (await ada.delete(second["id"])).status_code == 200
    assert exit_.parts.pool.in_use == 2
    exit_.egress.gate.set()
    await until(lambda: exit_.parts.pool.in_use == 0, "both are free")


@on_exit()
async def test_sessions_ended_meanwhile_take_one_more_deletion(exit_: ExitUnderTest) -> None:
    """What ends while flows are being forgotten takes one more time altogether."""
    ada = await exit_.client()
    opened = [await ada.open() for _ in range(6)]
    exit_.egress.gate.clear()
    deleting = [asyncio.create_task(ada.delete(opened[0]["id"]))]
    await until(lambda: exit_.egress.forgotten, "the flows of one are being forgotten")
    deleting += [asyncio.create_task(ada.delete(o["id"])) for o in opened[1:]]
    await until(lambda: not exit_.parts.live, "all have ended")
    exit_.egress.gate.set()
    assert {answer.status_code for answer in await asyncio.gather(*deleting)} == {200}
    assert [len(addresses) for addresses in exit_.egress.forgotten] == [2, 10]
    assert exit_.parts.pool.in_use == 0


@on_exit(SMALLEST)
async def test_the_last_address_is_waited_for(exit_: ExitUnderTest) -> None:
    """Where no other is free, who asks for a session gets the address as soon as it is."""
    ada = await exit_.client()
    opened = await ada.open()
    exit_.egress.gate.clear()
    deleting = asyncio.create_task(ada.delete(opened["id"]))
    await until(lambda: exit_.egress.forgotten, "flows are being forgotten")
    posting = asyncio.create_task(ada.post())
    exit_.egress.gate.set()
    assert (await posting).status_code == 201
    assert address((await posting).json()) == address(opened)
    assert (await deleting).status_code == 200


@on_exit()
async def test_an_end_unseen_by_memory_deletes_its_flows(exit_: ExitUnderTest) -> None:
    """A session that the store knows to have ended and memory does not has its flows forgotten all the same."""
    ada = await exit_.client()
    opened = await ada.open()
    await exit_.admin(
        "UPDATE sessions SET state = 'terminated', reason = 'closed', terminated_at = 1 WHERE id = ?", opened["id"]
    )
    await exit_.tick()
    assert exit_.egress.forgotten == [["10.101.0.2", "fd65:7869:7400::2"]]
    assert exit_.parts.pool.in_use == 0


@on_exit()
async def test_only_flows_of_live_sessions_go_on_at_a_start(exit_: ExitUnderTest) -> None:
    """Only the flows of sessions that have not ended go on: the last process may have been killed in between."""
    ada = await exit_.client()
    first, _ = await ada.open(), await ada.open()
    await ada.delete(first["id"])
    await exit_.restart()
    assert exit_.egress.held_at_start == ["10.101.0.3", "fd65:7869:7400::3"]


@on_exit(SMALLEST)
async def test_who_waited_for_an_address_replaces_nobody_who_came_later(exit_: ExitUnderTest) -> None:
    """A client asks, goes, and asks again with its key, served first as the first request waits for an address:
    the session that the client was told of stays."""
    ada, (text, _) = await exit_.client(), new_key()
    opened = await ada.open()
    exit_.egress.gate.clear()
    assert (await ada.delete(opened["id"])).status_code == 200
    first = asyncio.create_task(ada.post(client_public_key=text))
    await until(lambda: exit_.parts.queue._batch and not exit_.parts.peers.exit_lock.locked(), "it was refused")
    async with exit_.parts.peers.exit_lock:
        second = asyncio.create_task(ada.post(client_public_key=text))
        await until(lambda: len(exit_.parts.queue._waiting) == 1, "it waits for the next batch")
        exit_.egress.gate.set()
        await until(lambda: len(exit_.parts.queue._waiting) == 2, "the first asks again")
    assert ((await second).status_code, (await first).status_code) == (201, 503)
    assert exit_.state_of((await second).json()["id"]) == ("live", None)
