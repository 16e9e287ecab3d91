"""The watch on the host name that clients dial."""

from __future__ import annotations

import asyncio
import logging
import threading
from ipaddress import ip_address
from typing import TYPE_CHECKING

import pytest

from appliance.server import endpoint_watch
from appliance.server.endpoint_watch import EndpointWatch
from tests.support.api.exit_under_test import until

if TYPE_CHECKING:
    from collections.abc import Sequence

    from appliance.server.endpoint_watch import Address

FIRST, SECOND = [ip_address("198.51.100.7")], [ip_address("198.51.100.8"), ip_address("2001:db8::8")]


def test_each_change_is_taken_over_once(caplog: pytest.LogCaptureFixture) -> None:
    """What a name resolves to now is taken over when it is new; while it cannot be resolved the last one stays, and
    that is said once."""
    answers: list[list[Address] | OSError] = [FIRST, FIRST, OSError("no name"), OSError("no name"), FIRST, SECOND]
    taken: list[Sequence[Address]] = []

    def look_up(name: str) -> list[Address]:
        assert name == "exit.example"
        found = answers.pop(0) if len(answers) > 1 else answers[0]
        if isinstance(found, OSError):
            raise found
        return found

    async def story() -> None:
        stopping = asyncio.Event()
        running = asyncio.create_task(EndpointWatch("exit.example", taken.append, stopping, look_up, 0.001).run())
        await until(lambda: SECOND in taken, "the second answer is taken over")
        stopping.set()
        await running

    with caplog.at_level(logging.INFO):
        asyncio.run(story())
    assert taken == [FIRST, SECOND]
    assert [r.getMessage() for r in caplog.records if r.name == endpoint_watch.__name__] == [
        "wireguard.endpoint exit.example cannot be resolved here: no name"
    ]


def test_a_resolver_that_is_silent_holds_up_no_stop() -> None:
    """A stop comes first, and what the resolver says afterwards reaches nothing."""
    release = threading.Event()

    def look_up(_: str) -> list[Address]:
        release.wait(60)
        return FIRST

    async def story() -> None:
        stopping = asyncio.Event()
        running = asyncio.create_task(EndpointWatch("exit.example", pytest.fail, stopping, look_up).run())
        await asyncio.sleep(0)
        stopping.set()
        await asyncio.wait_for(running, 60)

    try:
        asyncio.run(story())
    finally:
        release.set()


def test_a_name_is_resolved_to_all_of_its_addresses() -> None:
    """Of both IP versions, as /etc/hosts or the host's resolver has them."""
    assert ip_address("127.0.0.1") in endpoint_watch.resolve("localhost")
    with pytest.raises(OSError, match=r"."):
        endpoint_watch.resolve("nowhere.invalid")
