"""The configuration of a hub's nats-server, by the real nats-server."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest

from appliance.fleet.hub.config import HubSettings, ServerFiles, invitation_rights, member_rights, render
from appliance.fleet.hub_part import DEVICE_NAMES, KEYS, LEASES
from appliance.fleet.membership.members import FleetMember
from appliance.fleet.reports.stream_room import FULL
from appliance.fleet.reports.streams import MAX_BYTES
from tests.support.certificates import self_signed
from tests.support.fleet.nats_program import refusal

if TYPE_CHECKING:
    from pathlib import Path

HUB, SYSTEM = (
    "UCSFIE2Z5Q7B53SB3PSJUTJIOU5KT25FJUUM4KNUY4OMXXULW4KEF5GJ",
    "UCNC4VQTXZW2LL3GXS7BBMIUV4PKOQHPF5SEJMMRKHI4OWP6TFNFQRLO",
)
FRA, AMS = "nod_" + "a" * 24, "nod_" + "b" * 24
FRA_KEY, INVITATION = (
    "UB2243MFN3UQDW6N2DOBW473BR4FJ4MS2QWHX47VQAXGYOIEW7FKGU4W",
    "UCTQ234GDVHQOEXRGNF6EBIAHIJS2272DM5BF2MH4S5IDOCRD5YXFO56",
)


def member(node_id: str = FRA, nkey: str = FRA_KEY, left_at: int | None = None) -> FleetMember:
    return FleetMember(node_id, node_id[-3:], "fra", "spoke", nkey, bytes(32), 1, left_at)


def settings(folder: Path | str, *members: FleetMember, invitations: tuple[str, ...] = ()) -> HubSettings:
    files = ServerFiles(f"{folder}/leaf.pem", f"{folder}/leaf.key", f"{folder}/streams", f"{folder}/log")
    return HubSettings("hub.fleet.internal", "127.0.0.1:7422", files, HUB, SYSTEM, members, invitations)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """With a certificate; its name has what would end a quoted string."""
    folder = tmp_path_factory.mktemp('hub "ü" \\ {#')
    self_signed(folder, "leaf")
    return folder


def written(folder: Path, text: str) -> Path:
    file = folder / "hub.conf"
    file.write_text(text, encoding="utf-8")
    return file


@pytest.mark.parametrize("members", [(), (member(),)], ids=["alone", "member"])
@pytest.mark.parametrize("invitations", [(), (INVITATION,)], ids=["closed", "invited"])
def test_nats_server_takes_it(folder: Path, members: tuple[FleetMember, ...], invitations: tuple[str, ...]) -> None:
    """With and without members and open invitations, in a folder with an odd name."""
    assert refusal(written(folder, render(settings(folder, *members, invitations=invitations)))) == ""


def test_nats_server_does_look_at_it(folder: Path) -> None:
    """What the test above shows is worth something: a misspelt key, and a key twice, are refused."""
    text = render(settings(folder, member()))
    assert "unknown field" in refusal(written(folder, text.replace("ping_max", "ping_maxx")))
    assert "Duplicate nkey" in refusal(written(folder, text.replace(HUB, FRA_KEY)))


def test_the_order_of_members_makes_no_difference() -> None:
    """The text says whether a reload is needed."""
    one, other = member(), member(AMS, INVITATION)
    assert render(settings("/x", one, other)) == render(settings("/x", other, one))


def test_who_has_left_is_not_let_in() -> None:
    """The row stays in the directory; the key does not stay in the configuration."""
    assert FRA_KEY not in render(settings("/x", member(left_at=5)))


def test_a_member_may_speak_for_itself_alone() -> None:
    """Its id is in all that it publishes, and nothing of JetStream is there."""
    rights = member_rights(FRA)
    assert rights.publish == (f"wga.hb.{FRA}", f"wga.state.{FRA}.>", f"wga.led.{FRA}.>", f"wga.rpc.*.{FRA}.>")
    assert rights.subscribe == (f"_INBOX_{FRA}.>", "wga.hb.*", f"wga.rpc.{FRA}.>")
    assert rights.responds
    text = render(settings("/x", member()))
    fleet = text[text.index("  FLEET: {") :]
    assert "$JS" not in text
    assert "jetstream" not in fleet


def test_an_invitation_may_ask_once_in_its_own_name() -> None:
    """One subject to publish, one inbox of its own, no answers to others."""
    rights = invitation_rights(INVITATION)
    assert rights.publish == (f"wga.join.{INVITATION}",)
    assert rights.subscribe == (f"_INBOX_join_{INVITATION}.>",)
    assert not rights.responds


def test_fewer_connections_for_members_than_there_are() -> None:
    """However many connections members hold, the hub's own users are let in."""
    text = render(settings("/x"))
    (most, of_members) = (int(number) for number in re.findall(r"max_connections: (\d+)", text))
    assert of_members < most


def test_streams_of_64_exits_fit() -> None:
    """With the claims of their keys and names: what each stream may hold at most is reserved when it is made."""
    text = render(settings("/x"))
    (of_account,) = (int(number) for number in re.findall(r"max_file: (\d+)MB", text))
    (of_server,) = (int(number) for number in re.findall(r"max_file_store: (\d+)MB", text))
    (streams,) = (int(number) for number in re.findall(r"max_streams: (\d+)", text))
    assert of_account == of_server >= 64 * MAX_BYTES / 2**20 + 128
    assert streams >= 64 + len({KEYS, DEVICE_NAMES, LEASES})
    assert FULL * MAX_BYTES >= 20_000 * 800  # live sessions of one exit: none of them is dropped


@pytest.mark.parametrize("node_id", ["*", ">", "nod_" + "A" * 24, f"{FRA}.>", f'{FRA}"', f"{FRA}\n", "nod_abc"])
def test_an_id_that_would_widen_a_right_is_refused(node_id: str) -> None:
    """Whatever the directory holds, no subject gets a wildcard from it."""
    with pytest.raises(ValueError, match="is not the id of a node"):
        render(settings("/x", member(node_id)))


@pytest.mark.parametrize("nkey", ["", ">", "U" + "a" * 55, FRA_KEY.replace("U", "A", 1), FRA_KEY + "\n"])
def test_a_key_that_is_none_is_refused(nkey: str) -> None:
    """Of members and of invitations."""
    with pytest.raises(ValueError, match="public NKEY"):
        render(settings("/x", member(nkey=nkey)))
    with pytest.raises(ValueError, match="public NKEY"):
        render(settings("/x", invitations=(nkey,)))
