"""A client host: unmodified wg-quick brings its tunnel up, curl makes its traffic."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import re
import secrets
import subprocess
import urllib.parse
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tests.support.tunnel.waiting import READY_SECONDS, TRANSFER_SECONDS, until
from tests.support.tunnel.world import WEB

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.support.tunnel.namespace import Namespace
    from tests.support.tunnel.spaces import Spaces

# -q: no .curlrc; no proxy of the surrounding environment is reachable from a namespace.
CURL = ("curl", "-q", "--noproxy", "*", "--silent", "--show-error")


@dataclass(frozen=True, slots=True)
class Received:
    """What arrived: `length` in bytes, `sha256` in hex."""

    length: int
    sha256: str


@dataclass(frozen=True, slots=True)
class KeyPair:
    """A WireGuard key pair in base64, as wg(8) makes it."""

    private: str
    public: str


def new_key_pair() -> KeyPair:
    private = base64.b64encode(secrets.token_bytes(32)).decode()
    return KeyPair(private=private, public=public_key_of(private))


def public_key_of(private: str) -> str:
    return subprocess.run(
        ["wg", "pubkey"], input=private, capture_output=True, text=True, check=True, timeout=60
    ).stdout.strip()


def with_private_key(config: str, private: str) -> str:
    """What the owner of a key does to the server's file: one line more under [Interface]."""
    assert config.count("[Interface]\n") == 1, config
    return config.replace("[Interface]\n", f"[Interface]\nPrivateKey = {private}\n")


class Download:
    """A transfer that runs beside the test. `path` grows as bytes arrive."""

    def __init__(self, space: Namespace, url: str, path: Path) -> None:
        self.path = path
        self._errors = path.with_suffix(".err").open("w+b")
        self._curl = space.start(
            *CURL, "--fail", "--no-buffer", "--output", str(path), url, stdout=self._errors, stderr=self._errors
        )

    def received(self) -> int:
        return self.path.stat().st_size if self.path.exists() else 0

    def running(self) -> bool:
        return self._curl.poll() is None

    def finish(self) -> Received:
        """Wait for the end; a failed transfer fails the test with curl's own words."""
        status = self._curl.wait(timeout=TRANSFER_SECONDS)
        self._errors.seek(0)
        assert status == 0, f"curl ended with {status}: {self._errors.read().decode()}"
        return _measure(self.path)

    def close(self) -> None:
        with suppress(ProcessLookupError):
            self._curl.kill()
        self._curl.wait(timeout=60)
        self._errors.close()
        self.path.unlink(missing_ok=True)


class Upload:
    """A transfer to the internet that runs beside the test."""

    def __init__(self, space: Namespace, content: Path, bytes_per_s: int) -> None:
        self._curl = space.start(
            *CURL, "--fail", "--limit-rate", str(bytes_per_s), "--upload-file", str(content), f"{WEB}/sink"
        )

    def running(self) -> bool:
        return self._curl.poll() is None

    def close(self) -> None:
        with suppress(ProcessLookupError):
            self._curl.kill()
        self._curl.wait(timeout=60)


class Client:
    """One client namespace with at most one tunnel. `directory` is its own and not world-readable."""

    def __init__(self, space: Namespace, interface: str, directory: Path) -> None:
        self.space = space
        self.interface = interface
        self._directory = directory
        directory.mkdir(mode=0o700)
        self._config = directory / f"{interface}.conf"
        self._downloads: list[Download] = []
        self._uploads: list[Upload] = []

    def wg_quick(self, config: str, private_key: str | None = None) -> None:
        """`wg-quick up` on the text as it is; with `private_key`, on an own-key config."""
        text = config if private_key is None else with_private_key(config, private_key)
        self._config.write_bytes(text.encode())
        self._config.chmod(0o600)
        self._run_wg_quick("up")

    def shake_hands(self) -> None:
        """Forget the session and begin another, as a client does by itself 15 s after the last answer."""
        config = self._config.read_text(encoding="utf-8")
        key, endpoint = (re.findall(rf"^{name} = (.+)$", config, re.MULTILINE)[0] for name in ("PublicKey", "Endpoint"))
        everywhere = ("allowed-ips", "0.0.0.0/0,::/0", "persistent-keepalive", "25")
        # A peer that is new and has a keepalive is called at once.
        self.space.run(
            "wg", "set", self.interface, "peer", key, "remove", "peer", key, "endpoint", endpoint, *everywhere
        )

    def down(self) -> None:
        if self._config.exists():
            self._run_wg_quick("down")
            self._config.unlink()

    def close(self) -> None:
        """Give everything back. A tunnel that never came up is not a second failure."""
        self.stop_transfers()
        if self.space.run("ip", "link", "show", "dev", self.interface, check=False).returncode == 0:
            self.down()

    def stop_transfers(self) -> None:
        for transfer in (*self._downloads, *self._uploads):
            transfer.close()
        self._downloads.clear()
        self._uploads.clear()

    def disable_ipv6(self) -> None:
        self.space.run("sysctl", "-qw", "net.ipv6.conf.all.disable_ipv6=1", "net.ipv6.conf.default.disable_ipv6=1")

    def address_seen(self, web: str = WEB) -> str:
        """Our address as the internet sees it. Asks again while the tunnel makes its first handshake."""
        return until(lambda: self.get(f"{web}/ip", seconds=20), f"{web}/ip answers through the tunnel")

    def get(self, url: str, seconds: int) -> str:
        """The body, or "" when there was no answer within `seconds`."""
        done = self.space.run(*CURL, "--fail", "--max-time", str(seconds), url, check=False, timeout=seconds + 60)
        return done.stdout if done.returncode == 0 else ""

    def ping(self, address: str) -> bool:
        """Whether one of three echo requests is answered."""
        done = self.space.run("ping", "-c", "3", "-i", "0.2", "-W", "2", address, check=False)
        return done.returncode == 0

    def download(self, nbytes: int, seed: str, web: str = WEB) -> Received:
        return self.start_download(nbytes, seed, web=web).finish()

    def start_download(self, nbytes: int, seed: str, slow_until: str | None = None, web: str = WEB) -> Download:
        query = {"bytes": str(nbytes), "seed": seed} | ({"slow_until": slow_until} if slow_until else {})
        url = f"{web}/blob?{urllib.parse.urlencode(query)}"
        running = Download(self.space, url, self._directory / f"download{len(self._downloads)}")
        self._downloads.append(running)
        return running

    def start_upload(self, content: Path, nbytes: int, bytes_per_s: int) -> Upload:
        """`content` is made, as a file of so many zeros that takes no room."""
        with content.open("wb") as file:
            file.truncate(nbytes)
        self._uploads.append(Upload(self.space, content, bytes_per_s))
        return self._uploads[-1]

    def upload(self, content: Path, web: str = WEB) -> Received:
        """PUT a file; returns what the server says it got."""
        command = (*CURL, "--fail", "--upload-file", str(content), f"{web}/sink")
        answer = json.loads(self.space.run(*command, timeout=TRANSFER_SECONDS).stdout)
        return Received(length=answer["length"], sha256=answer["sha256"])

    def _run_wg_quick(self, action: str) -> None:
        # Files, not pipes: the wireguard-go that wg-quick starts stays and keeps what it inherited open.
        log = self._directory / f"wg-quick-{action}.log"
        env = os.environ | {"WG_QUICK_USERSPACE_IMPLEMENTATION": "wireguard-go"}
        with log.open("wb") as out:
            process = self.space.start("wg-quick", action, str(self._config), stdout=out, stderr=out, env=env)
            status = process.wait(timeout=READY_SECONDS)
        assert status == 0, f"wg-quick {action}: status {status}\n{log.read_text()}"


@contextmanager
def clients_of(world: Spaces, directory: Path) -> Iterator[list[Client]]:
    """A world's clients; their tunnels are taken down before the world goes."""
    with ExitStack() as stack:
        made = []
        for number, space in enumerate(world.clients, start=1):
            made.append(Client(space, world.interface(f"c{number}"), directory / f"client{number}"))
            stack.callback(made[-1].close)
        yield made


def _measure(path: Path) -> Received:
    with path.open("rb") as file:
        return Received(length=path.stat().st_size, sha256=hashlib.file_digest(file, "sha256").hexdigest())
