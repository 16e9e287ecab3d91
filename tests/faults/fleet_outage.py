"""`python -m tests.faults.fleet_outage --minutes 10`: a fleet of real appliances of which one dies, and one is cut off.

Prints how long it takes from the last answer of an exit that dies to the first session elsewhere; and what is known at
the hub after a cut under traffic, and how soon.
"""

from __future__ import annotations

import sqlite3
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import click

from tests.support.fleet.whole_fleet import WholeFleet, is_reported, whole_fleet
from tests.support.real_backend import NO_ROOT, backend_here
from tests.support.tunnel.appliance_process import Transfer
from tests.support.tunnel.sessions import client_key, figures
from tests.support.tunnel.waiting import until

if TYPE_CHECKING:
    from tests.support.fleet.appliances import FleetAppliance

PAUSE_S = 0.02
CHUNK = 200_000


@dataclass
class DeadExit:
    """`noticed_s`: from its last answer until the API of another exit named its region no more; `elsewhere_s`: until
    there was a session elsewhere. `asked_s`: until one who asks for its region all the while is told of the others;
    `moved_s`: until that one has a session there. `wrong`: answers that should not be."""

    noticed_s: float = 0.0
    elsewhere_s: float = 0.0
    asked_s: float = 0.0
    moved_s: float = 0.0
    answers: int = 0
    wrong: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        return (
            f"a dead exit: from its last answer {self.noticed_s:.1f} s until its region was named no more, "
            f"{self.elsewhere_s:.1f} s to the first session elsewhere; one who asks for its region is told of the "
            f"others after {self.asked_s:.1f} s, with answer {self.answers}, and has a session there after "
            f"{self.moved_s:.1f} s"
        )


def dead_exit(fleet: WholeFleet, dying: FleetAppliance, account: str = "alice") -> DeadExit:
    """Has the host die, and asks the first exit for its region until there is a session elsewhere.

    A session of the account stays on the host that died.
    """
    seen, api, token = DeadExit(), fleet.hub, fleet.token(account)
    opened = api.open(token, region=dying.region)
    until(lambda: is_reported(dying, opened["id"]), "the hub was told of the session")
    assert dying.api("GET", "/healthz").status == 200
    began = time.monotonic()
    dying.lose_host()
    with ThreadPoolExecutor(1) as threads:
        asking = threads.submit(_ask_for, dying.region, api, token, seen, began)
        while dying.region in (named := api.regions()):
            time.sleep(PAUSE_S)
        seen.noticed_s = time.monotonic() - began
        elsewhere = api.open(token, region=sorted(named)[0])
        seen.elsewhere_s = time.monotonic() - began
        asking.result()
    api.close(elsewhere["id"], token)
    if api.api("GET", f"/v1/sessions/{opened['id']}", token=token).status != 200:
        seen.wrong.append("a session of the dead exit is not known")
    return seen


def _ask_for(region: str, api: FleetAppliance, token: str, seen: DeadExit, began: float) -> None:
    """Asks for the region until others are named. Until then it may be said that its exit does not answer."""
    while not seen.asked_s:
        answer = api.api("POST", "/v1/sessions", {"region": region}, token)
        seen.answers += 1
        if answer.status != 503:
            seen.wrong.append(f"{answer.status}: {answer.body}")
            return
        if "available" in answer.body:
            seen.asked_s = time.monotonic() - began
            opened = api.open(token, region=answer.body["available"][0])
            seen.moved_s = time.monotonic() - began
            if set(answer.body["available"]) != api.regions():
                seen.wrong.append(f"available {answer.body}, regions {api.regions()}")
            api.close(opened["id"], token)


@dataclass
class Cut:
    """`moved`: bytes through the exit while it was cut off; `equal_s`: after healing, until the hub knew of all."""

    minutes: float
    moved: int = 0
    named_s: float = 0.0
    equal_s: float = 0.0

    def __str__(self) -> str:
        return (
            f"a cut of {self.minutes:g} minutes under traffic, {self.moved} bytes: after it healed named again in "
            f"{self.named_s:.1f} s, and equal to the byte in {self.equal_s:.1f} s"
        )


def cut_under_traffic(fleet: WholeFleet, spoke: FleetAppliance, minutes: float) -> Cut:
    """Cuts the spoke off while its client downloads, in pieces. Raises TimeoutError if a byte is lost."""
    cut, client, token = Cut(minutes), fleet.clients[0], fleet.token()
    opened = fleet.hub.open(token, region=spoke.region)
    key = client_key(opened["wg_config"])
    client.wg_quick(opened["wg_config"])
    assert client.address_seen() == spoke.host.ip
    before = spoke.transfer(key)
    fleet.world.cut_off(spoke.host)
    ends = time.monotonic() + 60 * minutes
    while time.monotonic() < ends:
        client.download(CHUNK, "cut")
    client.down()
    after = spoke.transfer(key)
    cut.moved = after.received + after.sent - before.received - before.sent
    until(lambda: figures(spoke.session(opened["id"], token)) == spoke.transfer(key), "the exit has counted")

    fleet.world.heal()
    began = time.monotonic()
    until(lambda: spoke.region in fleet.hub.regions(), "the hub names its region", every=PAUSE_S)
    cut.named_s = time.monotonic() - began
    until(  # what the client sent last may come after it was taken down
        lambda: folded(fleet, opened["id"]) == spoke.transfer(key), "the hub knows of all", every=PAUSE_S
    )
    cut.equal_s = time.monotonic() - began
    return cut


def folded(fleet: WholeFleet, session: str) -> Transfer | None:
    """What the hub has folded of the session: not what it could ask the exit for."""
    with closing(sqlite3.connect(fleet.hub.store, timeout=20)) as db:
        asked = "SELECT bytes_in, bytes_out FROM fleet_sessions WHERE session_id = ?"
        rows = db.execute(asked, (session,)).fetchall()
    return Transfer(*rows[0]) if rows else None


@click.command()
@click.option("--minutes", default=10.0, show_default=True, help="How long the cut is.")
@click.option("--deaths", default=3, show_default=True, help="How often an exit dies.")
def main(minutes: float, deaths: int) -> None:
    """Measure outages of a fleet of three real appliances; exit status 1 where an answer is wrong."""
    backend = backend_here()
    if backend is None:
        raise click.ClickException(NO_ROOT)
    with (
        tempfile.TemporaryDirectory(prefix="outage-") as folder,
        whole_fleet(backend, Path(folder), exits=3, clients=1) as fleet,
    ):
        for number in range(deaths):
            seen = dead_exit(fleet, fleet.exits[2], f"death{number}")
            click.echo(str(seen))
            if seen.wrong:
                raise click.ClickException("; ".join(seen.wrong))
            fleet.exits[2].revive_host()
            fleet.heal()
        click.echo(str(cut_under_traffic(fleet, fleet.exits[1], minutes)))


if __name__ == "__main__":
    main()
