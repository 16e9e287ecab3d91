"""wireguard-go's tunnel: the contract, and what comes of there being a process behind it."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from appliance.domain.errors import TunnelError
from appliance.network.wireguard import userspace
from appliance.network.wireguard.device_tunnel import DeviceTunnel
from appliance.network.wireguard.tunnel import DeviceChange, LinkChange, PutPeer
from appliance.network.wireguard.userspace import UserspaceDevice
from appliance.network.wireguard.wireguard_go import SOCKET_DIRECTORY
from tests.support.netns import new_namespace
from tests.support.real_tunnel_contract import RealTunnelContract
from tests.support.tunnel_contract import PORT, PRIVATE_KEY, UP, allowed, peer, present, run, until, wanted

if TYPE_CHECKING:
    from collections.abc import Callable

    from appliance.network.wireguard.tunnel import Tunnel
    from tests.support.netns import Namespace

pytestmark = [
    pytest.mark.skipif(os.geteuid() != 0, reason="NOT TESTED: network namespaces need root"),
    pytest.mark.skipif(shutil.which("wireguard-go") is None, reason="NOT TESTED: wireguard-go is not installed"),
]


LISTENER = """
import socket, sys
listener = socket.socket(socket.AF_UNIX)
listener.bind(sys.argv[1])
listener.listen()
print("ready", flush=True)
sys.stdin.read()
"""


def processes(namespace: Namespace) -> list[int]:
    """wireguard-go's pids in this namespace; the test itself, which is in there too, left out."""
    found = map(int, namespace.run("ip", "netns", "pids", namespace.name).stdout.split())
    return [pid for pid in found if name_and_state(pid)[0] == "wireguard-go"]


def name_and_state(pid: int) -> tuple[str, str]:
    """proc(5), /proc/PID/stat; empty when there is no such process."""
    try:
        head, _, rest = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")
    except (FileNotFoundError, ProcessLookupError):
        return "", ""
    return head.partition("(")[2], rest.split()[0]


def stands_still(pid: int) -> bool:
    """Whether every thread is stopped: SIGSTOP returns before they are (proc(5): state T)."""
    states = [task.read_text(encoding="utf-8") for task in Path(f"/proc/{pid}/task").glob("*/stat")]
    return all(state.rpartition(")")[2].split()[0] == "T" for state in states)


def streams_of(pid: int) -> list[Path]:
    return [Path(f"/proc/{pid}/fd/{number}").readlink() for number in range(3)]


async def gone(tunnel: Tunnel) -> None:
    async def absent() -> bool:
        return await tunnel.link() is None

    await until(absent, "no interface")


async def reaped(tunnel: Tunnel, pids: list[int]) -> None:
    """Not even a zombie is left of these; any call on the tunnel looks after that."""

    async def none_left() -> bool:
        await tunnel.link()
        return all(name_and_state(pid) == ("", "") for pid in pids)

    await until(none_left, f"no process or zombie among {pids}")


class TestUserspaceTunnel(RealTunnelContract):
    @pytest.fixture
    def tunnel_named(self, tmp_path: Path) -> Callable[[str], Tunnel]:
        return lambda name: DeviceTunnel(UserspaceDevice(name, tmp_path / f"{name}.log"))

    def test_process_is_its_own(self, make_tunnel: Callable[[], Tunnel], namespace: Namespace) -> None:
        """wireguard-go leads a session of its own, in which it got no descriptor of ours."""

        async def body(tunnel: Tunnel) -> None:
            await tunnel.change_link(UP)
            (pid,) = processes(namespace)
            assert os.getsid(pid) == pid
            assert [path.suffix or path.name for path in streams_of(pid)] == ["null", ".log", ".log"]

        run(make_tunnel, body)

    def test_next_process_takes_over(self, make_tunnel: Callable[[], Tunnel], namespace: Namespace) -> None:
        """A new tunnel object uses the wireguard-go that runs, with its key and peers."""

        async def body(tunnel: Tunnel) -> None:
            await tunnel.change_link(UP)
            await tunnel.configure(DeviceChange(PRIVATE_KEY, PORT))
            await tunnel.apply([PutPeer(peer(1, "10.9.0.2/32"))])
            before, running = await tunnel.dump(), processes(namespace)
            successor = make_tunnel()
            try:
                await successor.change_link(UP)
                assert await successor.dump() == before
                assert processes(namespace) == running
            finally:
                await successor.close()

        run(make_tunnel, body)

    def test_a_killed_process_is_missed_and_started_again_empty(
        self, make_tunnel: Callable[[], Tunnel], namespace: Namespace
    ) -> None:
        """A killed wireguard-go is missed, leaves no zombie, and is started again empty."""

        async def body(tunnel: Tunnel) -> None:
            for _ in range(2):
                await tunnel.change_link(UP)
                await tunnel.apply([PutPeer(peer(1, "10.9.0.2/32"))])
                (pid,) = processes(namespace)
                os.kill(pid, signal.SIGKILL)
                await gone(tunnel)
                with pytest.raises(TunnelError):
                    await tunnel.apply([PutPeer(peer(1))])
                await reaped(tunnel, [pid])
            await tunnel.change_link(UP)
            assert (await tunnel.dump()).peers == {}

        run(make_tunnel, body)

    def test_killed_and_started_at_once(self, make_tunnel: Callable[[], Tunnel], namespace: Namespace) -> None:
        """Starting again does not stumble over the dying process's interface."""

        async def body(tunnel: Tunnel) -> None:
            killed = []
            for _ in range(5):
                await tunnel.change_link(UP)
                killed += processes(namespace)
                os.kill(killed[-1], signal.SIGKILL)
                await gone(tunnel)
                await tunnel.change_link(UP)
                assert (await present(tunnel)).up
            await reaped(tunnel, killed)

        run(make_tunnel, body)

    def test_a_stale_socket_is_in_no_ones_way(self, make_tunnel: Callable[[], Tunnel], name: str) -> None:
        """A socket file nobody serves is not a tunnel, and is in nobody's way."""
        SOCKET_DIRECTORY.mkdir(exist_ok=True)
        path = SOCKET_DIRECTORY / f"{name}.sock"
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as stale:
            stale.bind(str(path))

        async def body(tunnel: Tunnel) -> None:
            assert await tunnel.link() is None
            await tunnel.change_link(UP)
            await tunnel.apply([PutPeer(peer(1, "10.9.0.2/32"))])
            assert allowed(await tunnel.dump()) == wanted(peer(1, "10.9.0.2/32"))

        run(make_tunnel, body)
        assert not path.exists()

    def test_started_while_another_ends(self, make_tunnel: Callable[[], Tunnel], name: str) -> None:
        """One whose interface has gone answers until it has ended: it is waited for, not taken for another's."""
        SOCKET_DIRECTORY.mkdir(exist_ok=True)
        command = [sys.executable, "-c", LISTENER, str(SOCKET_DIRECTORY / f"{name}.sock")]
        # A process of its own: whoever has the socket is what delete() kills.
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as ending:
            assert ending.stdout is not None
            assert ending.stdout.readline() == b"ready\n"

            async def body(tunnel: Tunnel) -> None:
                asyncio.get_running_loop().call_later(0.2, ending.kill)
                await tunnel.change_link(UP)
                assert (await present(tunnel)).up

            try:
                run(make_tunnel, body)
            finally:
                ending.kill()

    def test_delete_ends_the_process(self, make_tunnel: Callable[[], Tunnel], namespace: Namespace, name: str) -> None:
        """After delete() there is no process and no socket, also when the process hangs."""

        async def body(tunnel: Tunnel) -> None:
            for sign in (signal.SIGCONT, signal.SIGSTOP):
                await tunnel.change_link(UP)
                (pid,) = processes(namespace)
                os.kill(pid, sign)
                await tunnel.delete()
                assert name_and_state(pid) == ("", "")
                assert not (SOCKET_DIRECTORY / f"{name}.sock").exists()

        run(make_tunnel, body)

    def test_a_hanging_process_is_an_error_in_bounded_time(
        self, make_tunnel: Callable[[], Tunnel], namespace: Namespace
    ) -> None:
        """A wireguard-go that does not answer is a TunnelError in bounded time, and is used again once it does."""

        async def body(tunnel: Tunnel) -> None:
            await tunnel.change_link(UP)
            (pid,) = processes(namespace)

            async def stopped() -> bool:
                return stands_still(pid)

            os.kill(pid, signal.SIGSTOP)
            await until(stopped, "the process stands still")
            try:
                with pytest.raises(TunnelError, match="does not answer"):
                    await tunnel.dump()
            finally:
                os.kill(pid, signal.SIGCONT)
            assert (await tunnel.dump()).peers == {}

        run(make_tunnel, body)

    def test_a_process_that_ends_at_once_is_reported(self, name: str, tunnel_named: Callable[[str], Tunnel]) -> None:
        """A wireguard-go that ends at once is reported with what it said, not waited for."""

        async def body(tunnel: Tunnel) -> None:
            # No interface can have a blank in its name.
            with pytest.raises(TunnelError, match=r"ended at once: .*invalid argument"):
                await tunnel.change_link(UP)

        run(lambda: tunnel_named(f"{name} x"), body)

    def test_log_cannot_be_written(self, name: str, tmp_path: Path) -> None:
        """A log file that cannot be opened is named."""

        async def body(tunnel: Tunnel) -> None:
            with pytest.raises(TunnelError, match=r"cannot start .*missing/wireguard-go\.log"):
                await tunnel.change_link(UP)

        run(lambda: DeviceTunnel(UserspaceDevice(name, tmp_path / "missing" / "wireguard-go.log")), body)

    def test_unit_that_runs_it(
        self, make_tunnel: Callable[[], Tunnel], name: str, namespace: Namespace, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Where a unit runs wireguard-go none is started: it is waited for, and the unit is named when none comes."""

        async def body(tunnel: Tunnel) -> None:
            with monkeypatch.context() as patience:
                patience.setattr(userspace, "START_TIMEOUT_S", 0.1)
                with pytest.raises(TunnelError, match=r"does not answer; see systemctl status some\.service"):
                    await tunnel.change_link(UP)
            assert processes(namespace) == []
            waiting = asyncio.create_task(tunnel.change_link(UP))
            started = make_tunnel()
            try:
                await started.change_link(LinkChange(create=True))
                await waiting
                assert (await present(tunnel)).up
                await tunnel.delete()
                assert processes(namespace) == []
            finally:
                await started.close()

        run(lambda: DeviceTunnel(UserspaceDevice(name, unit="some.service")), body)

    def test_the_same_name_in_another_namespace_is_an_error(self, make_tunnel: Callable[[], Tunnel]) -> None:
        """An interface of the same name in another network namespace is an error here and not disturbed there."""

        async def body(tunnel: Tunnel) -> None:
            await tunnel.change_link(UP)
            before = await tunnel.dump()
            with new_namespace() as elsewhere, elsewhere.entered():
                other = make_tunnel()
                try:
                    assert await other.link() is None
                    with pytest.raises(TunnelError, match="another network namespace"):
                        await other.change_link(UP)
                finally:
                    await other.close()
            assert await tunnel.dump() == before

        run(make_tunnel, body)
