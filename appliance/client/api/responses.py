"""Decides what to do on each answer of the API. Pure."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from appliance.client.api.http import Currency
from appliance.client.humanize import long_span, shortened, size
from appliance.domain.errors import HostError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from appliance.client.api.http import Answer, Fields

DONE, FAILED, QUOTA_EXCEEDED, ENDED = 0, 1, 3, 4  # exit statuses; 2 is click's, for usage

FIRST_PAUSE_S, LONGEST_PAUSE_S = 1.0, 10.0
PATIENCE_S = 120.0  # how long to retry while the exit says to come back later
PATIENCE_UNANSWERED_S = 15.0  # how long to retry an exit never reached: more likely a wrong URL than a restart
LONGEST_RETRY_AFTER_S = 300

QUOTAS = ("quota_bytes_used", "quota_bytes_limit", "quota_seconds_used", "quota_seconds_limit")
COST = ("cost_time_millicents", "cost_bytes_millicents")
# Members of answers that are used must have these types; those of SESSION_MORE may be missing.
SESSION: Fields = {"id": str, "region": str, "public_ip": str, "bytes_in": int, "bytes_out": int}
SESSION_MORE: Fields = {
    **dict.fromkeys((*QUOTAS, *COST, "seconds"), int),  # an older exit tells no seconds
    "cost_currency": Currency,
    "terminated_reason": str,
}
OPENED: Fields = dict.fromkeys(("id", "public_ip", "wg_config", "tier", "expires_at"), str)
# An id is part of paths and of the record of a run; the others are shown.
OPENED_FORMS = {
    "id": re.compile(r"ses_[A-Za-z0-9_-]{1,64}"),
    "public_ip": re.compile(r"[0-9a-fA-F:.]{2,45}"),
    "tier": re.compile(r"[a-z0-9-]{1,32}"),
    "expires_at": re.compile(r"[0-9TZ:.+-]{10,40}"),
}
DEVICE: Fields = dict.fromkeys(("id", "public_ip", "wg_config", "tier", "created_at"), str)
DEVICE_FORMS = {
    "id": re.compile(r"dev_[A-Za-z0-9_-]{1,64}"),
    **{name: OPENED_FORMS[name] for name in ("public_ip", "tier")},
    "created_at": OPENED_FORMS["expires_at"],
}
QUOTA: Fields = {
    **dict.fromkeys(("bytes_used", "bytes_limit", "session_seconds", "session_limit"), int),
    **dict.fromkeys(("tier", "bytes_window_resets_at", "seconds_window_resets_at", "hint"), str),
}
REGION: Fields = {"code": str, "node_count": int}


class UnusableSession(HostError):
    """Says that a session was opened by an answer that cannot be used; `session_id`: to close it by."""

    def __init__(self, message: str, session_id: str) -> None:
        super().__init__(message)
        self.session_id = session_id


class UnusableDevice(HostError):
    """Says the same of a device; `device_id`: to remove it by."""

    def __init__(self, message: str, device_id: str) -> None:
        super().__init__(message)
        self.device_id = device_id


@dataclass(frozen=True, slots=True)
class AddedDevice:
    id: str
    public_ip: str
    wg_config: str
    tier: str
    created_at: str


@dataclass(frozen=True, slots=True)
class OpenedSession:
    id: str
    public_ip: str
    wg_config: str
    tier: str
    expires_at: str


@dataclass(frozen=True, slots=True)
class Again:
    """Tells to try again after `after_s` seconds.

    `patience_s`: how long to retry a session's opening. `later`: when the exit wants to be asked again, in words.
    """

    after_s: float
    why: str
    patience_s: float = PATIENCE_S
    later: str = "later"


@dataclass(frozen=True, slots=True)
class Refusal:
    """Says that the request is refused for good: a retry would not help."""

    why: str
    exit_status: int


@dataclass(frozen=True, slots=True)
class Live:
    session: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Over:
    """Says that the server has ended the session. `session`: empty if the server does not say more."""

    reason: str
    session: Mapping[str, Any]

    @property
    def reopen(self) -> bool:
        """Tells whether to open another session: one that ended as idle only slept or had no network."""
        return self.reason == "idle"


def pause(failures: int) -> float:
    """Returns the seconds to wait before the next try, after that many failures in a row."""
    return min(FIRST_PAUSE_S * 2.0 ** min(failures - 1, 10), LONGEST_PAUSE_S)


def on_opening(answer: Answer, failures: int) -> OpenedSession | Again | Refusal:
    """Interprets the answer to POST /v1/sessions. `failures`: failed tries in a row, including this one if it failed.

    Raises HostError if the answer lacks a required member; UnusableSession if it names the session all the same.
    """
    if answer.status == 201:
        body = _checked(answer, OPENED, OPENED_FORMS, UnusableSession)
        return OpenedSession(**{name: body[name] for name in OPENED})
    if answer.status == 402:
        return Refusal(shortened(quota_breakdown(answer.require(402, QUOTA))), QUOTA_EXCEEDED)
    return _not_now(answer, failures) or Refusal(_refused(answer, _ADVICE), FAILED)


def on_adding(answer: Answer, failures: int) -> AddedDevice | Again | Refusal:
    """Interprets the answer to POST /v1/devices, as `on_opening` does; raises UnusableDevice in the same way."""
    if answer.status == 201:
        body = _checked(answer, DEVICE, DEVICE_FORMS, UnusableDevice)
        return AddedDevice(**{name: body[name] for name in DEVICE})
    return _not_now(answer, failures) or Refusal(_refused(answer, _DEVICE_ADVICE), FAILED)


def _not_now(answer: Answer, failures: int) -> Again | Refusal | None:
    """Interprets an answer that says where there is an exit, or that another try may help."""
    available = answer.body.get("available")
    if answer.status == 503 and isinstance(available, list):
        others = shortened(", ".join(map(str, available)))
        advice = f"; there is one in: {others}" if others else "; and there is none in any other"
        return Refusal(f"{answer.error}{advice}", FAILED)
    if is_passing(answer):
        return Again(wait(answer, failures), answer.error, later=answer.later)
    return None


def _refused(answer: Answer, advice: Mapping[int, str]) -> str:
    return f"the API answers {answer.status}: {answer.error}{advice.get(answer.status, '')}"


def _checked(
    answer: Answer, members: Fields, forms: Mapping[str, re.Pattern[str]], unusable: Callable[[str, str], HostError]
) -> Mapping[str, Any]:
    """Returns a 201's body. Raises HostError if it cannot be used; `unusable` if it names what was made."""
    try:
        body = answer.require(201, members)
        invalid = [f"an invalid {name}" for name, form in forms.items() if not form.fullmatch(body[name])]
        if invalid:
            raise HostError(f"the API's answer has {', '.join(invalid)}; is it this appliance that answers?")
    except HostError as error:
        named = answer.body.get("id")
        if isinstance(named, str) and forms["id"].fullmatch(named):
            raise unusable(str(error), named) from error
        raise
    return body


def on_status(answer: Answer, failures: int) -> Live | Over | Again:
    """Interprets the answer to GET /v1/sessions/{id}. Only the API's own 401 or 404 ends the session: a proxy or a
    captive portal in front of it cannot."""
    if answer.status in (401, 404) and "error" in answer.body:
        return Over(answer.error, {})
    try:
        session = answer.require(200, SESSION, SESSION_MORE)
    except HostError as error:
        return Again(wait(answer, failures), str(error))
    reason = session.get("terminated_reason")
    return Live(session) if reason is None else Over(shortened(reason), session)


def regions(answer: Answer) -> list[Mapping[str, Any]]:
    """Reads the answer to GET /v1/regions. Raises HostError if it is an error or has invalid members."""
    regions = answer.require(200, {"regions": list})["regions"]
    return [replace(answer, body=each if isinstance(each, dict) else {}).require(200, REGION) for each in regions]


def is_passing(answer: Answer) -> bool:
    return answer.status == 429 or answer.status >= 500


def wait(answer: Answer, failures: int) -> float:
    return max(pause(failures), min(answer.retry_after or 0, LONGEST_RETRY_AFTER_S))


def quota_breakdown(body: Mapping[str, Any]) -> str:
    """Describes a 402: the use of both quota windows, and when they reset."""
    used = (
        f"{_of(size(body['bytes_used']), body['bytes_limit'], size)} (resets {body['bytes_window_resets_at']})",
        f"session time {_of(long_span(body['session_seconds']), body['session_limit'], long_span)} "
        f"(resets {body['seconds_window_resets_at']})",
    )
    return f"quota exceeded (tier {body['tier']}): {', '.join(used)}; {body['hint']}"


def _of(used: str, limit: int, shown: Any) -> str:
    return f"{used} of {shown(limit)}" if limit else f"{used}, unmetered"


_ADVICE = {
    401: (
        "; was it revoked, has it expired, is it another exit's, or its account disabled? "
        "see --token, WG_APPLIANCE_TOKEN and ~/.config/wg-appliance/token"
    ),
    403: "; one has to end first, which an abandoned one does by itself after some minutes",
    404: "; is the URL right?",
}
_DEVICE_ADVICE = {
    401: _ADVICE[401],
    403: (
        "; one has to be removed first: GET /v1/devices lists them, DELETE /v1/devices/ID removes one "
        "(wg-appliance help api), or the operator does"
    ),
    404: "; is the URL right, and the exit new enough to have devices?",
    409: "; give it another name",
}
