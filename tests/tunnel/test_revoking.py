"""What an operator takes away is gone when the command returns, however often the server was asked just before."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.support.tunnel.appliance_process import Answer, Appliance


def answers(appliance: Appliance, session_id: str, token: str) -> list[Answer]:
    """To every call that takes a token."""
    return [
        appliance.api("GET", f"/v1/sessions/{session_id}", token=token),
        appliance.api("GET", "/v1/sessions", token=token),
        appliance.api("GET", "/v1/usage", token=token),
        appliance.api("POST", "/v1/sessions", {"region": "test"}, token),
        appliance.api("DELETE", f"/v1/sessions/{session_id}", token=token),
    ]


def test_a_revoked_token_is_refused_at_once(appliance: Appliance) -> None:
    """It answers 401 when the command returns; the account's other token and its session go on."""
    token, other = appliance.token(), appliance.token()
    session = appliance.open(token)
    made = json.loads(appliance.admin("token", "list", "--json"))["tokens"]
    for _ in range(3):
        appliance.session(session["id"], token)
        appliance.session(session["id"], other)
    appliance.admin("token", "revoke", made[0]["id"])
    assert [each.status for each in answers(appliance, session["id"], token)] == [401] * 5
    assert "terminated_at" not in appliance.session(session["id"], other)


@pytest.mark.parametrize("command", [("set", "alice", "--disabled"), ("delete", "alice")], ids=" ".join)
def test_a_disabled_or_deleted_account_is_refused_at_once(appliance: Appliance, command: tuple[str, ...]) -> None:
    """Its token answers 401 when the command returns, and its peer is gone."""
    token = appliance.token()
    session = appliance.open(token)
    appliance.session(session["id"], token)
    appliance.admin("account", *command)
    assert [each.status for each in answers(appliance, session["id"], token)] == [401] * 5
    assert appliance.peers() == set()


def test_a_new_token_works_at_once(appliance: Appliance) -> None:
    """A token works when the command returns."""
    session = appliance.open(appliance.token())
    for _ in range(3):
        appliance.session(session["id"], appliance.token())
