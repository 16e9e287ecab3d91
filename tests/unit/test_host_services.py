"""Which services of the host clients reach from inside the tunnel, as the configuration says."""

from __future__ import annotations

import pytest

from appliance.config.load import parse_settings
from appliance.server.assembly import sources
from appliance.server.host_services import host_services


def services(api: str, more: str = "", metrics: str = "127.0.0.1:9586") -> tuple[list[str], list[str]]:
    """Where those listen that are open, and those that are closed."""
    text = f'[api]\nlisten = "{api}"\ninsecure_http = true\n{more}\n[metrics]\nlisten = "{metrics}"\n'
    found = host_services(parse_settings(text, {}, "host"))
    shown = [[f"{each.address} {each.port}" for each in some] for some in (found.open, found.closed)]
    return shown[0], shown[1]


@pytest.mark.parametrize(
    ("listen", "shown"),
    [
        ("0.0.0.0:8080", ["0.0.0.0 8080"]),
        ("[::]:8080", [":: 8080", "0.0.0.0 8080"]),
        ("203.0.113.1:443", ["203.0.113.1 443"]),
        ("[2001:db8::1]:443", ["2001:db8::1 443"]),
        ("10.101.0.1:8080", ["10.101.0.1 8080"]),
        ("127.0.0.1:8080", []),
        ("127.9.9.9:8080", []),
        ("[::1]:8080", []),
        ("localhost:8080", []),
        ("unix:/run/wg-appliance/api.sock", []),
    ],
)
def test_what_listens_beside_loopback_is_reachable(listen: str, shown: list[str]) -> None:
    """The API is open and the metrics are closed where they listen on more than loopback and Unix sockets."""
    assert services(listen) == (shown, [])
    assert services("127.0.0.1:1", metrics=listen) == ([], shown)


def test_a_proxy_listens_on_443() -> None:
    """With `proxy_in_tunnel` port 443 is open too, of both IP versions, whether the API is public or not."""
    proxy = ["0.0.0.0 443", ":: 443"]
    assert services("127.0.0.1:8080", "proxy_in_tunnel = true") == (proxy, [])
    assert services("0.0.0.0:8080", "proxy_in_tunnel = true") == (["0.0.0.0 8080", *proxy], [])


@pytest.mark.parametrize("subnet6", ["fd65:7869:7400::/112", ""])
def test_clients_in_the_tunnel_are_no_proxies(subnet6: str) -> None:
    """Trusted proxies may hold the tunnel's subnets: what comes from these is trusted all the same not."""
    text = f'[wireguard]\nsubnet6 = "{subnet6}"\n[api]\ntrusted_proxies = ["10.0.0.0/8", "fd00::/8"]\n'
    found = sources(parse_settings(text, {}, "host"))
    assert [str(network) for network in found.tunnel] == ["10.101.0.0/24", *([subnet6] if subnet6 else [])]
    assert [str(network) for network in found.proxies] == ["10.0.0.0/8", "fd00::/8"]
