"""Where the client has the exit's URL and its token from, and how it keeps them."""

from __future__ import annotations

import os
import pwd
import stat
from pathlib import Path

import pytest

from appliance.client.api.dialer import parse_url
from appliance.client.credentials import Access, find, folder, read_token, save, write_private
from appliance.client.sudo_user import find_invoker
from appliance.domain.errors import HostError, InvalidRequest
from tests.support.small_disk import PAGE, full, small_disk

ENVIRONMENT = {"WG_APPLIANCE_API": "https://env", "WG_APPLIANCE_TOKEN": "env"}
NOBODY = pwd.getpwnam("nobody")


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    save(Access("https://saved", "saved"), tmp_path / "deep" / "wg-appliance")
    return tmp_path / "deep" / "wg-appliance"


def test_options_come_before_environment_before_saved(saved: Path) -> None:
    """What is given comes before the environment, that before what was saved; each for itself."""
    assert find("https://given", "given", ENVIRONMENT, saved) == Access("https://given", "given")
    assert find("https://given", None, ENVIRONMENT, saved) == Access("https://given", "env")
    assert find(None, None, {}, saved) == Access("https://saved", "saved")
    assert find(None, None, {}, saved / "none") == Access(None, None)


@pytest.mark.parametrize(
    ("url", "token"),
    [
        ("https://SAVED:443/", "saved"),
        ("https://other", None),
        ("http://saved", None),
        ("https://saved:8443", None),
        ("https://saved/elsewhere", None),
        ("no url", None),
    ],
)
def test_a_token_is_for_one_exit(saved: Path, url: str, token: str | None) -> None:
    """The saved one for the one that was saved with it, however its URL is written."""
    found = Access(url, token, None if token else "https://saved")
    assert find(url, None, {}, saved) == found
    assert find(None, None, {"WG_APPLIANCE_API": url}, saved) == found


def test_another_exit_is_saved(saved: Path) -> None:
    """Without a token of its own it has none; one that nobody has said which exit it is of goes to any."""
    save(Access("https://other", None), saved)
    assert find(None, None, {}, saved) == Access("https://other", None)
    write_private(saved / "token", "byhand")
    (saved / "api").unlink()
    assert find("https://any", None, {}, saved) == Access("https://any", "byhand")


def test_plain_http_is_saved_for_its_exit(saved: Path) -> None:
    """That the token may go in clear text, as it was said when it was saved: for that exit and no other, and until
    another one is saved."""
    save(Access("http://saved", "saved", insecure_http=True), saved)
    assert find(None, None, {}, saved) == Access("http://saved", "saved", insecure_http=True)
    assert not find("http://other", "x", {}, saved).insecure_http
    assert not find("http://saved:81", "x", {}, saved).insecure_http
    save(Access("http://other", "other"), saved)
    assert not find(None, None, {}, saved).insecure_http
    assert {path.name for path in saved.iterdir()} == {"api", "token"}


def test_saved_for_nobody_else(saved: Path) -> None:
    """The folder is 0700, its files 0600, whatever the umask says; saving again replaces them."""
    before = os.umask(0)
    try:
        save(Access("https://other", "other"), saved)
    finally:
        os.umask(before)
    assert stat.S_IMODE(saved.stat().st_mode) == 0o700
    assert {(path.name, stat.S_IMODE(path.stat().st_mode)) for path in saved.iterdir()} == {
        ("api", 0o600),
        ("token", 0o600),
    }
    assert find(None, None, {}, saved) == Access("https://other", "other")


@pytest.mark.skipif(os.geteuid() != 0, reason="NOT TESTED: only root can make a small disk")
@pytest.mark.parametrize("url", ["https://saved", "https://other"])
@pytest.mark.parametrize("left", [0, PAGE])
def test_no_room_to_save(tmp_path: Path, url: str, left: int) -> None:
    """For none of the files, or for one of the two: what was saved before is there as it was, and nothing else."""
    with small_disk(tmp_path / "disk", 16 * PAGE) as disk:
        save(Access("https://saved", "saved"), disk / "saved")
        with full(disk, left), pytest.raises(OSError, match="No space"):
            save(Access(url, "new"), disk / "saved")
        assert find(None, None, {}, disk / "saved") == Access("https://saved", "saved")
        assert {path.name for path in (disk / "saved").iterdir()} == {"api", "token"}


def test_a_token_that_others_can_read(saved: Path) -> None:
    """Refused, with the command that mends it."""
    (saved / "token").chmod(0o640)
    with pytest.raises(HostError, match=f"can be read by others: chmod 600 {saved / 'token'}"):
        find(None, None, {}, saved)


def test_a_named_token_file_has_to_have_a_token(tmp_path: Path) -> None:
    """A file that is named has to have one."""
    write_private(tmp_path / "token", "secret\n")
    assert read_token(tmp_path / "token") == "secret"
    with pytest.raises(HostError, match="no token in"):
        read_token(tmp_path / "none")


@pytest.mark.parametrize("token", ["two words", "line\nline", "schlüssel", "bell\a"])
def test_what_is_no_token(token: str, tmp_path: Path) -> None:
    """It would not fit into a header; it is not shown either."""
    with pytest.raises(HostError, match="the token is invalid") as refused:
        find("https://given", token, {}, tmp_path)
    assert token not in str(refused.value)


def test_the_token_is_not_shown() -> None:
    """Whoever prints it."""
    assert "secret" not in repr(Access("https://given", "secret"))


def test_the_folder_is_the_callers() -> None:
    """XDG's, which behind sudo is not the caller's; then their home counts."""
    environ = {"HOME": "/home/x", "XDG_CONFIG_HOME": "/somewhere"}
    assert folder(find_invoker(environ), environ) == Path("/somewhere/wg-appliance")
    environ = {"HOME": "/home/x"}
    assert folder(find_invoker(environ), environ) == Path("/home/x/.config/wg-appliance")


@pytest.mark.skipif(os.geteuid() != 0, reason="NOT TESTED: only root has somebody behind it")
def test_files_behind_sudo_are_the_callers(tmp_path: Path) -> None:
    """Files are the caller's, their folder is in the caller's home, and root is root again afterwards."""
    environ = {"SUDO_UID": str(NOBODY.pw_uid), "HOME": "/root", "XDG_CONFIG_HOME": "/somewhere"}
    invoker = find_invoker(environ)
    assert folder(invoker, environ) == Path(NOBODY.pw_dir) / ".config" / "wg-appliance"
    tmp_path.chmod(0o755)
    place = tmp_path / "theirs"
    place.mkdir()
    os.chown(place, NOBODY.pw_uid, NOBODY.pw_gid)
    groups = os.getgroups()
    with invoker.acting():
        assert os.geteuid() == NOBODY.pw_uid
    assert (os.geteuid(), os.getegid(), os.getgroups()) == (0, os.getgid(), groups)


def test_sudo_of_nobody_known() -> None:
    """A user that is not there is an error, not root."""
    if os.geteuid() == 0:
        with pytest.raises(HostError, match="SUDO_UID is 4294967000"):
            find_invoker({"SUDO_UID": "4294967000"})


def test_a_file_that_is_there_stays(tmp_path: Path) -> None:
    """Where it may not be replaced; and nothing is left of the one that was to come."""
    (tmp_path / "config").write_text("mine")
    with pytest.raises(FileExistsError):
        write_private(tmp_path / "config", "new", replace=False)
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [("config", "mine")]


@pytest.mark.parametrize(
    ("text", "host", "port", "path", "in_clear"),
    [
        ("https://exit.example", "exit.example", 443, "", False),
        ("https://exit.example:8443/api/", "exit.example", 8443, "/api", False),
        ("http://exit.example", "exit.example", 80, "", True),
        ("http://[2001:db8::1]:8080", "2001:db8::1", 8080, "", True),
        ("http://127.0.0.1:8080", "127.0.0.1", 8080, "", False),
        ("http://[::1]:8080", "::1", 8080, "", False),
        ("http://localhost", "localhost", 80, "", False),
        ("unix:/run/api", "localhost", 0, "/run/api", False),
    ],
)
def test_the_token_goes_in_the_clear_to_this_machine_alone(
    text: str, host: str, port: int, path: str, in_clear: bool
) -> None:
    """The token goes in the clear only to this machine itself, unless the user allows it."""
    found = parse_url(text)
    assert (found.host, found.port, found.path, found.sends_token_in_clear_text) == (host, port, path, in_clear)


@pytest.mark.parametrize(
    "text",
    [
        "exit.example",
        "ftp://exit",
        "https://",
        "https://user:pass@exit",
        "https://exit:port",
        "https://exit?x",
        "unix:run",
    ],
)
def test_what_is_no_url(text: str) -> None:
    """Refused, with what it has to be."""
    with pytest.raises(InvalidRequest, match="must be https://HOST"):
        parse_url(text)
