"""Whole appliances, three of which are the hubs: others become hubs, one leaves, and their authority is replaced."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from msgspec.structs import replace

from appliance.fleet.hub.authorities import BOTH_TRUSTED_MS
from appliance.fleet.hub.certificates import split
from appliance.fleet.membership.identity import FleetFolder
from tests.support.fleet.appliances import FleetAppliance, fleet_of
from tests.support.fleet.several_hubs import agreed, await_roles, await_successor, leading, roles
from tests.support.fleet.whole_fleet import WholeFleet, await_token
from tests.support.fleet.world import new_fleet_world
from tests.support.real_backend import NO_ROOT, backend_here
from tests.support.tunnel.client import clients_of
from tests.support.tunnel.waiting import until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

pytestmark = [pytest.mark.long, pytest.mark.timeout(900)]


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[WholeFleet]:
    backend, folder = backend_here(), tmp_path_factory.mktemp("four")
    if backend is None:
        pytest.skip(NO_ROOT)
    with (
        new_fleet_world(4, 1) as world,
        clients_of(world, folder) as clients,
        fleet_of(world, backend, folder, fleet={"report": "1s"}) as exits,
    ):
        make_hubs(exits[0], *exits[1:3])
        yield WholeFleet(world, exits, clients)


@pytest.fixture
def four(fleet: WholeFleet) -> list[FleetAppliance]:
    """Four exits, of which the first three are the hubs at first, and the first leads. Each test leaves three hubs."""
    return fleet.exits


def make_hubs(led: FleetAppliance, *others: FleetAppliance) -> None:
    led.admin("fleet", "hubs", led.name, *(each.name for each in others))


def hubs_of(exits: list[FleetAppliance]) -> tuple[FleetAppliance, list[FleetAppliance], list[FleetAppliance]]:
    """The hub that leads, the other hubs, and the spokes; once all agree."""
    name, _ = until(lambda: agreed(exits), "all know who leads")
    led = next(each for each in exits if each.name == name)
    said = until(lambda: len(set(roles(led).values())) == 3 and roles(led), "there are hubs and a spoke")
    of = {role: [each for each in exits if said.get(each.name) == role] for role in ("standby", "spoke")}
    return led, of["standby"], of["spoke"]


def await_tokens(exits: list[FleetAppliance], *tokens: str) -> None:
    for each in exits:
        for token in tokens:
            await_token(each, token)


def fleet_folder(exit_: FleetAppliance) -> FleetFolder:
    return FleetFolder(exit_.store.parent)


def trusted(exit_: FleetAppliance) -> list[str]:
    membership = fleet_folder(exit_).membership()
    return [] if membership is None else [*split(membership.ca)]


def issuer(certificate: str) -> bytes:
    """The key's name of who has signed a certificate (PEM)."""
    from cryptography import x509

    found = x509.load_pem_x509_certificate(certificate.encode())
    return found.extensions.get_extension_for_class(x509.AuthorityKeyIdentifier).value.key_identifier or b""


def subject(certificate: str) -> bytes:
    from cryptography import x509

    found = x509.load_pem_x509_certificate(certificate.encode())
    return found.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value.digest


def signed_by(exit_: FleetAppliance, authority: str) -> bool:
    leaf = (exit_.store.parent / "fleet/hub/leaf.pem").read_text(encoding="ascii")
    return issuer(leaf) == subject(authority)


def test_their_authority_is_replaced(four: list[FleetAppliance], show: Callable[[str], None]) -> None:
    """All trust both, then all hubs are signed by the new one, then it alone is trusted: the hubs hear each other all
    the time, and another leads when one is lost afterwards."""
    led, others, spokes = hubs_of(four)
    token = led.token("before")
    await_tokens(four, token)
    led.admin("fleet", "rotate-ca")
    for each in four:
        until(lambda each=each: len(trusted(each)) == 2, f"{each.name} trusts both")  # type: ignore[misc]
    new = trusted(led)[-1]
    for each in (led, *others):
        until(lambda each=each: signed_by(each, new), f"{each.name} is signed by the new one")  # type: ignore[misc]
    await_tokens(four, token, led.token("both"))
    folder = fleet_folder(led)
    until(lambda: (of_hub := folder.hub_secrets()) and of_hub.next_authority and of_hub.next_authority.signs_since, "")
    of_hub = folder.hub_secrets()
    assert of_hub is not None
    assert of_hub.next_authority is not None
    past = of_hub.next_authority.told_since - BOTH_TRUSTED_MS
    folder.save_hub_secrets(replace(of_hub, next_authority=replace(of_hub.next_authority, told_since=past)))
    for each in four:
        until(lambda each=each: trusted(each) == [new], f"{each.name} trusts the new one alone")  # type: ignore[misc]
    _, gen = leading(led)
    await_tokens(four, token, led.token("after"))
    led.lose_host()
    successor = await_successor([*others, *spokes], gen)
    show(f"{successor.name} leads after {led.name} with the new authority")
    later = successor.token("later")
    await_tokens([*others, *spokes], token, later)
    led.revive_host()
    until(lambda: leading(led) == leading(successor), "the old hub follows")
    await_tokens(four, token, later)


def test_a_further_hub_is_not_invited(four: list[FleetAppliance]) -> None:
    """It is let in as a spoke, and then named with the others; a standby is for one hub alone."""
    led, others, _ = hubs_of(four)
    before = roles(led)
    said = led.attempt("fleet", "invite", "--hub")
    names = " ".join(each.name for each in (led, *others))
    assert said.returncode == 1
    assert f"the hubs are {names.replace(' ', ', ')}" in said.stderr
    assert f"wg-appliance fleet hubs {names} NAME" in said.stderr
    assert roles(led) == before


def test_a_hub_is_replaced_by_another_host(four: list[FleetAppliance]) -> None:
    """It is a spoke then, without a server, and the hubs keep one folder of streams each."""
    led, (stays, goes), (comes,) = hubs_of(four)
    token = led.token("replaced")
    await_tokens(four, token)
    make_hubs(led, stays, comes)
    await_roles(four, {led.name: "hub", stays.name: "standby", comes.name: "standby", goes.name: "spoke"})
    later = led.token("by-others")
    await_tokens(four, token, later)
    until(lambda: not (goes.store.parent / "fleet/hub/hub.conf").exists(), "no server starts any more where it was")
    for each in (led, stays, comes):
        streams = each.store.parent / "fleet/hub/jetstream"
        until(lambda streams=streams: len(list(streams.glob("flt_*"))) == 1, f"{each.name} has one folder")  # type: ignore[misc]


def test_a_hub_that_is_lost_is_replaced_by_another_host(four: list[FleetAppliance]) -> None:
    """When it is back, it is a spoke."""
    led, (stays, lost), (comes,) = hubs_of(four)
    token = led.token("to-be-lost")
    await_tokens(four, token)
    lost.lose_host()
    rest = [led, stays, comes]
    make_hubs(led, stays, comes)
    wanted = {led.name: "hub", stays.name: "standby", comes.name: "standby", lost.name: "spoke"}
    await_roles(rest, wanted)
    later = led.token("without-it")
    await_tokens(rest, token, later)
    lost.revive_host()
    await_roles(four, wanted)
    await_tokens(four, token, later)
    until(lambda: not (lost.store.parent / "fleet/hub/hub.conf").exists(), "no server starts any more where it was")


def test_a_hub_that_does_not_lead_leaves(four: list[FleetAppliance], show: Callable[[str], None]) -> None:
    """The two that are left are a hub and its standby; it is a single exit, and can be a hub again."""
    led, (stays, leaves), (spoke,) = hubs_of(four)
    token = led.token("leaving")
    await_tokens(four, token)
    said = leaves.attempt("fleet", "leave", "--yes", check=True).stderr
    show(said.strip())
    assert "either may be lost" in said
    rest = [led, stays, spoke]
    await_roles(rest, {led.name: "hub", stays.name: "standby", spoke.name: "spoke"})
    later = led.token("left")
    await_tokens(rest, token, later)
    assert not fleet_folder(leaves).is_member
    leaves.admin("node", "join", led.admin("fleet", "invite").strip(), "--yes")
    await_tokens(four, token, later)
    make_hubs(led, stays, leaves)
    assert len(hubs_of(four)[1]) == 2
    await_tokens(four, led.token("again"))


def billed(exit_: FleetAppliance, month: str) -> list[dict[str, Any]]:
    invoice = json.loads(exit_.admin("invoice", "payer", "--month", month, "--format", "json"))
    lines: list[dict[str, Any]] = invoice["lines"]
    return lines


def test_what_an_exit_that_left_has_billed_is_on_whichever_hub_leads(fleet: WholeFleet) -> None:
    """Its stream is gone, and nobody but a hub knows of it any more."""
    four, (client,) = fleet.exits, fleet.clients
    led, others, (spoke,) = hubs_of(four)
    led.admin("account", "create", "payer", "--tier", "paid")
    token = led.token("payer")
    await_tokens(four, token)
    opened = led.open(token, region=spoke.region)
    shown = f"/v1/sessions/{opened['id']}"
    month = spoke.api("GET", shown, token=token).body["created_at"][:7]
    client.wg_quick(opened["wg_config"])
    until(lambda: client.address_seen() == spoke.host.ip, "the tunnel carries")
    until(lambda: spoke.api("GET", shown, token=token).body["bytes_in"] > 0, "it is counted")
    client.down()
    assert spoke.api("DELETE", shown, token=token).status == 200
    spoke.attempt("fleet", "leave", "--yes", check=True)
    until(lambda: "which has left the fleet: all that it reported is folded" in led.log(), "its stream is gone")
    before = billed(led, month)
    assert len(before) == 1
    assert before[0]["bytes_in"] > 0
    _, gen = leading(led)
    led.lose_host()
    successor = await_successor(others, gen)
    assert billed(successor, month) == before
    led.revive_host()
    until(lambda: leading(led) == leading(successor), "the old hub follows")
    spoke.admin("node", "join", successor.admin("fleet", "invite").strip(), "--yes")
    hubs_of(four)
