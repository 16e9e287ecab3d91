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
    statuses = []
    for _ in range(3):
        statuses.append((await ada.post()).status_code)
        await exit_.tick()
    assert statuses[1:] == [201, 201]  # the first may have been given what the session before it gives up
    sessions = exit_.rows("SELECT address_offset FROM sessions WHERE state <> 'terminated'")
    devices = exit_.rows("SELECT address_offset FROM devices WHERE removed_at IS NULL")
    taken = [offset for (offset,) in (*sessions, *devices)]
    assert len(taken) == len(set(taken)), taken
