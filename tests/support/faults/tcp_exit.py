"""A real exit whose API listens on TCP, on the loopback of its namespace: for clients that mean no good."""

from __future__ import annotations

import socket
import ssl
import tempfile
from contextlib import closing, contextmanager
from http.client import HTTPConnection
from pathlib import Path
from typing import TYPE_CHECKING

from tests.support.certificates import self_signed
from tests.support.faults.real_exit import RealExit, UnixConnection
from tests.support.netns import new_namespace
from tests.support.tunnel.waiting import READY_SECONDS

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.support.netns import Namespace

ADDRESS = ("127.0.0.1", 8080)


class TcpConnection(UnixConnection):
    """From `source`, one of the loopback's addresses; over TLS where there is a context for it."""

    def __init__(self, space: Namespace, source: str, tls: ssl.SSLContext | None) -> None:
        HTTPConnection.__init__(self, *ADDRESS, timeout=READY_SECONDS)
        self._space = space
        self._source = source
        self._tls = tls

    def connect(self) -> None:
        with self._space.entered():
            self.sock = socket.create_connection(ADDRESS, READY_SECONDS, (self._source, 0))
        if self._tls is not None:
            self.sock = self._tls.wrap_socket(self.sock)


class TcpExit(RealExit):
    def __init__(self, folder: Path, space: Namespace, backend: str) -> None:
        super().__init__(folder, space, backend)
        self.environment["WG_APPLIANCE_API_LISTEN"] = f"{ADDRESS[0]}:{ADDRESS[1]}"
        self._folder = folder
        self._tls: ssl.SSLContext | None = None

    def use_tls(self) -> None:
        """From the next start on."""
        cert, key = self_signed(self._folder, "exit")
        self.environment |= {"WG_APPLIANCE_API_TLS_CERT": str(cert), "WG_APPLIANCE_API_TLS_KEY": str(key)}
        self._tls = ssl.create_default_context(cafile=cert)
        self._tls.check_hostname = False  # it is made out to a name, and asked by its address

    @contextmanager
    def connection(self, source: str = "127.0.0.1") -> Iterator[UnixConnection]:
        with closing(TcpConnection(self.space, source, self._tls)) as connection:
            yield connection


@contextmanager
def serving_tcp(backend: str, *, tls: bool = False, **settings: str) -> Iterator[TcpExit]:
    """As `serving`."""
    with tempfile.TemporaryDirectory(prefix="exit-") as folder, new_namespace() as space:
        exit_ = TcpExit(Path(folder), space, backend)
        exit_.environment |= {f"WG_APPLIANCE_{name}": value for name, value in settings.items()}
        if tls:
            exit_.use_tls()
        try:
            exit_.command("init")
            exit_.launch()
            exit_.await_ready()
            yield exit_
            exit_.stop()
        except Exception as error:
            error.add_note(exit_.last_words())
            raise
        finally:
            exit_.close()
