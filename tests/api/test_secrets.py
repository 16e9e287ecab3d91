"""Private keys that the server made, and tokens, are in the answer that gave them, and nowhere else."""

from __future__ import annotations

import base64
import logging
import mmap
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from prometheus_client import generate_latest

from appliance.domain.errors import TunnelError
from appliance.network.wireguard import keys
from appliance.ops.backup.create import write_backup
from appliance.server.exporter import ExitCollector
from appliance.store.state_dir import StateDir
from tests.support.api.answers import refused
from tests.support.api.device_owner import Owner
from tests.support.api.exit_under_test import ExitUnderTest, on_exit

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

KEPT = 50  # live at the end
ROOM = 'subnet = "10.101.0.0/20"\n[tiers.paid]\nrequests_per_minute = 1000000\n'
PREFIX = 8  # bytes by which a secret is looked for first


class Secrets:
    """Finds any of them, in whatever spelling."""

    def __init__(self, private_keys: Iterable[bytes], tokens: Iterable[str]) -> None:
        spellings = {s for key in private_keys for s in _spellings(key)} | {token.encode() for token in tokens}
        self._by_prefix: dict[bytes, list[bytes]] = {}
        for spelling in spellings:
            self._by_prefix.setdefault(spelling[:PREFIX], []).append(spelling)
        # All tokens begin alike: every one is looked for by what follows.
        assert max(map(len, self._by_prefix.values())) < 10

    def within(self, where: bytes) -> list[bytes]:
        known = self._by_prefix.keys()
        starts = [at for at in range(len(where)) if where[at : at + PREFIX] in known]
        return [s for at in starts for s in self._by_prefix[where[at : at + PREFIX]] if where.startswith(s, at)]


def _spellings(key: bytes) -> Iterator[bytes]:
    yield key
    yield key.hex().encode()
    yield key.hex().upper().encode()
    yield base64.b64encode(key).rstrip(b"=")
    yield base64.urlsafe_b64encode(key).rstrip(b"=")


def mapped(folder: Path) -> Iterator[tuple[str, bytes]]:
    """What this process has mapped of the files in `folder`: as memory, not as the file system shows it."""
    for line in Path("/proc/self/maps").read_text(encoding="utf-8").splitlines():
        addresses, _, _, _, _, *name = line.split(maxsplit=5)
        if name and name[0].startswith(str(folder)):
            start, end = (int(address, 16) for address in addresses.split("-"))
            with Path("/proc/self/mem").open("rb", buffering=0) as memory:
                memory.seek(start)
                yield name[0], memory.read(end - start)


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    """Every private key that was made for a client, those of requests that failed too."""
    found: list[bytes] = []
    make = keys.generate_key_pair

    def noting() -> tuple[bytes, bytes]:
        private_key, public_key = make()
        found.append(private_key)
        return private_key, public_key

    monkeypatch.setattr(keys, "generate_key_pair", noting)
    return found


@pytest.mark.parametrize("many", [200, pytest.param(1000, marks=pytest.mark.long)])
@on_exit(ROOM)
async def test_no_place_holds_a_key_of_the_servers_making(
    exit_: ExitUnderTest, made: list[bytes], caplog: pytest.LogCaptureFixture, show: Callable[[str], None], many: int
) -> None:
    """After many sessions with keys of the server's making, some of which failed: store, its log, memory and
    backup, what is logged, metrics and refusals hold none of the keys, and no token."""
    caplog.set_level(logging.INFO)  # as the server logs
    folder = exit_.path.parent
    state = StateDir(folder)
    ada = await exit_.client()
    eve = await exit_.client("eve")
    wrong = [f"wga_{n:048x}" for n in range(5)]
    answers, refusals, opened = [], [], []
    for number in range(many):
        client = (ada, eve)[number % 2]
        if number % 100 == 50:
            exit_.tunnel.fail_next(TunnelError("the device refuses"))
        answer = await client.post()
        if answer.status_code != 201:
            refused(answer, 503)
            refusals.append(answer.content)
            continue
        answers.append(answer.content)
        opened.append((client, answer.json()["id"]))
        if len(opened) > KEPT:
            ended, session_id = opened.pop(0)
            refusals.append((await ended.delete(session_id)).content)
        if number % 100 == 0:
            await exit_.tick(after=1)
    devices = Owner(ada)
    phone = await devices.post()
    answers += [phone.content, (await devices.rotate(phone.json()["id"])).content]
    exit_.tunnel.fail_next(TunnelError("the device refuses"))
    refusals += [(await devices.post(name)).content for name in ("b", "phone")]
    refusals.append((await devices.ask("GET", "/v1/devices")).content)
    refusals.append((await devices.remove(phone.json()["id"])).content)
    for token in wrong:
        refusals.append((await exit_.http.get("/v1/usage", headers={"Authorization": f"Bearer {token}"})).content)
        refusals.append((await ada.get(f"/v1/sessions/{token}")).content)
    refusals.append((await ada.post(client_public_key=keys.encode(made[0]) + "=")).content)
    refusals.append((await ada.get("/v1/sessions", limit="200")).content)

    exit_.metrics.registry.register(ExitCollector(exit_.parts, exit_.tunnel, {}))
    places = {
        "metrics": generate_latest(exit_.metrics.registry),
        "log": "\n".join(line for line in caplog.text.splitlines() if "httpx:" not in line).encode(),
        "answers but to POST": b"\n".join(refusals),
        **{f"memory of {name}": content for name, content in mapped(folder)},
        **{file.name: file.read_bytes() for file in folder.iterdir() if file.is_file()},
    }
    server_keys = len(made)
    state.private_key()
    write_backup(state, folder / "config.toml", folder / "backup.tar")
    places["backup"] = (folder / "backup.tar").read_bytes()
    secrets = Secrets(made[:server_keys], [ada.token, eve.token, *wrong])

    assert server_keys == many + 4
    assert {"store.sqlite", "store.sqlite-wal", f"memory of {folder}/store.sqlite-shm"} <= places.keys()
    assert {name: secrets.within(content) for name, content in places.items()} == {name: [] for name in places}
    assert len(secrets.within(b"\n".join(answers))) == len(answers), "each is in the answer that gave it, once"
    for spelling in _spellings(made[many // 2]):
        assert secrets.within(b"x" * 1001 + spelling + b"y") == [spelling], "it would be found"
    size = sum(map(len, places.values()))
    show(f"{server_keys} keys, {len(refusals)} other answers: none in {size // 1024} KiB of {len(places)} places")


def test_memory_is_what_is_mapped(tmp_path: Path) -> None:
    """What is looked at is the memory itself."""
    file = tmp_path / "shared"
    file.write_bytes(bytes(mmap.PAGESIZE))
    with file.open("r+b") as opened, mmap.mmap(opened.fileno(), mmap.PAGESIZE) as memory:
        memory[5:11] = b"secret"
        ((name, content),) = mapped(tmp_path)
    assert name == str(file)
    assert content[5:11] == b"secret"
