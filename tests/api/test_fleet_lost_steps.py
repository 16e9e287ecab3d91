"""What is lost at each step of an opening on another exit, a request or its answer: nothing is left behind."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import pytest

from appliance.domain.errors import StoreUnavailable
from appliance.fleet.claims.ledger import ClaimLedger
from appliance.fleet.claims.messages import ClaimKey, ReleaseKey, SettleKey
from appliance.fleet.claims.own_claims import OwnClaims, OwnKey
from tests.support.api.exit_under_test import new_key
from tests.support.fleet.claims_kept import FLEET_KEY, RecordsInMemory
from tests.support.fleet.exits_under_test import on_fleet
from tests.support.fleet.rpc_by_bus import by_bus

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.support.fleet.bus import Bus
    from tests.support.fleet.exits_under_test import ExitsUnderTest, FleetClient, FleetHost

OF_LEDGER: dict[str, type] = {"claim": ClaimKey, "settle": SettleKey, "release": ReleaseKey}
BEFORE = {"abort": "open", "release": "open"}  # what is lost so that it comes to the step
ANSWER_S = 0.1
YOUNG_S = 61
USUAL = (("claim", "answer"), ("abort", "answer"), ("end", "request"))
CASES = [
    pytest.param(step, side, marks=() if (step, side) in USUAL else pytest.mark.long)
    for step in ("open", "claim", "settle", "abort", "release", "end")
    for side in ("request", "answer")
]


class LossyClaims(OwnClaims):
    """Claims over the bus. `strike` is called with the operation when one of these requests is about to be sent."""

    struck: type | None = None
    strike: Callable[[str], None]

    async def _ask(self, operation: str, asked: Any, timeout_s: float = ANSWER_S) -> object:
        if type(asked) is self.struck:
            self.strike(f"wga.led.*.{operation}")
        return await super()._ask(operation, asked, timeout_s)


class LossyFleet:
    """Two exits joined by a bus, with the ledger's records."""

    def __init__(self, exits: ExitsUnderTest, bus: Bus) -> None:
        self.exits, self.bus = exits, bus
        self.records = RecordsInMemory()
        self.claims = {host.node_id: self._claims(host) for host in exits.hosts.values()}

    def _claims(self, host: FleetHost) -> LossyClaims:
        def keys() -> Iterator[OwnKey]:
            for session in host.exit_.parts.records.live:
                yield OwnKey(session.public_key, session.account_id, session.id, device=False)

        link, clock = self.bus.node(host.node_id), host.exit_.clock
        return LossyClaims(link, host.node_id, FLEET_KEY, clock, keys=keys, names=list)

    async def begin(self) -> None:
        clock = next(iter(self.exits.hosts.values())).exit_.clock

        async def locate(_id: str) -> None: ...

        await ClaimLedger(self.records, RecordsInMemory(), clock, locate).listen(self.bus.hub())
        self.exits.ledger.at = self.claims.__getitem__  # type: ignore[method-assign, assignment]
        for host in self.exits.hosts.values():
            host.wire()

    def lose(self, step: str, side: str) -> None:
        """Loses the next two messages of the step: as often as the same is asked."""
        lose = self.bus.lose_requests if side == "request" else self.bus.lose_answers
        if step not in OF_LEDGER:
            lose(f"wga.rpc.*.*.{step}", times=2)
            return
        for each in self.claims.values():
            each.struck, each.strike = OF_LEDGER[step], lambda subject: self._strike(subject, lose)

    def _strike(self, subject: str, lose: Callable[..., None]) -> None:
        for each in self.claims.values():
            each.struck = None
        lose(subject, times=2)

    async def heal(self) -> None:
        """All is asked that is to be, and a minute passes."""
        async with asyncio.timeout(60):
            await self._carry_out()
            while self.exits.intents():
                await self._carry_out()
        for host in self.exits.hosts.values():
            host.exit_.clock.advance(YOUNG_S)
            await self.claims[host.node_id].look()

    async def _carry_out(self) -> None:
        with suppress(StoreUnavailable):  # it waits 50 ms for its own writer here
            await self.exits.carry_out()

    def left(self) -> list[tuple[object, ...]]:
        """What sessions occupy on both exits; the invoice has those that have ended, too."""
        found = [host.left() for host in self.exits.hosts.values()]
        return [(sessions, *rest) for sessions, _devices, _lines, *rest in found]


@pytest.mark.parametrize(("step", "side"), CASES)
@on_fleet("ams", "fra")
async def test_nothing_is_left_of_an_opening_of_which_a_step_is_lost(
    exits: ExitsUnderTest, step: str, side: str
) -> None:
    """Whether its client got a session, and ended it, or was told 503: no session, address, peer, claim or intent."""
    fleet = LossyFleet(exits, await by_bus(exits, ANSWER_S))
    await fleet.begin()
    ada, before = await exits.client(), fleet.left()
    key, _ = new_key()
    if step == "end":  # of the session that the key had in another region
        await ada.at("ams").post(region="ams", client_public_key=key)
    if step in BEFORE:
        fleet.lose(BEFORE[step], "answer")
    fleet.lose(step, side)
    await _opened_and_ended(ada, key)
    await fleet.heal()
    assert fleet.left() == before
    assert fleet.records.known == {}
    assert exits.intents() == 0
    assert fleet.bus.failures == []


async def _opened_and_ended(ada: FleetClient, key: str) -> None:
    there = ada.at("ams")
    answer = await there.post(region="fra", client_public_key=key)
    assert answer.status_code in (201, 503), answer.text
    if answer.status_code == 201:
        assert (await there.delete(answer.json()["id"])).status_code in (200, 503)  # then it is ended later
