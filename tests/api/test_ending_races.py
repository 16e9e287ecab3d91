"""A session that is being ended while a request about the same key is under way."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from appliance.network.wireguard.tunnel import RemovePeer
from tests.support.api.exit_under_test import ExitUnderTest, new_key, on_exit, until
from tests.support.fake_tunnel import FakeInterface, FakeTunnel

if TYPE_CHECKING:
    from collections.abc import Sequence

    from appliance.network.wireguard.tunnel import PeerChange


class SlowToRemove(FakeTunnel):
    """While `hold` is cleared a removal waits, after it has set `removing`."""

    def __init__(self, interface: FakeInterface | None = None) -> None:
        super().__init__(interface)
        self.hold, self.removing = asyncio.Event(), asyncio.Event()
        self.hold.set()

    async def apply(self, changes: Sequence[PeerChange]) -> None:
        if any(isinstance(change, RemovePeer) for change in changes):
            self.removing.set()
            await self.hold.wait()
        await super().apply(changes)


@on_exit(tunnel=SlowToRemove)
async def test_opened_again_while_the_tick_ends_it(exit_: ExitUnderTest) -> None:
    """The new session has an address of its own that no other gets, and can be closed."""
    tunnel = exit_.tunnel
    assert isinstance(tunnel, SlowToRemove)
    ada = await exit_.client()
    text, raw = new_key()
    old = await ada.open(client_public_key=text)
    await exit_.admin("UPDATE sessions SET state = 'closing', reason = 'admin' WHERE id = ?", old["id"])
    tunnel.hold.clear()
    ticking = asyncio.create_task(exit_.tick())
    await tunnel.removing.wait()
    posting = asyncio.create_task(ada.post(client_public_key=text))
    await until(lambda: bool(exit_.parts.peers.exit_lock._waiters), "the request's batch waits for the tick")
    tunnel.hold.set()
    await ticking
    answer = await posting
    assert answer.status_code == 201
    assert exit_.state_of(old["id"]) == ("terminated", "admin")
    assert exit_.parts.pool.in_use == 1
    assert set(tunnel.peers) == {raw}
    assert (await ada.delete(answer.json()["id"])).status_code == 200
    assert exit_.parts.pool.in_use == 0
