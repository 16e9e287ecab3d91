"""Has the exits of a fleet compare their invoice lines with this hub's, through its running server."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import msgspec

from appliance.cli import output
from appliance.cli.fleet_server import POLL_S
from appliance.domain.errors import Conflict, HostError
from appliance.fleet.rpc.operations import VERIFY, VerifiedLine, VerifyLines
from appliance.store.queries import fleet_requests

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from appliance.cli.admin import Admin
    from appliance.domain.fleet_invoice import ReportingExit
    from appliance.metering.fleet_invoices import FleetInvoice

ANSWERED_WITHIN_S = 15.0  # the server looks every few seconds
AT_ONCE = 500  # lines of one request


async def verify(a: Admin, account_id: str, month: str, invoice: FleetInvoice) -> None:
    """Asks the exits in the fleet, and remarks which agree, and which have left, whose lines nobody can compare.

    Raises Conflict if one differs. Raises HostError if not all have compared: no server runs here, or one is silent.
    """
    exits = [each for each in invoice.exits if each.present and each.node != invoice.own_node]
    _tell_of_gone(invoice)
    if not a.state.is_served():
        if exits:
            raise HostError(
                "not compared with the exits' own lines: the server is not running: systemctl start wg-appliance"
            )
        return
    asked = [(each, request) for each in exits for request in requests(account_id, month, invoice, each)]
    numbers = []
    async with a.store.write() as db:
        for each, request in asked:
            numbers.append(await fleet_requests.intend(db, each.node, VERIFY.name, msgspec.json.encode(request), a.now))
    try:
        answers = await asyncio.gather(*(_answer(a, number) for number in numbers))
    finally:
        async with a.store.write() as db:
            for number in numbers:
                if number is not None:
                    await fleet_requests.done(db, number)
    _tell(exits, [(each, answer) for (each, _), answer in zip(asked, answers, strict=True)])


def requests(account_id: str, month: str, invoice: FleetInvoice, each: ReportingExit) -> Iterator[VerifyLines]:
    """Yields what is asked of an exit: its ended lines, which change no more, so many at once."""
    lines = sorted(
        (line for node, line in invoice.told if node == each.node and line.ended_at is not None),
        key=lambda line: line.session_id,
    )
    after = ""
    for first in range(0, max(1, len(lines)), AT_ONCE):
        page = lines[first : first + AT_ONCE]
        until = page[-1].session_id if first + AT_ONCE < len(lines) else ""
        yield VerifyLines(account_id, month, each.upto, after, until, [VerifiedLine.of(line) for line in page])
        after = until


async def _answer(a: Admin, number: int | None) -> str | None:
    """Returns "" if the exit has found no difference, its words if it has; None: it has not answered in time."""
    end = asyncio.get_running_loop().time() + ANSWERED_WITHIN_S
    while number is not None:
        async with a.store.read() as db:
            left = await fleet_requests.outcome(db, number)
        if left is None:
            return ""
        if left.operation == fleet_requests.REFUSED:
            return fleet_requests.words(left)
        if asyncio.get_running_loop().time() >= end:
            break
        await asyncio.sleep(POLL_S)
    return None


def _tell_of_gone(invoice: FleetInvoice) -> None:
    billing = {each.node for each in invoice.lines} - {invoice.own_node}
    gone = sorted(each.name for each in invoice.exits if not each.present and each.node in billing)
    if gone:
        output.remark(f"not compared: {', '.join(gone)}: in the fleet no more")


def _tell(exits: Sequence[ReportingExit], answers: Sequence[tuple[ReportingExit, str | None]]) -> None:
    silent = {each.name for each, answer in answers if answer is None}
    differing = [f"{each.name}: {answer}" for each, answer in answers if answer]
    if differing:
        raise Conflict(f"the exits' own lines are not the hub's: {'; '.join(differing)}")
    agreeing = [each.name for each in exits if each.name not in silent]
    if agreeing:
        output.remark(f"verified: the lines are those of {', '.join(agreeing)}")
    if silent:
        raise HostError(
            f"not compared: {', '.join(sorted(silent))}: no answer; again once wg-appliance fleet status shows that it "
            "is there and of this version"
        )
