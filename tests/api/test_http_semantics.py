"""What HTTP says of every path: HEAD is GET without a body, and a target may be in absolute form."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, cast

import pytest

from tests.support.api.exit_under_test import UNHURRIED, ExitUnderTest, on_exit
from tests.support.api.served import Echo, served

if TYPE_CHECKING:
    from litestar.types import ASGIApp

PATHS = ["/v1/regions", "/v1/usage", "/v1/sessions", "/v1/sessions/{id}", "/v1/sessions/ses_1", "/healthz", "/readyz"]
PATHS += ["/schema", "/schema/openapi.json", "/nowhere", "/v1/sessions?limit=x"]


@pytest.mark.parametrize("path", PATHS)
@on_exit(UNHURRIED)
async def test_head_is_get_without_a_body(exit_: ExitUnderTest, path: str) -> None:
    """With a token and without: the same status and headers, no body, and counted as the route it is."""
    ada = await exit_.client()
    path = path.format(id=(await ada.open())["id"])
    for headers in (ada.headers, {}):
        get = await exit_.http.get(path, headers=headers)
        head = await exit_.http.head(path, headers=headers)
        assert (head.status_code, dict(head.headers), head.content) == (get.status_code, dict(get.headers), b"")
        assert get.content
    routes = {labels["route"] for labels in answers(exit_, "GET")}
    assert {labels["route"] for labels in answers(exit_, "HEAD")} <= routes


def answers(exit_: ExitUnderTest, method: str) -> list[dict[str, str]]:
    found = exit_.metrics.registry.collect()
    samples = [s for family in found for s in family.samples if s.name.endswith("request_seconds_count")]
    return [s.labels for s in samples if s.labels["method"] == method]


@on_exit()
async def test_head_over_a_connection(exit_: ExitUnderTest) -> None:
    """Nothing of a body is sent, so that the next answer on the connection is read as what it is."""
    async with served(app=cast("ASGIApp", exit_.app)) as server:
        client = await server.connect()
        for target, status in ((b"/healthz", b"200"), (b"/v1/usage", b"401"), (b"/nowhere", b"404")):
            client.send(b"HEAD " + target + b" HTTP/1.1\r\nHost: exit.test\r\n\r\n")
            head = await asyncio.wait_for(client.reader.readuntil(b"\r\n\r\n"), 60)
            assert head.split()[1] == status
            client.send(b"GET /healthz HTTP/1.1\r\nHost: exit.test\r\n\r\n")
            assert (await client.answer())[::2] == (200, b'{"status":"ok"}')


def test_a_refused_head_has_no_body() -> None:
    """HEAD whose own body cannot be read is refused as any other, without a body of the refusal."""

    async def story() -> None:
        async with served(app=cast("ASGIApp", Echo())) as server:
            client = await server.connect()
            client.send(b"HEAD /a HTTP/1.1\r\nHost: exit.test\r\nTransfer-Encoding: chunked\r\n\r\nnonsense\r\n")
            head, _, body = (await client.rest()).partition(b"\r\n\r\n")
            assert (head.split()[1], body) == (b"400", b"")

    asyncio.run(story())


ABSOLUTE = {
    b"http://exit.test/v1/regions": 200,
    b"HTTPS://exit.test:8443/v1/regions": 200,
    b"http://[2001:db8::1]:80/v1/regions": 200,
    b"http://other.example/v1/regions": 200,
    b"http://exit.test/v1/sessions?limit=5": 401,
    b"http://exit.test/nowhere": 404,
    b"http://exit.test/%76%31/regions": 200,
    b"http://exit.test/http://exit.test/v1/regions": 404,
    b"ftp://exit.test/v1/regions": 404,
    b"*": 404,
}


@on_exit(UNHURRIED)
async def test_a_target_in_absolute_form_is_read_as_its_path(exit_: ExitUnderTest) -> None:
    """RFC 9112, section 3.2.2: as clients send it that take the server for a proxy; any host is this one."""
    async with served(app=cast("ASGIApp", exit_.app)) as server:
        for target, status in ABSOLUTE.items():
            client = await server.connect()
            client.send(b"GET " + target + b" HTTP/1.1\r\nHost: exit.test\r\n\r\n")
            found, _, body = await client.answer()
            assert found == status, (target, body)
            assert found == 200 or json.loads(body)["code"] in ("missing_token", "not_found")
            await client.close()
