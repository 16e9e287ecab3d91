"""The wg-quick file as its owner completes it, and as a phone's camera reads it."""

from __future__ import annotations

import re

import pytest
from pyzbar.pyzbar import ZBarSymbol, decode

from appliance.client.connection import whole_config
from appliance.client.tunnel.wg_config import resolvers, with_private_key, with_resolvers
from appliance.client.ui import qr
from appliance.domain.errors import HostError
from appliance.network.wireguard.keys import encode
from tests.support.client.scripted_api import CONFIG

KEY = bytes(range(32))
WITH_DNS = CONFIG.replace("MTU = 1420\n", "MTU = 1420\nDNS = 10.0.0.53, fd00::53\n")
PIXELS = 4  # of a module's side


def test_the_key_is_put_in() -> None:
    """As one line more under [Interface]; nothing else changes."""
    assert with_private_key(CONFIG, KEY) == CONFIG.replace(
        "[Interface]\n", f"[Interface]\nPrivateKey = {encode(KEY)}\n"
    )


@pytest.mark.parametrize("text", ["", "[Peer]\n", CONFIG + CONFIG, CONFIG.replace("MTU", "PrivateKey = x\nMTU")])
def test_what_is_no_config_for_a_key_of_ours(text: str) -> None:
    """Refused instead of used."""
    with pytest.raises(HostError, match="not valid for the client's own key"):
        with_private_key(text, KEY)


@pytest.mark.parametrize(
    "line",
    ["PostUp = touch /x", "postup=touch /x", " PreDown = x", "Table = off", "SaveConfig = true", "MTU = 1\rPostUp = x"],
)
def test_what_wg_quick_would_run(line: str) -> None:
    """An exit, or who poses as one, has no command run as root here: what the API does not give is refused."""
    text = CONFIG.replace("MTU = 1420\n", f"MTU = 1420\n{line}\n")
    with pytest.raises(HostError, match="not valid for the client's own key"):
        with_private_key(text, KEY)


def test_resolvers_are_read_replaced_and_left_out() -> None:
    """Read, replaced, and left out."""
    assert resolvers(CONFIG) == ()
    assert resolvers(WITH_DNS) == ("10.0.0.53", "fd00::53")
    assert with_resolvers(WITH_DNS, ()) == CONFIG
    assert with_resolvers(CONFIG, ("10.0.0.53", "fd00::53")) == WITH_DNS
    assert resolvers(with_resolvers(WITH_DNS, ("192.0.2.1",))) == ("192.0.2.1",)


@pytest.mark.parametrize(
    ("config", "asked", "default", "found"),
    [
        (CONFIG, None, (), ()),
        (CONFIG, None, ("9.9.9.9",), ("9.9.9.9",)),
        (WITH_DNS, None, ("9.9.9.9",), ("10.0.0.53", "fd00::53")),
        (WITH_DNS, ("192.0.2.1",), ("9.9.9.9",), ("192.0.2.1",)),
        (WITH_DNS, (), ("9.9.9.9",), ()),
    ],
)
def test_the_users_resolvers_come_first(
    config: str, asked: tuple[str, ...] | None, default: tuple[str, ...], found: tuple[str, ...]
) -> None:
    """The user's, else the operator's, else the default."""
    assert resolvers(whole_config(config, KEY, asked, default)) == found


def photographed(text: str, *, light_on_dark: bool) -> tuple[bytes, int, int]:
    """What a camera sees of half-block characters: (grey pixels, width, height)."""
    halves = {" ": (0, 0), "▀": (1, 0), "▄": (0, 1), "█": (1, 1)}
    rows = []
    for line in re.sub(r"\x1b\[[0-9;]*m", "", text).splitlines():
        for half in (0, 1):
            ink = [halves[character][half] for character in line]
            row = bytes(255 if inked is light_on_dark else 0 for inked in map(bool, ink) for _ in range(PIXELS))
            rows += [row] * PIXELS
    return b"".join(rows), len(rows[0]), len(rows)


@pytest.mark.parametrize("colour", [True, False])
@pytest.mark.parametrize("config", [CONFIG, WITH_DNS])
def test_zbar_reads_the_qr_code(config: str, colour: bool) -> None:
    """zbar, which has nothing of ours or of segno's, reads the whole config from what the terminal shows."""
    whole = with_private_key(config, KEY)
    picture = photographed(qr.draw(whole, colour=colour), light_on_dark=not colour)
    (found,) = decode(picture, symbols=[ZBarSymbol.QRCODE])
    assert found.data.decode() == whole


def test_the_qr_code_needs_no_colours_of_the_terminals() -> None:
    """It says black on white itself, line by line; without colour it has no escapes at all."""
    assert all(line.startswith("\x1b[38;5;16;48;5;231m") for line in qr.draw("x", colour=True).splitlines())
    assert "\x1b" not in qr.draw("x", colour=False)
