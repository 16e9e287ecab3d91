"""Files that a hostile exit may send in place of a session's: each the true one with one thing changed."""

from __future__ import annotations

from tests.support.client.scripted_api import CONFIG, SERVER_KEY

ADDRESS = "Address = 10.101.0.2/32, fd65:7869:7400::2/128"
ALLOWED = "AllowedIPs = 0.0.0.0/0, ::/0"
ENDPOINT = "Endpoint = 203.0.113.1:51820"
KEEPALIVE = "PersistentKeepalive = 25\n"
OTHER_KEY = "CQkJCQkJCQkJCQkJCQkJCQkJCQkJCQkJCQkJCQkJCQk="
PEER = CONFIG[CONFIG.index("[Peer]") :]

# By name: the text that is replaced ("" for the whole file), and what stands there instead.
HOSTILE_FILES = {
    # Traffic that would leave outside the tunnel.
    "narrow": (ALLOWED, "AllowedIPs = 10.0.0.0/8"),
    "none_allowed": (f"{ALLOWED}\n", ""),
    "empty_allowed": (ALLOWED, "AllowedIPs = "),
    "ipv4_alone": (ALLOWED, "AllowedIPs = 0.0.0.0/0"),
    "ipv6_alone": (ALLOWED, "AllowedIPs = ::/0"),
    "half": (ALLOWED, "AllowedIPs = 0.0.0.0/1, ::/0"),
    "other_order": (ALLOWED, "AllowedIPs = ::/0, 0.0.0.0/0"),
    "allowed_twice": (ALLOWED, f"{ALLOWED}\nAllowedIPs = 10.0.0.0/8"),
    "narrow_then_whole": (ALLOWED, f"AllowedIPs = 10.0.0.0/8\n{ALLOWED}"),
    "small_keys": (ALLOWED, "allowedips = 10.0.0.0/8"),
    # The machine's own networks, or all of one, in the tunnel.
    "lan_allowed": (ALLOWED, f"{ALLOWED}, 198.51.100.16/29"),
    "second_peer": (PEER, f"{PEER}\n[Peer]\nPublicKey = {OTHER_KEY}\nAllowedIPs = 198.51.100.16/29\n"),
    "same_peer_twice": (PEER, f"{PEER}\n{PEER}"),
    "wide_address": (ADDRESS, "Address = 10.101.0.2/8"),
    "everything_address": (ADDRESS, "Address = 10.101.0.2/0"),
    "address_without_length": (ADDRESS, "Address = 10.101.0.2"),
    "wide_ipv6_address": (ADDRESS, "Address = 10.101.0.2/32, 2001:db8:1:1::7/64"),
    "many_addresses": (ADDRESS, "Address = 10.101.0.2/32, 10.101.0.3/32"),
    "address_twice": (ADDRESS, f"{ADDRESS}\nAddress = 198.51.100.17/32"),
    "no_ipv4": (ADDRESS, "Address = fd65:7869:7400::2/128"),
    "loopback_address": (ADDRESS, "Address = 127.0.0.53/32"),
    "multicast_address": (ADDRESS, "Address = 224.0.0.251/32"),
    "link_local_address": (ADDRESS, "Address = 10.101.0.2/32, fe80::1/128"),
    "scoped_address": (ADDRESS, "Address = 10.101.0.2/32, fe80::1%eth0/128"),
    "mapped_address": (ADDRESS, "Address = 10.101.0.2/32, ::ffff:198.51.100.17/128"),
    # Commands, tables and keys of wg-quick's.
    "post_up": ("MTU = 1420\n", "MTU = 1420\nPostUp = touch /tmp/hostile\n"),
    "post_up_after_comment": ("MTU = 1420\n", "MTU = 1420 # x\nPostUp = touch /tmp/hostile\n"),
    "post_up_after_return": ("MTU = 1420\n", "MTU = 1420\rPostUp = touch /tmp/hostile\n"),
    "post_up_in_peer": (KEEPALIVE, f"{KEEPALIVE}[Interface]\nPostUp = touch /tmp/hostile\n"),
    "table_off": ("MTU = 1420\n", "MTU = 1420\nTable = off\n"),
    "mark": ("MTU = 1420\n", "MTU = 1420\nFwMark = 1\n"),
    "its_own_key": ("[Interface]\n", f"[Interface]\nPrivateKey = {SERVER_KEY}\n"),
    "save": ("MTU = 1420\n", "MTU = 1420\nSaveConfig = true\n"),
    "preshared": (KEEPALIVE, f"{KEEPALIVE}PresharedKey = {SERVER_KEY}\n"),
    # Values that are none.
    "tiny_mtu": ("MTU = 1420", "MTU = 68"),
    "huge_mtu": ("MTU = 1420", "MTU = 65536"),
    "arithmetic_mtu": ("MTU = 1420", "MTU = a[$(touch /tmp/hostile)]"),
    "dns_command": ("MTU = 1420\n", "MTU = 1420\nDNS = $(touch /tmp/hostile)\n"),
    "dns_search": ("MTU = 1420\n", "MTU = 1420\nDNS = 9.9.9.9, evil.example\n"),
    "dns_loopback": ("MTU = 1420\n", "MTU = 1420\nDNS = 127.0.0.1\n"),
    "many_dns": ("MTU = 1420\n", f"MTU = 1420\nDNS = {', '.join(['9.9.9.9'] * 40)}\n"),
    "zero_key": (SERVER_KEY, f"{'A' * 43}="),
    "short_key": (SERVER_KEY, SERVER_KEY[1:]),
    "endpoint_number": (ENDPOINT, "Endpoint = 3405803777:51820"),
    "endpoint_hex": (ENDPOINT, "Endpoint = 0x7f.1:51820"),
    "endpoint_broadcast": (ENDPOINT, "Endpoint = 255.255.255.255:51820"),
    "endpoint_mapped": (ENDPOINT, "Endpoint = [::ffff:203.0.113.1]:51820"),
    "endpoint_scope": (ENDPOINT, "Endpoint = [fe80::1%eth0]:51820"),
    "endpoint_no_port": (ENDPOINT, "Endpoint = 203.0.113.1"),
    "endpoint_port_0": (ENDPOINT, "Endpoint = 203.0.113.1:0"),
    "endpoint_port_large": (ENDPOINT, "Endpoint = 203.0.113.1:65537"),
    "endpoint_option": (ENDPOINT, "Endpoint = -x.example:51820"),
    "endpoint_long_name": (ENDPOINT, f"Endpoint = {'a.' * 200}example:51820"),
    "keepalive": (KEEPALIVE, "PersistentKeepalive = 70000\n"),
    "no_keepalive": (KEEPALIVE, ""),
    # The form.
    "empty": ("", ""),
    "peer_alone": ("", PEER),
    "long": ("[Peer]", f"{'# padding' * 1000}\n[Peer]"),
    "trailing_space": (ALLOWED, f"{ALLOWED} "),
    "return_newlines": ("", CONFIG.replace("\n", "\r\n")),
    "nul": ("[Peer]", "\0[Peer]"),
    "other_digits": ("MTU = 1420", "MTU = 1٤20"),
}


def changed(name: str) -> str:
    """Returns the file of this name."""
    old, new = HOSTILE_FILES[name]
    assert old in CONFIG, name
    return CONFIG.replace(old, new, 1) if old else new
