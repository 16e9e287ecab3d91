"""The section [fleet]: what it takes, and the port that a hub calls its own."""

from __future__ import annotations

from socket import IPPROTO_TCP
from typing import TYPE_CHECKING

import pytest

from appliance.config.load import HostPort, parse_settings
from appliance.config.own_ports import own_ports
from appliance.domain.errors import ConfigError
from appliance.store.state_dir import StateDir

if TYPE_CHECKING:
    from pathlib import Path


def test_a_host_without_the_section_has_the_defaults() -> None:
    """As the contract has them."""
    fleet = parse_settings("", {}, "exit").fleet
    assert (fleet.listen, fleet.advertise, fleet.report) == (HostPort("0.0.0.0", 7422), None, 60)  # noqa: S104
    assert (fleet.offline_tokens, fleet.when_cut_off, fleet.servers) == (86400, "share", ())


@pytest.mark.parametrize(
    ("written", "dialled"),
    [
        ("", None),
        ("hub.example.net", "hub.example.net"),
        ("hub.example.net:17422", "hub.example.net:17422"),
        ("203.0.113.9", "203.0.113.9"),
        ("203.0.113.9:17422", "203.0.113.9:17422"),
        ("2001:db8::9", "2001:db8::9"),
        ("[2001:db8::9]:17422", "[2001:db8::9]:17422"),
    ],
)
def test_what_others_dial_is_a_name_or_an_address_with_or_without_a_port(written: str, dialled: str | None) -> None:
    """A port where it differs from that which the hub listens on."""
    assert parse_settings(f'[fleet]\nadvertise = "{written}"', {}, "exit").fleet.advertise == dialled


@pytest.mark.parametrize(
    ("key", "value"),
    [
        *(("advertise", f'"{text}"') for text in ("::", "a b", "hub.example.net:0", "unix:/x", "224.0.0.1:1", ":1")),
        *(("listen", f'"{text}"') for text in ("7422", "unix:/run/x", "0.0.0.0:70000", "")),
        *(("servers", text) for text in ('"a:1"', '["unix:/x"]', '["a"]')),
        *(("report", text) for text in ('"0s"', '"2h"', "-1")),
        *(("when_cut_off", text) for text in ('"never"', "true")),
        ("offline_tokens", '"31d"'),
        ("port", "7422"),
    ],
)
def test_what_it_does_not_take_is_refused_with_the_key(key: str, value: str) -> None:
    """At start, in one line."""
    with pytest.raises(ConfigError, match=rf"fleet\.{key} = "):
        parse_settings(f"[fleet]\n{key} = {value}", {}, "exit")


def test_a_hub_s_port_differs_from_the_others() -> None:
    """One of them could not be bound."""
    for section in ("api", "metrics"):
        with pytest.raises(ConfigError, match=r'fleet.listen = "127.0.0.1:9000": must differ from api.listen'):
            parse_settings(f'[{section}]\nlisten = "127.0.0.1:9000"\n[fleet]\nlisten = "127.0.0.1:9000"', {}, "exit")


def test_a_hub_s_ports_are_the_appliance_s_own_on_a_hub_alone(tmp_path: Path) -> None:
    """For members, and beside it for other hubs: no client's packets leave with them there; another exit's ports are
    what they were."""
    for text, ports in (("", (7422, 7423)), ('[fleet]\nlisten = "0.0.0.0:65535"', (65535, 65534))):
        settings = parse_settings(text, {}, "exit")
        of_hub = own_ports(settings, hub=True) - own_ports(settings, hub=False)
        assert of_hub == {(int(IPPROTO_TCP), port) for port in ports}
    state = StateDir(tmp_path)
    assert not state.is_hub
    (tmp_path / "fleet").mkdir()
    (tmp_path / "fleet/hub.json").touch()
    assert state.is_hub
