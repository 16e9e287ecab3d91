"""Finds, starts, queries and stops the wireguard-go process behind one interface. Blocking.

wireguard-go serves /var/run/wireguard/<interface>.sock, a directory all network namespaces share. It exits when
its interface is removed, and takes the socket file along; killed, it leaves the file and its interface vanishes.
"""

from __future__ import annotations

import os
import select
import shutil
import signal
import socket
import struct
import time
from contextlib import suppress
from pathlib import Path

from appliance.domain.errors import TunnelError
from appliance.network.wireguard import uapi
from appliance.network.wireguard.batch import Refused
from appliance.network.wireguard.uapi_answer import AnswerParser

PROGRAM = "wireguard-go"
SOCKET_DIRECTORY = Path("/var/run/wireguard")

ANSWER_TIMEOUT_S = 5.0  # for each piece of an answer
START_TIMEOUT_S = 20.0
ENDING_TIMEOUT_S = 2.0
EXIT_TIMEOUT_S = 5.0
POLL_S = 0.02
# 65,536 peers, the most wireguard-go takes, at about 500 bytes each are 32 MiB.
LARGEST_ANSWER = 128 * 1024 * 1024


class WireguardGo:
    """Controls one interface's process, whether this process started it or an earlier one did."""

    def __init__(self, interface_name: str, log_path: Path | None) -> None:
        self._name = interface_name
        self._log_path = log_path
        self._socket_path = SOCKET_DIRECTORY / f"{interface_name}.sock"
        self._answer = AnswerParser()
        self._children: set[int] = set()  # those started here: one that has exited must be waited for

    def answers(self) -> bool:
        """Tells whether a process serves the socket; a stale socket file does not count."""
        self.reap()
        try:
            self._connect().close()
        except OSError:
            return False
        return True

    def ask(self, request: bytes) -> AnswerParser:
        """Sends one request and returns the parser with its whole answer, until the next request.

        Raises Refused if the device answers with an errno, or TunnelError.
        """
        self.reap()
        try:
            with self._connect() as stream:
                # A refused request is answered before it is read to its end, and then not read at all.
                with suppress(BrokenPipeError):
                    stream.sendall(request)
                _read_answer(stream, self._answer)
        except OSError as error:
            raise TunnelError(f"{self._name}: {PROGRAM} does not answer: {error}") from error
        if number := self._answer.device_error:
            raise Refused(f"{self._name}: {PROGRAM} refused", f"{os.strerror(number)} (errno {number})")
        return self._answer

    def start(self) -> None:
        """Starts wireguard-go and waits until it answers. It outlives this process, and Ctrl-C does not reach it."""
        program = shutil.which(PROGRAM)
        if program is None:
            raise TunnelError(f"{PROGRAM} is not installed")
        self._await_silence()
        self.remove_stale_socket()
        child = self._spawn(program)
        self._children.add(child)
        deadline = time.monotonic() + START_TIMEOUT_S
        while not self.answers():
            if child not in self._children:
                raise TunnelError(f"{self._name}: {PROGRAM} ended at once{self._last_words()}")
            if time.monotonic() > deadline:
                os.kill(child, signal.SIGKILL)
                raise TunnelError(f"{self._name}: {PROGRAM} did not answer within {START_TIMEOUT_S:.0f} s")
            time.sleep(POLL_S)
        self.ask(uapi.GET)

    def _await_silence(self) -> None:
        """Waits until the socket no longer answers: after its interface is removed, a process answers a moment longer.

        Raises TunnelError if it keeps answering.
        """
        deadline = time.monotonic() + ENDING_TIMEOUT_S
        while self.answers():
            if time.monotonic() > deadline:
                # Taking its socket away would end it: wireguard-go watches the file.
                raise TunnelError(
                    f"{self._name}: {PROGRAM} serves an interface of this name in another network namespace"
                )
            time.sleep(POLL_S)

    def process(self) -> int | None:
        """Returns a pidfd of the process behind the socket, for the caller to close; None if there is none."""
        try:
            with self._connect() as stream:
                # unix(7): for a listener, the credentials of the process that called listen().
                credentials = stream.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)
                pid, _uid, _gid = struct.unpack("=iII", credentials)
                return os.pidfd_open(pid) if pid > 0 else None
        except OSError:
            return None

    def wait_until_gone(self, process: int) -> None:
        """Waits for the process behind this pidfd to exit, and kills it if it does not."""
        if not _exited(process):
            signal.pidfd_send_signal(process, signal.SIGKILL)
            if not _exited(process):
                raise TunnelError(f"{self._name}: {PROGRAM} does not end, not even killed")
        self.reap()
        self.remove_stale_socket()

    def remove_stale_socket(self) -> None:
        """Removes the socket file that a killed process left. One that might be served stays."""
        try:
            self._connect().close()
        except ConnectionRefusedError:
            try:
                self._socket_path.unlink(missing_ok=True)
            except OSError as error:
                raise TunnelError(f"{self._name}: cannot remove {self._socket_path}: {error.strerror}") from error
        except OSError:
            return  # no such file, or a doubt: taking a live one's socket away would end it

    def reap(self) -> None:
        """Reaps children that have exited, so that no zombie stays longer than until the next call."""
        for child in tuple(self._children):
            try:
                exited, _status = os.waitpid(child, os.WNOHANG)
            except ChildProcessError:
                exited = child  # already reaped elsewhere
            if exited:
                self._children.discard(child)

    def _spawn(self, program: str) -> int:
        try:
            return os.posix_spawn(
                program,
                # -f: in the foreground of its own session. Without it wireguard-go starts itself a second time.
                [PROGRAM, "-f", self._name],
                {"PATH": os.environ.get("PATH", os.defpath), "LOG_LEVEL": "error"},
                file_actions=self._streams(),
                setsid=True,
                setsigmask=[],
                setsigdef=[signal.SIGPIPE, signal.SIGINT, signal.SIGTERM, signal.SIGHUP],
            )
        except OSError as error:
            raise TunnelError(f"{self._name}: cannot start {PROGRAM}, logging to {self._log()}: {error}") from error

    def _connect(self) -> socket.socket:
        stream = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            stream.settimeout(ANSWER_TIMEOUT_S)
            stream.connect(str(self._socket_path))
        except BaseException:
            stream.close()
            raise
        return stream

    def _streams(self) -> list[tuple[int, int, str, int, int] | tuple[int, int, int]]:
        """Opens files, never pipes: a reader of this program's output must not wait for wireguard-go to close it."""
        return [
            (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
            (os.POSIX_SPAWN_OPEN, 1, self._log(), os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600),
            (os.POSIX_SPAWN_DUP2, 1, 2),
        ]

    def _log(self) -> str:
        return os.devnull if self._log_path is None else str(self._log_path)

    def _last_words(self) -> str:
        if self._log_path is None:
            return f"; this says why: {PROGRAM} -f {self._name}"
        lines = self._log_path.read_text(encoding="utf-8", errors="replace").splitlines()
        return f": {lines[-1]}" if lines else ""


def end_wireguard_go(interface_name: str) -> None:
    """Ends the wireguard-go of this interface, in whatever network namespace it is. Succeeds if there is none."""
    server = WireguardGo(interface_name, log_path=None)
    process = server.process()
    if process is None:
        server.remove_stale_socket()
        return
    try:
        with suppress(ProcessLookupError):
            signal.pidfd_send_signal(process, signal.SIGTERM)
        server.wait_until_gone(process)
    finally:
        os.close(process)


def _read_answer(stream: socket.socket, parser: AnswerParser) -> None:
    parser.begin()
    whole, received = False, 0
    while not whole:
        length = stream.recv_into(parser.room())
        if not length:
            raise ConnectionError("the answer broke off")
        received += length
        if received > LARGEST_ANSWER:
            raise ConnectionError(f"an answer of more than {LARGEST_ANSWER} bytes")
        whole = parser.feed(length)


def _exited(process: int) -> bool:
    poll = select.poll()
    poll.register(process, select.POLLIN)  # pidfd_open(2): readable once the process has exited
    return bool(poll.poll(EXIT_TIMEOUT_S * 1000))
