"""Which steps an installation has on which host."""

from __future__ import annotations

from pathlib import Path

import pytest

from appliance.config.load import parse_settings
from appliance.domain.errors import HostError
from appliance.ops.install import facts, next_steps, plan
from appliance.ops.install.file_steps import Folder, Manual, NoFile, Symlink, TextFile
from appliance.ops.install.layout import Layout
from appliance.ops.install.plan import Program
from appliance.ops.install.system_steps import Packages
from appliance.ops.install.versions import order

PROGRAM = Program(
    "1.2.0",
    Path("/tmp/unpacked"),  # noqa: S108 (nothing is read)
    {
        "wg-appliance.service": "service",
        "wg-appliance-tunnel.service": "tunnel",
        "wg-appliance.service.d/userspace.conf": "drop-in",
    },
    {"wg-appliance.1": "page"},
)
LAYOUT = Layout(Path("/host"))


def planned(text: str = "", *, userspace: bool) -> dict[str, object]:
    settings = parse_settings(text, {}, "exit")
    return {step.what: step for step in plan.install(LAYOUT, PROGRAM, settings, text, userspace=userspace)}


def test_where_the_kernel_has_wireguard() -> None:
    """No wireguard-go, and none of its units, also where an earlier install put them."""
    steps = planned(userspace=False)
    assert any(isinstance(step, Packages) and step.names == ("nftables",) for step in steps.values())
    assert isinstance(steps["/host/etc/systemd/system/wg-appliance.service"], TextFile)
    assert isinstance(steps["/host/etc/systemd/system/wg-appliance-tunnel.service"], NoFile)
    assert isinstance(steps["/host/etc/systemd/system/wg-appliance.service.d/userspace.conf"], NoFile)


def test_where_it_has_none() -> None:
    """wireguard-go, its unit, and the drop-in that makes the appliance wait for it."""
    steps = planned(userspace=True)
    assert any(isinstance(s, Packages) and s.names == ("nftables", "wireguard-go") for s in steps.values())
    assert isinstance(steps["/host/etc/systemd/system/wg-appliance-tunnel.service"], TextFile)
    assert isinstance(steps["/host/etc/systemd/system/wg-appliance.service.d/userspace.conf"], TextFile)
    interface = "/host/etc/systemd/system/wg-appliance-tunnel.service.d/interface.conf"
    assert isinstance(steps[interface], NoFile)


def test_the_tunnel_unit_is_told_of_another_interface() -> None:
    """The tunnel's unit is told of an interface that is not the default."""
    step = planned('[wireguard]\ninterface = "wgb0"\n', userspace=True)[
        "/host/etc/systemd/system/wg-appliance-tunnel.service.d/interface.conf"
    ]
    assert isinstance(step, TextFile)
    assert "INTERFACE=wgb0" in step.text


def test_the_switch_comes_last() -> None:
    """A version is whole, with its units, before anything points to it."""
    steps = plan.of_version(LAYOUT, PROGRAM, parse_settings("", {}, "exit"), userspace=True)
    assert steps[-1] == Symlink(Path("/host/usr/local/lib/wg-appliance/current"), LAYOUT.version("1.2.0"))
    assert steps[0].what == "/host/usr/local/lib/wg-appliance/1.2.0"


def test_man_pages_go_where_man_looks_for_them() -> None:
    """The pages that this version brings, where man looks for them."""
    step = planned(userspace=False)["/host/usr/local/share/man/man1/wg-appliance*"]
    assert isinstance(step, Manual)
    assert step.pages == {"wg-appliance.1": "page"}


def test_what_a_version_brings(tmp_path: Path) -> None:
    """Its units and pages are read from its own files; one from before there were pages has none."""
    (tmp_path / "appliance" / "units" / "x.service.d").mkdir(parents=True)
    (tmp_path / "appliance" / "units" / "x.service.d" / "y.conf").write_text("unit", encoding="utf-8")
    assert facts.program_in(tmp_path, "1.0.0") == Program("1.0.0", tmp_path, {"x.service.d/y.conf": "unit"}, {})
    (tmp_path / "appliance" / "man").mkdir()
    (tmp_path / "appliance" / "man" / "wg-appliance.1").write_text("page", encoding="utf-8")
    assert facts.program_in(tmp_path, "1.0.0").manual == {"wg-appliance.1": "page"}


def test_versions_are_in_order() -> None:
    """By number and not by text; what leads to a release comes before it."""
    ordered = ["0.9.0", "0.10.0", "1.0.0-alpha.2", "1.0.0-alpha.10", "1.0.0-rc.1", "1.0.0", "1.0.1"]
    shuffled = [ordered[index] for index in (3, 6, 0, 5, 1, 4, 2)]
    assert sorted(shuffled, key=order) == ordered


def test_a_text_that_is_no_version_is_refused_by_name() -> None:
    """What is no version is refused by name."""
    with pytest.raises(HostError, match="nonsense is no version"):
        order("nonsense")


def test_only_closed_ports_are_to_be_opened() -> None:
    """The configured port; of each firewall that runs, that nothing is to be done."""
    settings = parse_settings("[wireguard]\nlisten_port = 1234\n", {}, "exit")
    lines = next_steps.ports(settings, ["ufw", "firewalld"])
    assert "1234" in lines[0]
    assert [line.partition(":")[0] for line in lines[1:]] == ["ufw runs on this host", "firewalld runs on this host"]


def test_the_last_word_is_the_phone() -> None:
    """Whatever else there is to say, the next step comes last."""
    lines = next_steps.lines(parse_settings("", {}, "exit"), ["ufw"], behind_nat=True)
    assert lines[-2:] == [f"  wg-appliance device add {account}/phone --qr" for account in ("owner", "alice")]


def test_how_to_reach_the_api() -> None:
    """Told while it listens on loopback; not where the operator has seen to it."""
    assert next_steps.reaching(parse_settings("", {}, "exit"))
    assert next_steps.reaching(parse_settings('[api]\nlisten = "0.0.0.0:80"\ninsecure_http = true\n', {}, "exit")) == []


def test_a_host_may_become_a_hub_without_another_install() -> None:
    """User, folders and units are there on each; they are enabled before the appliance is started."""
    units = {**PROGRAM.units, "wg-appliance-hub.service": "hub", "wg-appliance-hub-restart.path": "path"}
    with_hub = Program(PROGRAM.version, PROGRAM.files, units, {})
    steps = plan.install(LAYOUT, with_hub, parse_settings("", {}, "exit"), "", userspace=False)
    names = [step.what for step in steps]
    assert names[-3:] == [f"service wg-appliance{name}" for name in ("-hub.service", "-hub-restart.path", ".service")]
    folders = {step.path.name: step for step in steps if isinstance(step, Folder)}
    hub, config = folders["wg-appliance-hub"], folders["config"]
    assert (hub.mode, hub.user, hub.group) == (0o711, "wg-appliance-hub", "wg-appliance-hub")
    assert (config.mode, config.user, config.group) == (0o2750, "wg-appliance", "wg-appliance-hub")
    assert names.index("user wg-appliance-hub") < names.index(str(hub.path)) < names.index(str(config.path))


def test_a_version_without_a_hub_s_units_enables_none() -> None:
    """An upgrade that is undone goes back to such a one."""
    assert plan.hub_units(PROGRAM) == []
