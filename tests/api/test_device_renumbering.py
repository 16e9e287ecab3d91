"""What becomes of devices' counters when subnet or interface change: each byte is of one session all the same."""

from __future__ import annotations

from typing import TYPE_CHECKING

from appliance.config.load import parse_settings
from appliance.domain.entities import Reason
from appliance.network.exit_node import build_exit
from appliance.sessions import renumbering
from appliance.store.database import Store
from appliance.store.queries import sessions as rows
from tests.support.api.a_device import a_device
from tests.support.api.device_owner import Owner
from tests.support.api.exit_under_test import CONFIG, SERVER_KEY, ExitUnderTest, on_exit
from tests.support.fake_tunnel import FakeTunnel

if TYPE_CHECKING:
    from tests.support.api.a_device import DeviceUnderTest

IDLE = '[tiers.paid]\nidle_timeout = "5m"\n'


async def renumbered(exit_: ExitUnderTest, wireguard: str, reason: Reason | None = None) -> None:
    """The process stops, the configuration has this too, devices go along, and another process starts."""
    await exit_.stop()
    exit_.settings = parse_settings(f"{CONFIG}{wireguard}\n{IDLE}", {}, "exit-1")
    store = await Store.open(exit_.path)
    if reason is not None:
        async with store.write() as db:
            await rows.mark_closing(db, [s.id for s in await rows.unfinished(db)], reason)
    exit_now = build_exit(exit_.settings.wireguard, SERVER_KEY)
    await renumbering.renumber(store, exit_now, exit_.settings, None, exit_.clock.wall_ms)
    await store.close()
    exit_.tunnel = type(exit_.tunnel)(exit_.tunnel.interface)
    await exit_.start()
    await exit_.tick(after=1)


async def used(exit_: ExitUnderTest) -> DeviceUnderTest:
    """A device that has moved a hundred bytes, in a session that it still has."""
    phone = await a_device(exit_, await exit_.account())
    await phone.shakes()
    phone.sends(100)
    await exit_.tick(after=10)
    return phone


def allowed(exit_: ExitUnderTest, phone: DeviceUnderTest) -> list[str]:
    return sorted(str(each) for each in exit_.tunnel.peers[phone.key].allowed_ips)


@on_exit(IDLE, reject_after_ms=180_000)
async def test_another_subnet(exit_: ExitUnderTest) -> None:
    """The peer stays in the interface with what it was billed, and has its new address: no session begins by that."""
    phone = await used(exit_)
    await exit_.tick(after=400)
    phone.sends(5)  # of a handshake that comes to nothing
    before = allowed(exit_, phone)
    await renumbered(exit_, 'subnet = "10.9.0.0/24"')
    assert len(set(before) & set(allowed(exit_, phone))) == 1  # that of IPv6
    assert [s[:3] for s in phone.sessions()] == [("terminated", "idle", 100)]
    await phone.shakes()
    phone.sends(7)
    await exit_.tick(after=1)
    assert [s[:3] for s in phone.sessions()] == [("terminated", "idle", 100), ("live", None, 12)]


@on_exit()
async def test_an_outdated_file(exit_: ExitUnderTest) -> None:
    """What of it is so is told across starts, in what answers a change and a removal too, until it is made anew."""
    ada = await Owner.of(exit_)
    phone, laptop = [(await ada.add(name))["id"] for name in ("phone", "laptop")]
    for _ in range(2):  # the second finds nothing to do, and is a start like any other
        await renumbered(exit_, 'subnet = "10.9.0.0/24"\nsubnet6 = "fd00:1::/112"')
        assert (await ada.get(phone))["stale"] == ["address", "address6"]
    assert (await ada.patch(phone, name="mine")).json()["stale"] == ["address", "address6"]
    exit_.parts.node.public_ip = "192.0.2.7"
    assert (await ada.remove(laptop)).json()["stale"] == ["address", "address6", "endpoint"]
    assert (await ada.rotate(phone)).status_code == 200
    assert "stale" not in await ada.get(phone)
    assert "stale" not in (await ada.remove(phone)).json()


@on_exit(IDLE, reject_after_ms=180_000)
async def test_a_session_that_was_ended_for_it(exit_: ExitUnderTest) -> None:
    """What it has used is the device's; the peer's counters and handshake of then begin no other."""
    phone = await used(exit_)
    await renumbered(exit_, 'subnet = "10.9.0.0/24"', Reason.DRAINED)
    await exit_.tick(after=10)
    assert [s[:3] for s in phone.sessions()] == [("terminated", "drained", 100)]
    assert phone.totals()[0] == 100
    await phone.shakes()
    phone.sends(7)
    await exit_.tick(after=1)
    assert phone.sessions()[1][:3] == ("live", None, 7)


@on_exit(IDLE, reject_after_ms=180_000)
async def test_another_interface(exit_: ExitUnderTest) -> None:
    """Its counters begin at zero: what was billed of the old one is not taken off them."""
    phone = await used(exit_)
    await exit_.tick(after=400)
    exit_.tunnel = FakeTunnel()
    await renumbered(exit_, 'interface = "wga7"')
    await phone.shakes()
    phone.sends(200)
    await exit_.tick(after=1)
    assert [s[:3] for s in phone.sessions()] == [("terminated", "idle", 100), ("live", None, 200)]
