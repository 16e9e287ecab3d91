"""Opens, queries and closes an account's session, and retries while the exit is unavailable for a while."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from appliance.client.api import responses
from appliance.client.api.http import NoAnswer
from appliance.client.api.responses import Again, OpenedSession, Refusal, UnusableSession
from appliance.domain.errors import HostError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from appliance.client.api.http import Answer, Api
    from appliance.client.api.responses import Live, Over

SESSIONS = "/v1/sessions"
STATUS_S = 5.0  # timeout for an exit that has answered before
CLOSING_S = 10.0  # how long to try to close a session
ANSWER_GRACE_S = 2.0  # how long a signal waits for the answer to a request that opens or closes a session


class Stopped(HostError):
    """Says that the session cannot be opened; `exit_status` tells the kind of reason."""

    def __init__(self, message: str, exit_status: int) -> None:
        super().__init__(message)
        self.exit_status = exit_status


class SessionsClient:
    """Opens, reads and closes an account's sessions over the API.

    `pause`: waits the given seconds. `remark`: is told why.
    """

    def __init__(self, api: Api, token: str, pause: Callable[[float], None], remark: Callable[[str], None]) -> None:
        self._api = api
        self.url = api.url
        self._token = token
        self._pause = pause
        self._remark = remark

    def regions(self) -> list[str]:
        """Returns the regions that have an active node. Raises HostError: as `persist`."""
        answer = self.persist(lambda: self._api.ask("GET", "/v1/regions", seconds=STATUS_S))
        return [region["code"] for region in responses.regions(answer)]

    def open(self, body: Mapping[str, object]) -> OpenedSession:
        """Opens a session; retries while the exit is busy or unavailable, for a limited time.

        Raises Stopped if the exit refuses, or that time is over. Raises NoAnswer if a retry will not help.
        """
        begun, failures = time.monotonic(), 0
        while True:
            failures += 1
            opened = self.try_open(body, failures)
            if isinstance(opened, OpenedSession):
                return opened
            if time.monotonic() - begun + opened.after_s > opened.patience_s:
                raise Stopped(f"{opened.why}; try again {opened.later}", responses.FAILED)
            self._remark(f"{opened.why}; asking again in {opened.after_s:g} s")
            self._pause(opened.after_s)

    def try_open(self, body: Mapping[str, object], failures: int) -> OpenedSession | Again:
        """Tries once to open a session. If the answer is lost, a retry with the same public key replaces the session,
        so that none is left open. `failures`: failed tries in a row, including this one if it fails.

        Raises Stopped if the exit refuses. Raises NoAnswer if there is no answer and a retry will not help; HostError
        if it cannot be used, after closing the session that it has opened.
        """
        try:
            opened = responses.on_opening(self._api.ask("POST", SESSIONS, self._token, body), failures)
        except NoAnswer as error:
            if error.lasting:
                raise
            return Again(responses.pause(failures), str(error), responses.PATIENCE_UNANSWERED_S)
        except UnusableSession as error:
            self._close_unusable(error)
            raise
        if isinstance(opened, Refusal):
            raise Stopped(opened.why, opened.exit_status)
        return opened

    def status(self, session_id: str, failures: int) -> Live | Over | Again:
        """Queries the session once. `failures`: as in `try_open`."""
        try:
            return responses.on_status(self._ask("GET", session_id), failures)
        except NoAnswer as error:
            return Again(responses.pause(failures), str(error))

    def close(self, session_id: str) -> Mapping[str, Any]:
        """Closes the session and returns its final figures. The first try is always made; `pause` may end the retries.

        Raises HostError if the session could not be closed.
        """
        deadline, failures = time.monotonic() + CLOSING_S, 0
        while True:
            failures += 1
            try:
                answer = self._ask("DELETE", session_id)
                if not responses.is_passing(answer) or time.monotonic() > deadline:
                    return answer.require(200, responses.SESSION, responses.SESSION_MORE)
            except NoAnswer:
                if time.monotonic() > deadline:
                    raise
            self._pause(responses.pause(failures))

    def _close_unusable(self, error: UnusableSession) -> None:
        try:
            self.close(error.session_id)
        except HostError as failed:
            raise HostError(
                f"{error}; the session {error.session_id} ends by itself, for it could not be closed: {failed}"
            ) from failed

    def persist(self, ask: Callable[[], Answer]) -> Answer:
        """Repeats `ask` until its answer is not a temporary failure, and returns the last answer.

        Raises NoAnswer if there is still no answer when the time to retry is over, or if a retry will not help.
        """
        begun, failures = time.monotonic(), 0
        while True:
            failures += 1
            try:
                answer = ask()
                wait, why = responses.wait(answer, failures), answer.error
                if not responses.is_passing(answer) or time.monotonic() - begun + wait > responses.PATIENCE_S:
                    return answer
            except NoAnswer as error:
                wait, why = responses.pause(failures), str(error)
                if error.lasting or time.monotonic() - begun + wait > responses.PATIENCE_UNANSWERED_S:
                    raise
            self._remark(f"{why}; asking again in {wait:g} s")
            self._pause(wait)

    def _ask(self, method: str, session_id: str) -> Answer:
        return self._api.ask(method, f"{SESSIONS}/{session_id}", self._token, seconds=STATUS_S)
