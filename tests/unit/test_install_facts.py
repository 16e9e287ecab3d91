"""What installing finds out of a host before it changes anything."""

from __future__ import annotations

import os
import socket
from contextlib import closing
from pathlib import Path

import pytest

from appliance.config.load import parse_settings
from appliance.domain.errors import HostError
from appliance.ops.install import facts


def free_port(kind: socket.SocketKind) -> int:
    with socket.socket(type=kind) as asked:
        asked.bind(("127.0.0.1", 0))
        port: int = asked.getsockname()[1]
        return port


def require_ports(api: str) -> None:
    tunnel = f'[wireguard]\ninterface = "wg-none"\nlisten_port = {free_port(socket.SOCK_DGRAM)}\n'
    text = f'[api]\nlisten = "{api}"\ninsecure_http = true\n[metrics]\nlisten = ""\n{tunnel}'
    facts.require_ports(parse_settings(text, {}, "host"))


def test_a_port_that_is_free() -> None:
    """On loopback, and at the tunnel's own address, which is there only when the service runs."""
    port = free_port(socket.SOCK_STREAM)
    require_ports(f"127.0.0.1:{port}")
    require_ports(f"10.101.0.1:{port}")


def test_a_port_of_another_program() -> None:
    """It is named by the setting that has to be changed, or the program to be stopped."""
    with (
        closing(socket.create_server(("127.0.0.1", 0))) as other,
        pytest.raises(HostError, match=r"^api\.listen: .*in use"),
    ):
        require_ports(f"127.0.0.1:{other.getsockname()[1]}")


@pytest.mark.parametrize(("doing", "advised"), [("install", True), ("upgrade", False), ("uninstall", False)])
def test_without_systemd_a_server_is_advised_to_who_installs(
    doing: str, advised: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What cannot be installed can be run by hand; what cannot be upgraded or removed so was never installed."""
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr(Path, "is_dir", lambda _: False)
    with pytest.raises(HostError, match=f"^{doing} needs a host that runs systemd") as refused:
        facts.require_host(doing)
    assert ("wg-appliance serve" in str(refused.value)) is advised


def test_a_hub_runs_anew_for_another_program_or_unit(tmp_path: Path) -> None:
    """Not for a version that has the same ones; one whose version was removed is another."""
    for version, program, unit in (("1", "a", "u"), ("2", "a", "u"), ("3", "b", "u"), ("4", "a", "v")):
        units = tmp_path / version / "appliance" / "units"
        units.mkdir(parents=True)
        (tmp_path / version / "nats-server").write_text(program)
        (units / "wg-appliance-hub.service").write_text(unit)
    (tmp_path / "5").mkdir()
    running = tmp_path / "1" / "nats-server"
    assert [facts.is_other_hub(running, tmp_path / version) for version in "12345"] == [False, False, True, True, False]
    assert facts.is_other_hub(tmp_path / "0" / "nats-server", tmp_path / "1")
