"""Adds and removes an account's devices, and retries while the exit is unavailable for a while."""

from __future__ import annotations

import time
from contextlib import suppress
from typing import TYPE_CHECKING

from appliance.client.api import responses
from appliance.client.api.http import NoAnswer
from appliance.client.api.responses import AddedDevice, Again, Refusal, UnusableDevice
from appliance.client.api.sessions import STATUS_S, Stopped
from appliance.domain.errors import HostError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from appliance.client.api.http import Answer, Api

DEVICES = "/v1/devices"
CONFLICT = 409


class DevicesClient:
    """Adds and removes an account's devices over the API. `pause`: waits the given seconds; `remark`: is told why."""

    def __init__(self, api: Api, token: str, pause: Callable[[float], None], remark: Callable[[str], None]) -> None:
        self._api = api
        self._token = token
        self._pause = pause
        self._remark = remark

    def add(self, body: Mapping[str, object]) -> AddedDevice:
        """Adds a device; retries while the exit is busy or unavailable, for a limited time.

        If an answer was lost, or Ctrl-C came before it, the device that may have been made is removed: nobody has its
        file. Raises Stopped if the exit refuses, or that time is over; HostError if an answer cannot be used, after
        removing the device.
        """
        begun, failures, lost = time.monotonic(), 0, False
        while True:
            failures += 1
            try:
                answer = self._api.ask("POST", DEVICES, self._token, body)
                if lost and answer.status == CONFLICT and self._remove_own(body["client_public_key"]):
                    answer = self._api.ask("POST", DEVICES, self._token, body)
                added = self._interpreted(answer, failures)
            except NoAnswer as error:
                if error.lasting:
                    raise
                added = Again(responses.pause(failures), str(error), responses.PATIENCE_UNANSWERED_S)
                lost = True
            except KeyboardInterrupt:
                with suppress(HostError):
                    self._remove_own(body["client_public_key"])
                raise
            if isinstance(added, AddedDevice):
                return added
            if time.monotonic() - begun + added.after_s > added.patience_s:
                raise Stopped(f"{added.why}; try again {added.later}", responses.FAILED)
            self._remark(f"{added.why}; asking again in {added.after_s:g} s")
            self._pause(added.after_s)

    def remove(self, device_id: str) -> None:
        """Raises HostError if the device could not be removed."""
        self._api.ask("DELETE", f"{DEVICES}/{device_id}", self._token, seconds=STATUS_S).require(200)

    def _interpreted(self, answer: Answer, failures: int) -> AddedDevice | Again:
        try:
            added = responses.on_adding(answer, failures)
        except UnusableDevice as error:
            with suppress(HostError):  # what failed is what the user needs to know
                self.remove(error.device_id)
            raise
        if isinstance(added, Refusal):
            raise Stopped(added.why, added.exit_status)
        return added

    def _remove_own(self, public_key: object) -> bool:
        """Removes the account's device with this key, which no other client has; returns whether there was one."""
        listed = self._api.ask("GET", f"{DEVICES}?limit=200", self._token, seconds=STATUS_S)
        for each in listed.require(200, {"devices": list})["devices"]:
            if isinstance(each, dict) and each.get("public_key") == public_key:
                device_id = each.get("id")
                if isinstance(device_id, str) and responses.DEVICE_FORMS["id"].fullmatch(device_id):
                    self.remove(device_id)
                    return True
        return False
