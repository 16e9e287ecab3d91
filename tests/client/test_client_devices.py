"""connect --add-device: a device of the token's account, whose key is made here, over an API with a script."""

from __future__ import annotations

import base64
import json
import re
import stat
from typing import TYPE_CHECKING

import pytest

from appliance.client.api.devices import DevicesClient
from appliance.client.api.dialer import Dialer, parse_url
from appliance.client.api.http import NoAnswer
from appliance.network.wireguard.keys import encode, public_key
from tests.support.client.scripted_api import CONFIG, OPENED, TOKEN

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Callable
    from pathlib import Path
    from typing import Any

    from tests.support.client.scripted_api import ScriptedApi

    Run = Callable[..., subprocess.CompletedProcess[str]]

POST = "POST /v1/devices"
ADDED = {
    "id": "dev_1",
    "name": "phone",
    "region": "fsn",
    "public_ip": "203.0.113.1",
    "wg_config": CONFIG,
    "created_at": "2026-11-30T00:00:00Z",
    "tier": "free",
}


def asked(api: ScriptedApi, method: str = "POST") -> list[Any]:
    return [each for each in api.asked if each.method == method]


def test_a_file_of_a_new_device(api: ScriptedApi, run: Run, tmp_path: Path) -> None:
    """For nobody else's eyes; the exit was told the name and the public key alone, and no tunnel is made."""
    api.answers(POST, 201, ADDED)
    file = tmp_path / "laptop.conf"
    done = run("connect", "fsn", "--add-device", "my laptop", str(file))
    assert (done.returncode, done.stdout) == (0, ""), done.stderr
    assert done.stderr == (
        f"written: {file}\ndevice my laptop added, tier free: its file stays good until the device is removed\n"
    )
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    key = re.search(r"^PrivateKey = (\S+)$", config := file.read_text(), re.MULTILINE)
    assert key is not None
    assert config.replace(f"PrivateKey = {key[1]}\n", "") == CONFIG
    (request,) = api.asked
    assert request.token == f"Bearer {TOKEN}"
    assert request.body == {
        "name": "my laptop",
        "region": "fsn",
        "client_public_key": encode(public_key(base64.b64decode(key[1]))),
        "ipv6": request.body["ipv6"],
    }


def test_a_code_and_stdout(api: ScriptedApi, run: Run) -> None:
    """A code has a resolver that a phone reaches, and all of IPv6; without a FILE the file stands alone on stdout."""
    api.answers("GET /v1/regions", 200, {"regions": [{"code": "fsn", "node_count": 1}]})
    api.answers(POST, 201, ADDED)
    done = run("connect", "--add-device", "phone", "--qr")
    assert (done.returncode, set(done.stdout) <= set(" ▀▄█\n")) == (0, True), done.stderr
    assert (asked(api)[-1].body["region"], asked(api)[-1].body["ipv6"]) == ("fsn", True)
    shown = json.loads(run("connect", "--add-device", "phone", "--qr", "--json").stdout)
    assert "\nDNS = 9.9.9.9\n" in shown.pop("wg_config")
    assert shown == {name: value for name, value in ADDED.items() if name != "wg_config"}
    done = run("connect", "--add-device=phone", "--dns", "192.0.2.53")
    assert done.stdout.startswith("[Interface]\nPrivateKey = ")
    assert "\nDNS = 192.0.2.53\n" in done.stdout


def test_what_stands_behind_it_is_the_file(api: ScriptedApi, run: Run, tmp_path: Path) -> None:
    """And what stands before it the region; a file that looks like one is remarked on."""
    api.answers("GET /v1/regions", 200, {"regions": [{"code": "fsn", "node_count": 1}]})
    api.answers(POST, 201, ADDED)
    done = run("connect", "--add-device", "phone", "ams", cwd=tmp_path)
    assert "written: ams; if that is the region, it comes before: connect ams --add-device NAME\n" in done.stderr
    done = run("connect", "--dns", "none", "nbg", "--add-device", "phone", "b.conf", "--json", cwd=tmp_path)
    assert json.loads(done.stdout)["file"] == "b.conf"
    assert asked(api)[-1].body["region"] == "nbg"


def test_a_file_that_is_there(api: ScriptedApi, run: Run, tmp_path: Path) -> None:
    """It stays, and no device is made for nothing."""
    (tmp_path / "mine.conf").write_text("mine")
    done = run("connect", "fsn", "--add-device", "phone", str(tmp_path / "mine.conf"))
    assert (done.returncode, api.asked, done.stderr.count("\n")) == (1, [], 1)
    assert "is there already; name another" in done.stderr
    assert (tmp_path / "mine.conf").read_text() == "mine"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (
            ("--add-device", "alice/phone", "--qr"),
            "give the device's name alone, without /: the account is the token's",
        ),
        (("--add-device", ""), "--add-device: name must be 1 to 64 characters, not 0"),
        (("--add-device", "a\u200bb"), "--add-device: name must be printable: it contains U+200B ZERO WIDTH SPACE"),
        (("--add-device", "phone", "x.conf", "--qr"), "--qr and FILE do not go together"),
        (("--add-device", "phone", "--usage"), "--add-device and --usage do not go together"),
        (
            ("--add-device", "phone", "--qr", "--config-only"),
            "--add-device and --config-only and --qr do not go together",
        ),
        (("--add-device", "phone", "--", "curl"), "--add-device and -- COMMAND do not go together"),
        (("--add-device", "phone", "x.conf", "y.conf"), "unexpected extra arguments (y.conf)"),
        (("--add-device",), "'--add-device' requires an argument"),
    ],
)
def test_usage_errors(api: ScriptedApi, run: Run, arguments: tuple[str, ...], said: str) -> None:
    """Status 2, and what is wrong; the exit is not asked."""
    done = run("connect", *arguments)
    assert (done.returncode, done.stdout, api.asked) == (2, "", [])
    assert said in done.stderr


@pytest.mark.parametrize(
    ("status", "body", "said"),
    [
        (409, {"error": "device name taken"}, "the API answers 409: device name taken; give it another name\n"),
        (
            403,
            {"error": "device limit reached"},
            "reached; one has to be removed first: GET /v1/devices lists them, DELETE /v1/devices/ID removes one (w",
        ),
        (
            401,
            {"error": "invalid token"},
            "invalid token; was it revoked, has it expired, is it another exit's, or its account disabled? see --token",
        ),
        (404, {"error": "not found"}, "is the URL right, and the exit new enough to have devices?"),
        (400, {"error": "name must not contain /"}, "the API answers 400: name must not contain /\n"),
        (503, {"error": "no active node in region fsn", "available": ["nbg"]}, "; there is one in: nbg\n"),
        (
            201,
            ADDED | {"wg_config": f"{CONFIG}PostUp = sh\n"},
            "the exit's wg_config is refused: the line 'PostUp = sh'",
        ),
        (201, ADDED | {"public_ip": "\x1b[2J"}, "the API's answer has an invalid public_ip"),
        (201, {"id": "dev_1"}, "the API's answer has no public_ip, no wg_config"),
    ],
)
def test_what_the_exit_refuses(
    api: ScriptedApi, run: Run, tmp_path: Path, status: int, body: dict[str, Any], said: str
) -> None:
    """One line and no file; a device whose file cannot be used is removed."""
    api.answers(POST, status, body)
    api.answers("DELETE /v1/devices/dev_1", 200, {"id": "dev_1"})
    done = run("connect", "fsn", "--add-device", "phone", "x.conf", cwd=tmp_path)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (1, "", 1), done.stderr
    assert said in done.stderr
    assert not (tmp_path / "x.conf").exists()
    assert len(asked(api, "DELETE")) == (status == 201)


def test_an_exit_that_is_busy(api: ScriptedApi, run: Run) -> None:
    """It is asked again, with the same key."""
    api.answers(POST, 503, {"error": "peer apply failed; node may be disconnected"})
    api.answers(POST, 201, ADDED)
    done = run("connect", "fsn", "--add-device", "phone")
    assert done.returncode == 0
    assert done.stderr.startswith("peer apply failed; node may be disconnected; asking again in 1 s\n")
    first, second = asked(api)
    assert first.body == second.body


class LosesTheFirst:
    """An API that makes the device, and whose first answer does not come."""

    def __init__(self, api: ScriptedApi, instead: BaseException) -> None:
        self.api, self.lost, self.instead = Dialer(parse_url(api.url), None, None).api(), False, instead

    def client(self) -> DevicesClient:
        return DevicesClient(self, TOKEN, lambda _: None, lambda _: None)  # type: ignore[arg-type]

    def ask(self, method: str, path: str, *rest: Any, **options: Any) -> Any:
        answer = self.api.ask(method, path, *rest, **options)
        if method == "POST" and not self.lost:
            self.lost = True
            raise self.instead
        return answer


def test_an_answer_that_is_lost(api: ScriptedApi) -> None:
    """The device that nobody has the file of is removed, and is made once more; another's of that name stays."""
    for status, body in ((201, ADDED), (409, {"error": "device name taken"}), (201, ADDED | {"id": "dev_2"})):
        api.answers(POST, status, body)
    listed = [{"id": "dev_7", "public_key": "others"}, {"id": "dev_1", "public_key": "ours"}]
    api.answers("GET /v1/devices?limit=200", 200, {"devices": listed})
    api.answers("DELETE /v1/devices/dev_1", 200, {"id": "dev_1"})
    client = LosesTheFirst(api, NoAnswer("the answer breaks off", lasting=False)).client()
    assert client.add({"name": "phone", "client_public_key": "ours"}).id == "dev_2"
    assert [each.path for each in asked(api, "DELETE")] == ["/v1/devices/dev_1"]


def test_ctrl_c_before_the_answer(api: ScriptedApi) -> None:
    """The device that may have been made takes no place of the account's."""
    api.answers(POST, 201, ADDED)
    api.answers("GET /v1/devices?limit=200", 200, {"devices": [{"id": "dev_1", "public_key": "ours"}]})
    api.answers("DELETE /v1/devices/dev_1", 200, {"id": "dev_1"})
    with pytest.raises(KeyboardInterrupt):
        LosesTheFirst(api, KeyboardInterrupt()).client().add({"name": "phone", "client_public_key": "ours"})
    assert len(asked(api, "DELETE")) == 1


def test_a_session_has_no_file_behind_it(api: ScriptedApi, run: Run) -> None:
    """What two arguments mean without --add-device is as it was."""
    api.answers("POST /v1/sessions", 201, OPENED)
    done = run("connect", "fsn", "x.conf")
    assert (done.returncode, api.asked) == (2, [])
    assert "extra arguments (x.conf). A program to run" in done.stderr
