"""A session over HTTP: what is asked again, for how long, and what is left of it when the exit is away."""

from __future__ import annotations

import socket
import ssl
import threading
import time
from contextlib import suppress
from typing import TYPE_CHECKING

import pytest

from appliance.client.api import responses
from appliance.client.api.dialer import Dialer, parse_url
from appliance.client.api.http import NoAnswer
from appliance.client.api.responses import Again, Live, OpenedSession
from appliance.client.api.sessions import SessionsClient, Stopped
from appliance.domain.errors import HostError
from tests.support.certificates import self_signed
from tests.support.client.scripted_api import (
    OPENED,
    QUOTA_EXCEEDED,
    SESSION,
    TOKEN,
    Asked,
    ScriptedApi,
    serving,
    unused_port,
)

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

POST, STATUS, DELETE = "POST /v1/sessions", "GET /v1/sessions/ses_1", "DELETE /v1/sessions/ses_1"
WISH = {"region": "fsn", "client_public_key": "k", "ipv6": True}
BUSY = {"error": "subnet exhausted"}


class Clock:
    """Time passes only where somebody pauses."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 0.0
        self.pauses: list[float] = []
        self.remarks: list[str] = []
        monkeypatch.setattr(time, "monotonic", lambda: self.now)

    def pause(self, seconds: float) -> None:
        self.now += seconds
        self.pauses.append(seconds)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return Clock(monkeypatch)


def sessions_at(url: str, clock: Clock) -> SessionsClient:
    return SessionsClient(Dialer(parse_url(url)).api(), TOKEN, clock.pause, clock.remarks.append)


@pytest.fixture
def sessions(api: ScriptedApi, clock: Clock) -> SessionsClient:
    return sessions_at(api.url, clock)


@pytest.fixture
def nowhere(clock: Clock) -> SessionsClient:
    """Nobody listens there."""
    return sessions_at(f"http://127.0.0.1:{unused_port()}", clock)


INVALID = [
    ("expires_at", "soon"),
    ("expires_at", 7),
    ("wg_config", None),
    ("wg_config", "x" * 5000),
    ("public_ip", "\x1b[2J"),
    ("public_ip", ["203.0.113.1"]),
    ("tier", "\ud800"),
    ("tier", {}),
    *((name, ...) for name in OPENED if name != "id"),
]


@pytest.mark.parametrize(("name", "value"), INVALID)
def test_a_session_of_an_answer_that_cannot_be_used_is_closed(
    api: ScriptedApi, sessions: SessionsClient, name: str, value: object
) -> None:
    """Its id is known, and so it does not stay open for nothing: of whichever other member the answer is wrong."""
    api.answers(POST, 201, {key: each for key, each in (OPENED | {name: value}).items() if each is not ...})
    api.answers(DELETE, 200, SESSION)
    for open_ in (sessions.open, lambda wish: sessions.try_open(wish, 1)):
        with pytest.raises(HostError, match=rf"the API's answer has (no|an invalid) {name}; is it this appliance"):
            open_(WISH)
    assert [f"{each.method} {each.path}" for each in api.asked] == 2 * [POST, DELETE]


@pytest.mark.parametrize(("status", "tries"), [(404, 1), (500, 5)])
def test_it_cannot_be_closed_either(
    api: ScriptedApi, sessions: SessionsClient, clock: Clock, status: int, tries: int
) -> None:
    """Tried for some seconds, and said in the same line."""
    api.answers(POST, 201, OPENED | {"expires_at": ""})
    api.answers(DELETE, status, {"error": "no"})
    with pytest.raises(HostError, match=f"an invalid expires_at.*ses_1 ends by itself, .*the API answers {status}: no"):
        sessions.open(WISH)
    assert (len(api.asked) - 1, clock.now < 20) == (tries, True)


def test_an_answer_without_an_id_closes_nothing(api: ScriptedApi, sessions: SessionsClient) -> None:
    """Nor one whose id is no path: there is nothing to name."""
    for named in (None, "../ses_1", "ses_1\n", 7):
        api.answers(POST, 201, OPENED | {"id": named, "expires_at": ""})
        with pytest.raises(HostError, match="an invalid id"):
            sessions.open(WISH)
    assert {each.method for each in api.asked} == {"POST"}


def test_a_session_is_opened_with_one_request(api: ScriptedApi, sessions: SessionsClient) -> None:
    """One request, with the token in its header and the wish as its body."""
    api.answers(POST, 201, OPENED)
    assert sessions.open(WISH) == OpenedSession(**OPENED)
    assert api.asked == [Asked("POST", "/v1/sessions", f"Bearer {TOKEN}", WISH)]


def test_busy_exits_are_waited_for(api: ScriptedApi, sessions: SessionsClient, clock: Clock) -> None:
    """As long as they ask for, and each wait is told with its reason; the key is the same each time."""
    api.answers(POST, 503, BUSY, Retry_After="10")
    api.answers(POST, 429, {"error": "too many requests"}, Retry_After="3")
    api.answers(POST, 201, OPENED)
    sessions.open(WISH)
    assert clock.pauses == [10, 3]
    assert clock.remarks == ["subnet exhausted; asking again in 10 s", "too many requests; asking again in 3 s"]
    assert [asked.body for asked in api.asked] == [WISH] * 3


def test_a_busy_exit_is_given_up_after_two_minutes(api: ScriptedApi, sessions: SessionsClient, clock: Clock) -> None:
    """An exit that stays busy is given up after two minutes, status 1, in its own words."""
    api.answers(POST, 503, BUSY, Retry_After="10")
    with pytest.raises(Stopped, match="subnet exhausted; try again in 10s") as stopped:
        sessions.open(WISH)
    assert stopped.value.exit_status == responses.FAILED
    assert responses.PATIENCE_S - 10 <= clock.now <= responses.PATIENCE_S


def test_quota_is_not_waited_for(api: ScriptedApi, sessions: SessionsClient, clock: Clock) -> None:
    """Status 3 at once."""
    api.answers(POST, 402, QUOTA_EXCEEDED)
    with pytest.raises(Stopped, match="quota exceeded") as stopped:
        sessions.open(WISH)
    assert (stopped.value.exit_status, clock.pauses) == (responses.QUOTA_EXCEEDED, [])


def test_a_wrong_url_is_told_within_seconds(nowhere: SessionsClient, clock: Clock) -> None:
    """A wrong URL is told within seconds, not minutes, and still long enough for a restart."""
    with pytest.raises(Stopped, match=r"does not answer at http://127\.0\.0\.1:\d+: .*refused; try again later"):
        nowhere.open(WISH)
    assert 5 < clock.now <= responses.PATIENCE_UNANSWERED_S


def test_a_connected_client_tries_once(
    api: ScriptedApi, sessions: SessionsClient, nowhere: SessionsClient, clock: Clock
) -> None:
    """Of who is connected already: it waits for nothing, and says when to try again."""
    api.answers(POST, 503, BUSY, Retry_After="10")
    assert sessions.try_open(WISH, 1) == Again(10, "subnet exhausted", later="in 10s")
    away = nowhere.try_open(WISH, 2)
    assert isinstance(away, Again)
    assert (away.after_s, clock.pauses) == (2, [])


def test_a_missing_status_is_asked_again(api: ScriptedApi, sessions: SessionsClient, nowhere: SessionsClient) -> None:
    """Live, or to be asked again where no answer comes."""
    api.answers(STATUS, 200, SESSION)
    assert sessions.status("ses_1", 1) == Live(SESSION)
    away = nowhere.status("ses_1", 3)
    assert isinstance(away, Again)
    assert (away.after_s, "refused" in away.why) == (4, True)


def test_closing_gives_the_final_figures(api: ScriptedApi, sessions: SessionsClient, clock: Clock) -> None:
    """The final figures; an exit that restarts just now is asked again."""
    api.answers(DELETE, 503, {"error": "store unavailable"})
    api.answers(DELETE, 200, SESSION)
    assert sessions.close("ses_1") == SESSION
    assert clock.pauses == [1]


def test_closing_is_given_up_after_some_seconds(nowhere: SessionsClient, clock: Clock) -> None:
    """An exit that stays away is given up after some seconds."""
    with pytest.raises(NoAnswer, match="does not answer"):
        nowhere.close("ses_1")
    assert clock.now < 2 * 10 + 1


def test_closing_a_session_that_is_unknown(sessions: SessionsClient) -> None:
    """Not asked again."""
    with pytest.raises(HostError, match="the API answers 404: not found"):
        sessions.close("ses_1")


@pytest.mark.parametrize("retry_after", ["3600", "9" * 5000])
def test_what_is_asked_for_too_late(api: ScriptedApi, sessions: SessionsClient, clock: Clock, retry_after: str) -> None:
    """An exit that says to come back in an hour is not waited for that long, whatever is asked of it."""
    api.answers("GET /v1/regions", 503, BUSY, Retry_After=retry_after)
    with pytest.raises(HostError, match="the API answers 503: subnet exhausted"):
        sessions.regions()
    assert clock.now <= responses.PATIENCE_S


def test_an_answer_that_breaks_off(api: ScriptedApi, sessions: SessionsClient, clock: Clock) -> None:
    """As of an exit that is killed meanwhile: no answer, to be asked for again."""
    api.answers(STATUS, 200, SESSION, Content_Length="4000")
    assert isinstance(sessions.status("ses_1", 1), Again)
    api.answers(POST, 201, OPENED, Content_Length="4000")
    api.answers(POST, 201, OPENED)
    assert sessions.open(WISH).id == "ses_1"
    assert clock.pauses == [1]


@pytest.mark.parametrize(("host", "named"), [("127.0.0.1", "127.0.0.1"), ("::1", "[::1]")])
def test_an_address_for_a_name(clock: Clock, host: str, named: str) -> None:
    """It is told to the exit as it stands in the URL, with its port; an IPv6 address in brackets."""
    with serving(host=host) as api:
        api.answers(POST, 201, OPENED)
        sessions_at(api.url, clock).open(WISH)
        assert [asked.host for asked in api.asked] == [f"{named}:{api.port}"]


def test_a_request_has_one_deadline(monkeypatch: pytest.MonkeyPatch, clock: Clock) -> None:
    """However often a byte comes: the time is that of the whole answer."""
    monkeypatch.setattr("appliance.client.api.sessions.STATUS_S", 0.5)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        stopped = threading.Event()

        def drip() -> None:
            with listener.accept()[0] as connection, suppress(OSError):
                while not stopped.wait(0.05):
                    connection.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")

        dripping = threading.Thread(target=drip)
        dripping.start()
        away = sessions_at(f"http://127.0.0.1:{listener.getsockname()[1]}", clock).status("ses_1", 1)
        stopped.set()
        dripping.join()
    assert isinstance(away, Again)
    assert "no whole answer within 0.5 s" in away.why


@pytest.mark.parametrize("said", [b"SSH-2.0-OpenSSH_9.2\r\n", b"\x15\x03\x01\x00\x02\x02\x46"])
def test_what_listens_there_is_another(clock: Clock, said: bytes) -> None:
    """Another protocol, or TLS: one try, and a line that says what it could be."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def answer() -> None:
            with listener.accept()[0] as connection:
                connection.recv(65536)
                connection.sendall(said)
                connection.shutdown(socket.SHUT_WR)
                connection.recv(65536)

        answering = threading.Thread(target=answer)
        answering.start()
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        with pytest.raises(NoAnswer, match=r"does not speak HTTP; is it https://127\.0\.0\.1:\d+\?"):
            sessions_at(url, clock).open(WISH)
        answering.join()
    assert clock.pauses == []


# TLS ----------------------------------------------------------------------------------------------


def test_https_to_a_plain_port(api: ScriptedApi, clock: Clock) -> None:
    """One try, no words of OpenSSL's, and what to try instead."""
    with pytest.raises(NoAnswer) as refused:
        sessions_at(f"https://127.0.0.1:{api.port}", clock).open(WISH)
    assert str(refused.value) == (
        f"the API does not answer at https://127.0.0.1:{api.port}: what listens there does not speak TLS; "
        f"is it http://127.0.0.1:{api.port}?"
    )
    assert clock.pauses == []


@pytest.fixture
def certificate(tmp_path: Path) -> tuple[Path, Path]:
    return self_signed(tmp_path, "exit.example")


@pytest.fixture
def named(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """A name is found on loopback."""

    def resolve(name: str) -> None:
        real = socket.getaddrinfo
        monkeypatch.setattr(
            socket, "getaddrinfo", lambda host, *a, **k: real("127.0.0.1" if host == name else host, *a, **k)
        )

    return resolve


def test_a_certificate_of_nobody_known(certificate: tuple[Path, Path], clock: Clock) -> None:
    """Refused at once, before the token is sent."""
    with serving(certificate) as api:
        sessions = sessions_at(f"https://127.0.0.1:{api.port}", clock)
        with pytest.raises(NoAnswer, match="certificate verify failed"):
            sessions.open(WISH)
        assert (api.asked, clock.pauses) == ([], [])


def test_a_certificate_of_another(
    certificate: tuple[Path, Path], clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that is trusted counts for its own name alone."""
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate[0]))
    with serving(certificate) as api:
        with pytest.raises(NoAnswer, match="certificate verify failed"):
            sessions_at(f"https://127.0.0.1:{api.port}", clock).open(WISH)
        assert api.asked == []


def test_a_certificate_that_is_trusted(
    certificate: tuple[Path, Path], clock: Clock, monkeypatch: pytest.MonkeyPatch, named: Callable[[str], None]
) -> None:
    """OpenSSL's own variable says whom this machine trusts beside the usual ones."""
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate[0]))
    named("exit.example")
    with serving(certificate) as api:
        api.answers("POST /api/v1/sessions", 201, OPENED)
        assert sessions_at(f"https://exit.example:{api.port}/api", clock).open(WISH).id == "ses_1"
        assert ssl.create_default_context().check_hostname


def test_an_address_is_remembered(
    api: ScriptedApi, named: Callable[[str], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a tunnel up the exit's name is not asked for again: the answer might have to come through it."""
    named("exit.example")
    dialer = Dialer(parse_url(f"http://exit.example:{api.port}"))
    dialer.dial(5).close()

    def unreachable(*_: object, **__: object) -> None:
        raise OSError("no resolver")

    monkeypatch.setattr(socket, "getaddrinfo", unreachable)
    dialer.dial(5).close()
