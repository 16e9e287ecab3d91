"""The state directory: private, its key made once, one server at a time."""

from __future__ import annotations

import stat
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest

from appliance.domain.errors import HostError
from appliance.network.wireguard import keys
from appliance.store.state_dir import StateDir

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def state(tmp_path: Path) -> StateDir:
    made = StateDir(tmp_path / "deep" / "state")
    made.create()
    return made


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_the_directory_is_made_for_its_owner_alone(tmp_path: Path) -> None:
    """Made with its parents, for its owner alone; what exists is left alone."""
    state = StateDir(tmp_path / "a" / "b")
    assert state.create()
    assert mode(state.path) == 0o700
    state.path.chmod(0o750)
    assert not state.create()
    assert mode(state.path) == 0o750


def test_a_directory_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    """A place that cannot be is named."""
    (tmp_path / "file").touch()
    with pytest.raises(HostError, match=r"cannot create node\.state_dir .*file"):
        StateDir(tmp_path / "file" / "state").create()


def test_store_and_key_are_their_owners_alone(state: StateDir) -> None:
    """Store and key are their owner's alone, whatever the umask; an existing store is left as it is."""
    state.create_store()
    state.store.write_bytes(b"mine")
    state.create_store()
    state.private_key()
    assert state.store.read_bytes() == b"mine"
    assert {mode(file) for file in state.path.iterdir()} == {0o600}


def test_the_key_is_made_on_first_use_and_kept(state: StateDir) -> None:
    """Made on first use and kept; nothing half written is left beside it."""
    assert not state.has_key
    key = state.private_key()
    assert state.has_key
    assert StateDir(state.path).private_key() == key
    assert [file.name for file in state.path.iterdir()] == ["server.key"]
    assert keys.encode(key) + "\n" == (state.path / "server.key").read_text(encoding="ascii")


@pytest.mark.parametrize("content", [b"", b"S3CRET\n", b"\xff\xfe", b"A" * 43 + b"=\nmore"], ids=range(4))
def test_a_broken_key_is_refused_and_never_replaced(state: StateDir, content: bytes) -> None:
    """A file that holds no key is refused by name, never replaced and never quoted."""
    file = state.path / "server.key"
    file.write_bytes(content)
    with pytest.raises(HostError, match=r"server\.key holds no WireGuard private key") as refusal:
        state.private_key()
    assert "S3CRET" not in str(refusal.value)
    assert file.read_bytes() == content


def test_a_second_server_is_refused_while_the_first_runs(state: StateDir) -> None:
    """A second server is refused while the first runs; afterwards it may."""
    assert not state.is_served()
    with state.serving():
        assert StateDir(state.path).is_served()
        with pytest.raises(HostError, match="already serving"), StateDir(state.path).serving():
            pass
        assert state.is_served()
    assert not state.is_served()
    with state.serving():
        pass


def test_asking_does_not_hinder(state: StateDir) -> None:
    """Admin commands that ask whether a server runs do not keep one from starting."""
    with state.serving():
        pass
    with ThreadPoolExecutor(4) as asking:
        answers = [asking.submit(state.is_served) for _ in range(200)]
        with state.serving():
            pass
        for answer in answers:
            answer.result()
