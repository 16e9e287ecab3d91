"""`wg-appliance connect` and `regions` as programs, where they make no tunnel."""

from __future__ import annotations

import base64
import json
import os
import re
import stat
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from appliance.domain.clock import rfc3339
from appliance.network.wireguard.keys import encode, public_key
from tests.support.client.scripted_api import CONFIG, OPENED, QUOTA_EXCEEDED, SESSION, TOKEN, serving

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.support.client.scripted_api import ScriptedApi

    Run = Callable[..., subprocess.CompletedProcess[str]]

PROJECT = Path(__file__).resolve().parents[2]
POST = "POST /v1/sessions"


def test_a_config_goes_into_a_private_file(api: ScriptedApi, run: Run, tmp_path: Path) -> None:
    """A whole config in a file for nobody else; the exit was told the public key alone. The session stays open."""
    api.answers(POST, 201, OPENED)
    file = tmp_path / "fsn.conf"
    done = run("connect", "fsn", "--config-only", str(file))
    assert (done.returncode, done.stdout) == (0, ""), done.stderr
    assert "session ses_1 is open" in done.stderr
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    key = re.search(r"^PrivateKey = (\S+)$", config := file.read_text(), re.MULTILINE)
    assert key is not None
    assert config.replace(f"PrivateKey = {key[1]}\n", "") == CONFIG
    (asked,) = api.asked
    assert asked.body["client_public_key"] == encode(public_key(base64.b64decode(key[1])))
    assert asked.body["region"] == "fsn"
    assert key[1] not in json.dumps(asked.body)


def test_a_config_stands_alone_on_stdout(api: ScriptedApi, run: Run) -> None:
    """Alone, as `connect --config-only > FILE` wants it; --dns adds a line."""
    api.answers("GET /v1/regions", 200, {"regions": [{"code": "fsn", "node_count": 1}]})
    api.answers(POST, 201, OPENED)
    done = run("connect", "--dns", "192.0.2.53", "--config-only")
    assert done.returncode == 0
    assert done.stdout.startswith("[Interface]\nPrivateKey = ")
    assert "\nMTU = 1420\nDNS = 192.0.2.53\n" in done.stdout
    assert api.asked[-1].body["region"] == "fsn", "the only one there is"


def test_a_file_or_a_region(api: ScriptedApi, run: Run, tmp_path: Path) -> None:
    """It says where it has written it, and what to do where a region was meant."""
    api.answers("GET /v1/regions", 200, {"regions": [{"code": "fsn", "node_count": 1}]})
    api.answers(POST, 201, OPENED)
    done = run("connect", "--config-only", "ams", cwd=tmp_path)
    assert "written: ams; if that is the region, it comes before: connect ams --config-only\n" in done.stderr
    done = run("connect", "fsn", "--config-only", "nbg", cwd=tmp_path)
    assert "written: nbg\n" in done.stderr


def test_a_file_that_is_there(api: ScriptedApi, run: Run, tmp_path: Path) -> None:
    """It stays, and no session is opened for nothing."""
    (tmp_path / "mine.conf").write_text("mine")
    done = run("connect", "fsn", "--config-only", str(tmp_path / "mine.conf"))
    assert (done.returncode, api.asked) == (1, [])
    assert "is there already; name another" in done.stderr


def test_a_folder_that_is_not_there(api: ScriptedApi, run: Run, tmp_path: Path) -> None:
    """One line, and no session that nobody has the config of."""
    done = run("connect", "fsn", "--config-only", str(tmp_path / "none" / "x.conf"))
    assert (done.returncode, done.stderr.count("\n"), api.asked) == (1, 1, [])
    assert "none is no directory" in done.stderr


def test_a_qr_code_is_drawn_in_half_blocks(api: ScriptedApi, run: Run) -> None:
    """Half blocks, with a resolver that a phone can reach."""
    api.answers(POST, 201, OPENED)
    done = run("connect", "fsn", "--qr")
    assert done.returncode == 0
    assert set(done.stdout) <= set(" ▀▄█\n")
    shown = run("connect", "fsn", "--qr", "--json")
    assert "\nDNS = 9.9.9.9\n" in json.loads(shown.stdout)["wg_config"]


def test_without_blocks_no_session_is_opened_for_a_qr_code(api: ScriptedApi, run: Run) -> None:
    """One line, and no session that nobody knows the id of; as JSON it is whole."""
    api.answers(POST, 201, OPENED)
    done = run("connect", "fsn", "--qr", PYTHONIOENCODING="latin-1")
    assert (done.returncode, done.stdout, done.stderr.count("\n"), api.asked) == (1, "", 1, [])
    assert "the encoding of stdout, iso8859-1, has no blocks" in done.stderr
    assert run("connect", "fsn", "--qr", "--json", PYTHONIOENCODING="latin-1").returncode == 0


def test_a_used_up_quota_is_status_3_with_its_breakdown(api: ScriptedApi, run: Run) -> None:
    """Status 3 here too, with the breakdown on one line."""
    api.answers(POST, 402, QUOTA_EXCEEDED)
    done = run("connect", "fsn", "--config-only")
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (3, "", 1)
    assert "4.0 GiB of 4.0 GiB (resets 2026-12-02T00:00:00Z)" in done.stderr


def test_a_limited_account_is_told_when_to_try_again(api: ScriptedApi, run: Run) -> None:
    """When to try again, as the exit says it."""
    api.answers(POST, 429, {"error": "too many requests"}, Retry_After="3600")
    assert run("connect", "fsn", "--config-only").stderr.endswith("too many requests; try again in 1h 0m\n")
    api.answers("GET /v1/usage", 429, {"error": "too many requests"}, Retry_After="3600")
    assert run("connect", "--usage").stderr.endswith("429: too many requests; try again in 1h 0m\n")


def test_usage_and_status_are_the_accounts_own(api: ScriptedApi, run: Run) -> None:
    """The account's own, as the API says it."""
    usage = {"tier": "free", "bytes_used": 1, "later": [1]}
    api.answers("GET /v1/usage", 200, usage)
    api.answers("GET /v1/sessions/ses_1", 200, SESSION)
    api.answers("DELETE /v1/sessions/ses_1", 200, SESSION)
    assert json.loads(run("connect", "--usage", "--json").stdout) == usage
    assert run("connect", "--usage").stdout == "tier  free\n"
    assert json.loads(run("connect", "--status", "ses_1", "--json").stdout) == SESSION
    assert json.loads(run("connect", "--end", "ses_1", "--json").stdout) == SESSION
    assert {asked.token for asked in api.asked} == {f"Bearer {TOKEN}"}
    unknown = run("connect", "--status", "../usage")
    assert (unknown.returncode, unknown.stdout) == (1, ""), "an id is no path"


def in_(seconds: float) -> str:
    return rfc3339(int((time.time() + seconds) * 1000))


@pytest.mark.parametrize(
    ("changed", "shown"),
    [
        ({}, "tier   free\nbytes  512 B of 5.0 GiB, resets in 6 d\ntime   5m of 2h, resets in 22 h\n"),
        (
            {"bytes_limit": 0},
            "tier        free\nbytes       unmetered\ntime        5m of 2h, resets in 22 h\nbytes used  512 B\n",
        ),
        ({"seconds_window_resets_at": "2000-01-01T00:00:00Z"}, "resets in 0 s\n"),
    ],
)
def test_usage_has_one_face(api: ScriptedApi, run: Run, changed: dict[str, object], shown: str) -> None:
    """As `wg-appliance usage` shows it to the operator."""
    usage = {
        "tier": "free",
        "bytes_used": 512,
        "bytes_limit": 5 << 30,
        "bytes_window_resets_at": in_(7 * 86400 - 60),
        "session_seconds": 300,
        "session_seconds_limit": 7200,
        "max_session_seconds": 86400,
        "seconds_window_resets_at": in_(23 * 3600 - 60),
    }
    api.answers("GET /v1/usage", 200, usage | changed)
    assert run("connect", "--usage").stdout.endswith(shown)


@pytest.mark.parametrize(
    "changed",
    [
        {"bytes_used": "1"},
        {"bytes_used": -1},
        {"session_seconds_limit": 1.5},
        {"bytes_window_resets_at": "soon"},
        {"bytes_window_resets_at": "2026-12-01T00:00:00"},
        {"seconds_window_resets_at": 7},
    ],
)
def test_usage_that_is_none(api: ScriptedApi, run: Run, changed: dict[str, object]) -> None:
    """One line that names the member."""
    names = {"bytes_used": 1, "bytes_limit": 2, "session_seconds": 1, "session_seconds_limit": 2}
    ends = dict.fromkeys(("bytes_window_resets_at", "seconds_window_resets_at"), in_(60))
    api.answers("GET /v1/usage", 200, {"tier": "free", **names, **ends} | changed)
    done = run("connect", "--usage")
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (1, "", 1)
    assert f"an invalid {next(iter(changed))}" in done.stderr


def test_what_is_no_exit(api: ScriptedApi, run: Run) -> None:
    """A site that answers 200 to everything is told in one line."""
    api.answers("GET /v1/usage", 200, {})
    done = run("connect", "--usage")
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (1, "", 1)
    assert "is it this appliance that answers?" in done.stderr


def test_regions_are_shown_without_a_token(api: ScriptedApi, run: Run) -> None:
    """With the time that a connection takes, and without a token."""
    api.answers("GET /v1/regions", 200, {"regions": [{"code": "fsn", "node_count": 2}]})
    (region,) = json.loads(run("regions", "--json", WG_APPLIANCE_TOKEN="").stdout)["regions"]
    assert (region["code"], region["node_count"]) == ("fsn", 2)
    assert 0 < region["latency_ms"] < 5000
    table = run("regions").stdout.splitlines()
    assert table[0].split() == ["REGION", "NODES", "LATENCY"]
    assert re.fullmatch(r"fsn +2 +\d+\.\d ms", table[1])
    assert not any(asked.token for asked in api.asked)


def test_of_several_regions_none_is_chosen(api: ScriptedApi, run: Run) -> None:
    """It does not choose between them."""
    api.answers("GET /v1/regions", 200, {"regions": [{"code": code, "node_count": 1} for code in ("ams", "fsn")]})
    done = run("connect", "--config-only")
    assert done.returncode == 2
    assert "name one: ams, fsn" in done.stderr


def test_saved_access_needs_no_options(api: ScriptedApi, run: Run, tmp_path: Path) -> None:
    """With --save the next time needs neither variables nor options."""
    api.answers("GET /v1/usage", 200, {"tier": "free"})
    saved = tmp_path / ".config" / "wg-appliance"
    assert run("connect", "--usage", "--save").stderr == f"saved: {saved}/api, {saved}/token\n"
    again = run("connect", "--usage", WG_APPLIANCE_API="", WG_APPLIANCE_TOKEN="")
    assert again.returncode == 0, again.stderr
    assert [asked.token for asked in api.asked] == [f"Bearer {TOKEN}"] * 2


def test_saved_for_one_exit(api: ScriptedApi, run: Run) -> None:
    """A saved token goes to the exit that it was saved with, never to another; which that is, is said."""
    run("connect", "--usage", "--save")
    asked = len(api.asked)
    with serving() as other:
        done = run("connect", "--usage", "--api", other.url, WG_APPLIANCE_TOKEN="")
        assert other.asked == []
    assert done.returncode == 2
    assert f"no token for {other.url} (the saved one is for {api.url}); give it as" in done.stderr
    assert len(api.asked) == asked


@pytest.mark.parametrize("command", [("connect", "--usage"), ("regions",)])
def test_saving_another_exit_needs_its_own_token(run: Run, tmp_path: Path, command: tuple[str, ...]) -> None:
    """It would cost the token that is saved: refused before anything is written or asked, unless its own comes with
    it."""
    saved, its_own = tmp_path / ".config" / "wg-appliance", f"{TOKEN[:-1]}1"
    run("connect", "--usage", "--save")
    before = {path.name: path.read_text() for path in saved.iterdir()}
    with serving() as other:
        other.answers("GET /v1/usage", 200, {"tier": "free"})
        other.answers("GET /v1/regions", 200, {"regions": []})
        done = run(*command, "--save", "--api", other.url, WG_APPLIANCE_TOKEN="")
        assert (done.returncode, done.stdout, other.asked) == (2, "", [])
        assert "--token TOKEN, beside --save\n" in done.stderr
        assert {path.name: path.read_text() for path in saved.iterdir()} == before
        assert run(*command, "--save", "--api", other.url, WG_APPLIANCE_TOKEN=its_own).returncode == 0
    assert (saved / "token").read_text() == f"{its_own}\n"


@pytest.mark.parametrize(
    ("environ", "arguments", "said"),
    [
        ({"WG_APPLIANCE_API": ""}, ("--usage",), "no exit; give its URL as WG_APPLIANCE_API"),
        ({"WG_APPLIANCE_TOKEN": ""}, ("--usage",), "; give it as WG_APPLIANCE_TOKEN"),
        ({"WG_APPLIANCE_API": "http://192.0.2.1"}, ("--usage",), "others on the way could read the token; use https"),
        ({"WG_APPLIANCE_API": "192.0.2.1"}, ("--usage",), "192.0.2.1: must be https://HOST"),
        ({}, (*9 * ("--dns", "9.9.9.9"), "--qr"), "--dns is given 9 times; 8 resolvers at most"),
        ({}, ("--token", "x", "--token-file", "y", "--usage"), "--token and --token-file do not go together"),
        ({}, ("fsn", "--"), "Missing COMMAND after '--'"),
        ({}, ("fsn", "curl"), "extra arguments (curl). A program to run, and its options, go behind '--'"),
        ({}, ("fsn", "curl", "-sS"), "A program to run, and its options, go behind '--'"),
        ({}, ("fsn", "curl", "--silent", "x"), "A program to run, and its options, go behind '--'"),
        ({}, ("fsn", "curl", "--every", "1s", "--max-time=3"), "A program to run, and its options, go behind '--'"),
        ({}, ("fsn", "--usage"), "--usage and REGION do not go together"),
        ({}, ("--config-only", ""), "--config-only has an empty FILE"),
        ({}, ("--every", "0s"), "0s"),
        ({}, ("FSN",), "FSN"),
        ({}, ("--dns", "example.org"), "example.org"),
    ],
)
def test_usage_errors_are_status_2(
    api: ScriptedApi, run: Run, environ: dict[str, str], arguments: tuple[str, ...], said: str
) -> None:
    """Status 2, and what is missing or wrong; the exit is not asked."""
    done = run("connect", *arguments, **environ)
    assert (done.returncode, done.stdout, api.asked) == (2, "", [])
    assert said in done.stderr


def test_an_option_that_is_misspelt(run: Run) -> None:
    """Where no program is named, nothing is said of one."""
    for arguments in (
        ("fsn", "--silent"),
        ("--every", "1s", "fsn", "--silent"),
        ("--silent", "fsn"),
        ("--every", "--silent", "fsn", "--silent"),
    ):
        done = run("connect", *arguments)
        assert (done.returncode, "No such option '--silent'" in done.stderr) == (2, True)
        assert "go behind" not in done.stderr


def test_this_hosts_own_exit(api: ScriptedApi, run: Run, tmp_path: Path) -> None:
    """Where no exit is named and this host's configuration can be read, that is the exit; a named one comes first."""
    config = tmp_path / "config.toml"
    config.write_text(f'[api]\nlisten = "0.0.0.0:{api.port}"\ninsecure_http = true\n')
    api.answers("GET /v1/regions", 200, {"regions": [{"code": "fsn", "node_count": 1}]})
    api.answers("GET /v1/usage", 200, {"tier": "free"})
    for arguments in (("--config", str(config), "regions"), ("--config", str(config), "connect", "--usage")):
        done = run(*arguments, WG_APPLIANCE_API="")
        assert (done.returncode, done.stderr) == (0, "")
    assert run("regions", WG_APPLIANCE_API="", WG_APPLIANCE_CONFIG=str(config)).returncode == 0
    own = ("--config", str(config), "regions")
    saved = run(*own, "--token", TOKEN, "--save", WG_APPLIANCE_API="")
    assert (saved.returncode, saved.stderr.count("/api"), saved.stderr.count("/token")) == (0, 0, 1)
    assert run(*own, WG_APPLIANCE_API="", WG_APPLIANCE_TOKEN="").returncode == 0
    config.write_text('[api]\nlisten = "127.0.0.1:1"\n')
    assert run("--config", str(config), "regions").returncode == 0


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("nonsense", "config.toml: Expected '=' after a key"),
        ('[api]\nlistn = ""\n', 'config.toml: api.listn = "": unknown key'),
        ('[api]\nlisten = "nowhere"\n', 'config.toml: api.listen = "nowhere": must be'),
        ("\xff", "config.toml: not UTF-8 text (at line 1)"),
        (None, "config.toml: cannot read the configuration: No such file or directory"),
        ("a folder", "config.toml: cannot read the configuration: Is a directory"),
        ('[api]\ntls_cert = "CONFIG"\ntls_key = "CONFIG"\n', 'api.tls_cert = "CONFIG": must be a certificate'),
        ('[api]\ntls_cert = "/none"\ntls_key = "CONFIG"\n', 'api.tls_cert = "/none": must be a file'),
    ],
)
def test_this_hosts_own_exit_is_not_as_it_must_be(
    api: ScriptedApi, run: Run, tmp_path: Path, content: str | None, said: str
) -> None:
    """The file is named and what is wrong with it, as by the admin commands; a named exit needs none of it."""
    config = tmp_path / "config.toml"
    if content == "a folder":
        config.mkdir()
    elif content is not None:
        config.write_text(content.replace("CONFIG", str(config)), encoding="latin-1")
    api.answers("GET /v1/regions", 200, {"regions": []})
    for words in (("regions",), ("connect", "--usage"), ("connect",)):
        done = run("--config", str(config), *words, WG_APPLIANCE_API="")
        assert (done.returncode, done.stdout, done.stderr.count("\n")) == (1, "", 1), done.stderr
        assert said.replace("CONFIG", str(config)) in done.stderr
        assert done.stderr.endswith("; mend it, or give an exit's URL: --api URL\n")
    assert run("regions", WG_APPLIANCE_API="", WG_APPLIANCE_CONFIG=str(config)).returncode == 1
    assert run("--config", str(config), "regions").returncode == 0


@pytest.mark.skipif(os.geteuid() != 0, reason="NOT TESTED: only root can be another user")
@pytest.mark.parametrize("hides", ["the file", "its folder"])
def test_this_hosts_configuration_is_roots(tmp_path: Path, hides: str) -> None:
    """Who may not read it is told so, and what to do."""
    tmp_path.chmod(0o700 if hides == "its folder" else 0o755)
    config = tmp_path / "config.toml"
    config.write_text("")
    config.chmod(0o600)
    script = (
        "import os, sys; os.setgroups([]); os.setgid(65534); os.setuid(65534); from appliance.cli import main; main()"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, "--config", str(config), "regions"],
        capture_output=True,
        text=True,
        cwd=PROJECT,
        env={"HOME": "/nonexistent", "PATH": os.environ["PATH"]},
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stderr.count("\n")) == (1, 1), done.stderr
    assert "cannot read the configuration: Permission denied; run as root, or give an exit's URL" in done.stderr


@pytest.mark.skipif(os.geteuid() != 0, reason="NOT TESTED: only root can be another user")
def test_without_root_no_session_is_opened(api: ScriptedApi, tmp_path: Path) -> None:
    """A tunnel needs it: one line that says so, before a session is opened."""
    script = (
        "import os, sys; os.setgroups([]); os.setgid(65534); os.setuid(65534); from appliance.cli import main; main()"
    )
    environ = {
        "WG_APPLIANCE_API": api.url,
        "WG_APPLIANCE_TOKEN": TOKEN,
        "HOME": str(tmp_path),
        "PATH": os.environ["PATH"],
    }
    done = subprocess.run(
        [sys.executable, "-c", script, "connect", "fsn"],
        capture_output=True,
        text=True,
        cwd=PROJECT,
        env=environ,
        timeout=60,
        check=False,
    )
    assert (done.returncode, api.asked) == (1, [])
    assert "run it as root (sudo)" in done.stderr


def test_help_is_quick(run: Run) -> None:
    """What only a connection needs is loaded when there is one."""
    done = run("connect", "--help", PYTHONPROFILEIMPORTTIME="1")
    assert done.returncode == 0
    heavy = ("rich", "segno", "ssl", "http.client", "pyroute2", "cryptography", "asyncio")
    imported = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}
    assert not [name for name in imported if name in heavy]


@pytest.mark.parametrize(
    ("words", "completed"),
    [
        ("wg-appliance conn", "plain,connect"),
        ("wg-appliance connect --config-o", "plain,--config-only"),
        ("wg-appliance connect -- cu", ""),
    ],
)
def test_completion_is_clicks(words: str, completed: str) -> None:
    """click's, which bash asks like this."""
    environ = {
        "_WG_APPLIANCE_COMPLETE": "bash_complete",
        "COMP_WORDS": words,
        "COMP_CWORD": str(len(words.split()) - 1),
    }
    program = "from appliance.cli import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        cwd=PROJECT,
        env=environ,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, f"{completed}\n", "")
