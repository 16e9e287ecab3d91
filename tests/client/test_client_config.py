"""The wg-quick file as its owner completes it, and as a phone's camera reads it."""

from __future__ import annotations

from ipaddress import ip_network

import pytest
from pyzbar.pyzbar import ZBarSymbol, decode

from appliance.client.connection import session_config
from appliance.client.tunnel.wg_config import may_have_resolvers, own_network, parse, render
from appliance.client.ui import qr
from appliance.domain.errors import HostError
from appliance.network.wireguard.keys import encode
from tests.support.client.hostile_files import HOSTILE_FILES, changed
from tests.support.client.photographed import photographed
from tests.support.client.scripted_api import CONFIG

KEY = bytes(range(32))
WITH_DNS = CONFIG.replace("MTU = 1420\n", "MTU = 1420\nDNS = 10.0.0.53, fd00::53\n")


def written(text: str) -> str:
    return render(parse(text, ipv6=True), KEY)


def test_the_file_is_rendered_with_the_key() -> None:
    """One line more under [Interface]; from what this API sends, nothing else changes."""
    for text in (CONFIG, WITH_DNS, CONFIG.replace("MTU = 1420\n", ""), CONFIG.replace("203.0.113.1", "[2001:db8::1]")):
        assert written(text) == text.replace("[Interface]\n", f"[Interface]\nPrivateKey = {encode(KEY)}\n")


def test_an_exit_with_a_name() -> None:
    """The name stays in the file, for whoever takes it to another machine."""
    assert "Endpoint = exit.example:51820\n" in written(CONFIG.replace("203.0.113.1", "exit.example"))


def test_a_file_without_ipv6() -> None:
    """Where the machine has asked for it, and only there."""
    without = CONFIG.replace(", fd65:7869:7400::2/128", "").replace("0.0.0.0/0, ::/0", "0.0.0.0/0")
    assert "AllowedIPs = 0.0.0.0/0\n" in render(parse(without, ipv6=False), KEY)
    for text, ipv6 in ((without, True), (CONFIG, False)):
        with pytest.raises(HostError, match="traffic would leave outside the tunnel"):
            parse(text, ipv6=ipv6)
    with pytest.raises(HostError, match="is not one of IPv4 alone"):
        parse(CONFIG.replace("0.0.0.0/0, ::/0", "0.0.0.0/0"), ipv6=False)


def test_an_exit_without_ipv6_takes_it_all_the_same() -> None:
    """No address of IPv6, and all of IPv6 into the tunnel."""
    config = parse(CONFIG.replace(", fd65:7869:7400::2/128", ""), ipv6=True)
    assert (config.has_ipv6_address, config.ipv6) == (False, True)


@pytest.mark.parametrize("name", HOSTILE_FILES)
def test_what_is_refused_of_the_file(name: str) -> None:
    """Everything beside what this API sends, with its reason; none of it is repaired or left out."""
    with pytest.raises(HostError, match="the exit's wg_config is refused: "):
        parse(changed(name), ipv6=True)


def test_own_networks() -> None:
    """An address or a resolver in a network of this machine's, by its interface or a route."""
    config = parse(WITH_DNS, ipv6=True)
    assert own_network(config, [("eth0", ip_network("192.0.2.0/24"))]) == ""
    for interface, network in (("eth0", "10.101.0.0/16"), ("eth1", "fd65::/16"), ("wg0", "10.0.0.0/24")):
        assert f"is in {network}, a network of this machine ({interface})" in own_network(
            config, [("lo", ip_network("::1/128")), (interface, ip_network(network))]
        )


def test_a_resolver_in_an_own_network_is_the_users_to_name() -> None:
    """What he asks for is his; what the exit names there is refused."""
    lan = [("eth0", ip_network("192.168.1.0/24"))]
    given = CONFIG.replace("MTU = 1420\n", "MTU = 1420\nDNS = 192.168.1.53\n")
    assert own_network(session_config(CONFIG, True, ("192.168.1.53",)), lan) == ""
    for asked in (None, ()):
        found = own_network(session_config(given, True, asked), lan)
        assert ("its resolver 192.168.1.53 is in 192.168.1.0/24" in found) == (asked is None)
    foreign = session_config(CONFIG.replace("10.101.0.2", "192.168.1.7"), True, ("192.168.1.53",))
    assert "its address 192.168.1.7 is in" in own_network(foreign, lan)


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
    chosen = session_config(config, True, asked, default)
    assert chosen.resolvers == found
    whole = render(chosen, KEY)
    assert may_have_resolvers(whole) == bool(found)
    assert may_have_resolvers(whole[:-1])
    assert may_have_resolvers(whole.replace("MTU", "\ufffd"))


@pytest.mark.parametrize("colour", [True, False])
@pytest.mark.parametrize("config", [CONFIG, WITH_DNS])
def test_zbar_reads_the_qr_code(config: str, colour: bool) -> None:
    """zbar, which has nothing of ours or of segno's, reads the whole config from what the terminal shows."""
    whole = written(config)
    picture = photographed(qr.draw(whole, colour=colour), light_on_dark=not colour)
    (found,) = decode(picture, symbols=[ZBarSymbol.QRCODE])
    assert found.data.decode() == whole


def test_the_qr_code_needs_no_colours_of_the_terminals() -> None:
    """It says black on white itself, line by line; without colour it has no escapes at all."""
    assert all(line.startswith("\x1b[38;5;16;48;5;231m") for line in qr.draw("x", colour=True).splitlines())
    assert "\x1b" not in qr.draw("x", colour=False)
