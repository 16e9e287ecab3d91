"""Writes the final advice for the operator: ports to open, how to reach the API from outside, and the first device."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

    from appliance.config.settings import Settings

CADDY = """\
vpn.example.org {
    reverse_proxy 127.0.0.1:8080
}
"""

NGINX = """\
server {
    listen 443 ssl;
    listen [::]:443 ssl;
    server_name vpn.example.org;
    ssl_certificate     /etc/ssl/vpn.example.org/fullchain.pem;
    ssl_certificate_key /etc/ssl/vpn.example.org/privkey.pem;
    location / {
        proxy_pass http://127.0.0.1:8080;
        proxy_set_header X-Forwarded-For $remote_addr;
    }
}
"""

TRUSTED = 'trusted_proxies = ["127.0.0.1/32"]'

TLS = """\
listen = "0.0.0.0:8443"
tls_cert = "/etc/wg-appliance/tls/fullchain.pem"
tls_key = "/etc/wg-appliance/tls/privkey.pem"
"""


NO_PUBLIC_ADDRESS = (
    "The host's own address, to which clients connect, is not public. If they come from the internet, "
    "set [node] public_ip in the configuration, and forward the UDP port to this host."
)


PHONE = [
    "Next, put a phone on the exit: type one of these here, and scan the code with the WireGuard app.",
    "The account owner, for your own, has no limits; any other is made with its first device, of tier free:",
    "  wg-appliance device add owner/phone --qr",
    "  wg-appliance device add alice/phone --qr",
]


def lines(settings: Settings, firewalls: Iterable[str], *, behind_nat: bool) -> list[str]:
    return [*([NO_PUBLIC_ADDRESS] if behind_nat else []), *ports(settings, firewalls), *reaching(settings), *PHONE]


def ports(settings: Settings, firewalls: Iterable[str]) -> list[str]:
    port = settings.wireguard.listen_port
    lines = [f"UDP port {port} must be open for clients, also in the provider's firewall if there is one."]
    passed = "the service adds rules that let clients through, and wg-appliance doctor reports where it cannot"
    return [*lines, *(f"{name} runs on this host: {passed}." for name in firewalls)]


def reaching(settings: Settings) -> list[str]:
    """Returns how to reach the API from other hosts; nothing if it does not listen on loopback."""
    if not settings.api.loopback:
        return []
    return [
        f"The API listens on {settings.api.url}, for this host only. To reach it from other hosts, use one of:",
        "  TLS files, in [api] of the configuration, readable by the group wg-appliance; then",
        "  systemctl restart wg-appliance:",
        *_indented(TLS),
        "  Caddy, which obtains its certificate by itself (/etc/caddy/Caddyfile):",
        *_indented(CADDY),
        "  nginx:",
        *_indented(NGINX),
        f"  With a proxy, put {TRUSTED} into [api].",
    ]


def _indented(text: str) -> list[str]:
    return [f"      {line}" for line in text.splitlines()]
