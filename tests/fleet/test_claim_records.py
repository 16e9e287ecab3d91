"""Claims in JetStream, on a real hub, are what they are in memory."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest
from nats.js.errors import BadRequestError

from appliance.domain.clock import HostClock
from appliance.domain.errors import CutOff
from appliance.fleet.claims.kv import KvRecords
from appliance.fleet.claims.ledger import ClaimLedger
from appliance.fleet.link.link import NatsLink
from tests.support.fleet.claims_kept import keeps_the_contract, races
from tests.support.fleet.hub_process import SECONDS, HubProcess
from tests.support.fleet.link_contract import AMS, FRA

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from appliance.fleet.link.nats_client import LinkUser


async def dialled(hub: HubProcess, user: LinkUser) -> NatsLink:
    link = NatsLink(lambda: (hub.at(),), user, HostClock())
    link.start()
    await link.wait_connected(SECONDS)
    return link


async def nowhere(_id: str) -> None:
    return None


def test_claims_on_a_real_hub(tmp_path: Path, show: Callable[[str], None]) -> None:
    """They keep the contract, 500 races have one winner each, what is deleted leaves nothing; a bucket that was lost is
    made anew, under another name."""

    async def story(hub: HubProcess) -> None:
        ledger_link = await dialled(hub, hub.hub_user())
        spokes = {node: await dialled(hub, hub.user(node)) for node in (AMS, FRA)}
        keys, names = KvRecords(ledger_link.jetstream, "keys"), KvRecords(ledger_link.jetstream, "dev")
        try:
            await keeps_the_contract(keys)
            state = (await ledger_link.jetstream().stream_info("KV_keys")).state
            assert state.messages == 3  # a, n, and what names it
            ledger = ClaimLedger(keys, names, HostClock(), nowhere)
            served = await races(ledger, ledger_link, dict(spokes), 500)
            show(f"requests served for 500 races of two: {served}")
            name = await ledger.name()
            await ledger_link.jetstream().delete_stream("KV_keys")
            assert await ledger.name() != name
            await keeps_the_contract(keys)
        finally:
            for link in (ledger_link, *spokes.values()):
                await link.close()
        with pytest.raises(CutOff):
            await keys.get("a")

    with HubProcess(tmp_path / "hub", AMS, FRA) as hub:
        asyncio.run(story(hub))


@pytest.mark.parametrize("code", [10071, 10164])
def test_a_record_that_changes_meanwhile_is_of_another_revision(code: int) -> None:
    """Whichever way JetStream says it: a server of a cluster knows of a change that is under way."""

    class OvertakenJetStream:
        async def publish(self, *_: object, **_named: object) -> None:
            raise BadRequestError(code=400, err_code=code)

    records = KvRecords(OvertakenJetStream, "keys")  # type: ignore[arg-type]  # all that is asked of it
    assert asyncio.run(records.put("a", b"1", 1)) is False
