"""The ways from outside to the API that `install` recommends, each as it is printed."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

from appliance.ops.install import next_steps
from tests.support.certificates import self_signed
from tests.support.tunnel.client import CURL
from tests.support.tunnel.waiting import until

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.install.installed import Installed

NAME = "vpn.example.org"


def answers(appliance: Installed, port: int) -> bool:
    """Whether the API is behind HTTPS at this port, by the name of the recipe. The certificate is a test's."""
    url = f"https://{NAME}:{port}/v1/regions"
    command = (*CURL, "--insecure", "--fail", "--max-time", "10", "--resolve", f"{NAME}:{port}:127.0.0.1", url)
    return '"local"' in appliance.space.run(*command, check=False).stdout


def configure(appliance: Installed, text: str) -> None:
    config = appliance.machine.root / "etc/wg-appliance/config.toml"
    written = config.read_text(encoding="utf-8")
    assert "[api]  #" in written
    head, _, tail = written.partition("[api]")
    remark, _, rest = tail.partition("\n")
    config.write_text(f"{head}[api]{remark}\n{text}\n{rest}", encoding="utf-8")
    appliance.machine.run("systemctl", "restart", "wg-appliance")


def test_ways_from_outside(appliance: Installed, program: Path, tmp_path: Path) -> None:
    """Caddy, nginx, and TLS files of the appliance's own."""
    machine = appliance.machine
    said = appliance.install(appliance.bring(program))
    for recipe in (next_steps.CADDY, next_steps.NGINX, next_steps.TLS, next_steps.TRUSTED):
        assert all(line.strip() in said for line in recipe.splitlines())
    certificate, key = self_signed(tmp_path, NAME)
    machine.run("apt-get", "install", "--yes", "--no-install-recommends", "caddy", "nginx-light")
    machine.run("systemctl", "stop", "nginx", "caddy")
    configure(appliance, next_steps.TRUSTED)

    # Its own authority signs: a test has none on the internet.
    caddy = next_steps.CADDY.replace("{\n", "{\n    tls internal\n", 1)
    (machine.root / "etc/caddy/Caddyfile").write_text(caddy, encoding="utf-8")
    machine.run("systemctl", "start", "caddy")
    until(lambda: answers(appliance, 443), "the API answers through Caddy")
    machine.run("systemctl", "stop", "caddy")

    tls = machine.root / "etc/ssl" / NAME
    tls.mkdir()
    shutil.copy(certificate, tls / "fullchain.pem")
    shutil.copy(key, tls / "privkey.pem")
    (machine.root / "etc/nginx/conf.d/exit.conf").write_text(next_steps.NGINX, encoding="utf-8")
    machine.run("systemctl", "start", "nginx")
    until(lambda: answers(appliance, 443), "the API answers through nginx")
    machine.run("systemctl", "stop", "nginx")

    own = machine.root / "etc/wg-appliance/tls"
    own.mkdir()
    for source, name in ((certificate, "fullchain.pem"), (key, "privkey.pem")):
        shutil.copy(source, own / name)
    machine.run("chgrp", "-R", "wg-appliance", "/etc/wg-appliance/tls")
    machine.run("chmod", "0640", "/etc/wg-appliance/tls/privkey.pem")
    configure(appliance, next_steps.TLS)
    until(lambda: answers(appliance, 8443), "the API answers with its own certificate")
