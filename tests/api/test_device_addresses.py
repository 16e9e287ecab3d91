"""One address is one client's: what another process gives a device, the server gives nobody."""

from __future__ import annotations

import asyncio

from tests.support.api.a_device import add, new_device
from tests.support.api.exit_under_test import ExitUnderTest, on_exit, until


@on_exit()
async def test_an_address_that_a_device_gets_while_a_session_opens(exit_: ExitUnderTest) -> None:
    """The session has reserved it in memory and is not stored yet; another process adds a device there."""
    ada = await exit_.client()
    exit_.tunnel.gate.clear()
    asking = asyncio.create_task(ada.post())
    await until(lambda: exit_.tunnel.waiting, "the request is admitted")
    (offset,) = (n for n in range(2, 10) if n in exit_.parts.pool)
    await add(exit_, new_device(exit_, ada.account, offset))
    exit_.tunnel.gate.set()
    assert (await asking).status_code == 503
    await exit_.tick()
    assert offset in exit_.parts.pool  # the session has given it up, and the device has it
    for _ in range(3):
        assert (await ada.post()).status_code == 201
        await exit_.tick()
    assert_no_address_is_twos(exit_)


@on_exit()
async def test_an_address_that_a_device_gets_while_flows_of_a_session_are_deleted(exit_: ExitUnderTest) -> None:
    """The session has ended, and its address is not free yet in memory; in the store it is, and a device gets it."""
    ada = await exit_.client()
    exit_.egress.gate.clear()
    ended = await ada.open()
    await ada.delete(ended["id"])
    ((offset,),) = exit_.rows("SELECT address_offset FROM sessions")
    await add(exit_, new_device(exit_, ada.account, offset))
    await exit_.tick()
    exit_.egress.gate.set()
    await until(lambda: len(exit_.egress.forgotten) > 0, "the flows are deleted")
    await exit_.settled()
    await exit_.tick()
    assert offset in exit_.parts.pool
    assert (await ada.post()).status_code == 201
    assert_no_address_is_twos(exit_)


def assert_no_address_is_twos(exit_: ExitUnderTest) -> None:
    sessions = exit_.rows("SELECT address_offset FROM sessions WHERE state <> 'terminated'")
    devices = exit_.rows("SELECT address_offset FROM devices WHERE removed_at IS NULL")
    taken = [offset for (offset,) in (*sessions, *devices)]
    assert len(taken) == len(set(taken)), taken
