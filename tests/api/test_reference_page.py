"""The reference page: all that the document says, of itself alone."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import html
import os
import re
import shutil
from html.parser import HTMLParser
from typing import TYPE_CHECKING, cast

import pytest

from appliance.server.console.pages import reference_page
from tests.support.api.answers import refused
from tests.support.api.exit_under_test import UNHURRIED, ExitUnderTest, on_exit
from tests.support.api.served import served

if TYPE_CHECKING:
    from collections.abc import Sequence

    from litestar.types import ASGIApp

CHROMIUM = shutil.which("chromium")
LOADING = {"src", "srcset", "data", "action", "formaction", "poster", "background", "ping"}
VOID = {"meta"}


class Page(HTMLParser):
    """What stands in a page: its text, its elements with their attributes, and its style."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.style = ""
        self._open: list[str] = []
        self.feed(text)
        self.close()
        assert self._open == [], "every element is closed"

    def handle_starttag(self, tag: str, attrs: Sequence[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self._open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag not in VOID:
            assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self._open[-1:] == ["style"]:
            self.style += data
        else:
            self.words.append(data)


@on_exit()
async def test_all_of_the_document(exit_: ExitUnderTest) -> None:
    """Every operation, parameter, field and status is on it, with a link to each operation that leads there."""
    found = (await exit_.http.get("/schema/openapi.json")).json()
    answer = await exit_.http.get("/schema")
    assert answer.status_code == 200
    assert answer.headers["content-type"].startswith("text/html")
    shown = Page(answer.text)
    text = " ".join(shown.words)
    for path, item in found["paths"].items():
        for method, operation in item.items():
            assert f"{method.upper()} {path}" in shown.words
            for status, response in operation["responses"].items():
                assert f"{status}: {response['description']}" in shown.words
            for parameter in operation.get("parameters", ()):
                assert parameter["name"] in shown.words
    fields = {name for schema in found["components"]["schemas"].values() for name in schema.get("properties", ())}
    assert fields <= set(re.findall(r"\w+", text))
    ids = {attributes["id"] for _, attributes in shown.elements if "id" in attributes}
    links = [attributes["href"] for tag, attributes in shown.elements if tag == "a"]
    assert {f"#{each}" for each in ids} == set(links)
    assert len(links) == len(set(links)) == sum(len(item) for item in found["paths"].values())


@on_exit()
async def test_the_page_loads_nothing(exit_: ExitUnderTest) -> None:
    """It has no script, loads nothing, and its policy allows nothing but its own style."""
    shown = Page((await exit_.http.get("/schema")).text)
    assert {tag for tag, _ in shown.elements} & {
        "script",
        "link",
        "img",
        "iframe",
        "object",
        "embed",
        "base",
        "form",
    } == set()
    for _, attributes in shown.elements:
        assert not attributes.keys() & LOADING
        assert not [name for name in attributes if name.startswith("on")]
        assert (attributes.get("href") or "#").startswith("#")
    assert "url(" not in shown.style
    assert "@import" not in shown.style
    digest = base64.b64encode(hashlib.sha256(shown.style.encode()).digest()).decode()
    (policy,) = (a["content"] for _, a in shown.elements if a.get("http-equiv") == "Content-Security-Policy")
    assert policy == f"default-src 'none'; style-src 'sha256-{digest}'"


@on_exit("[api]\npublic_requests_per_minute = 6\npublic_burst = 2\n")
async def test_paths_that_people_try_lead_to_the_page(exit_: ExitUnderTest) -> None:
    """The API's own address in a browser, and /docs; they count as public calls."""
    for path in ("/", "/docs"):
        answer = await exit_.http.get(path)
        assert (answer.status_code, answer.headers["location"]) == (302, "/schema")
    refused(await exit_.http.get("/docs"), 429, "too many requests")
    assert not {"/", "/docs"} & (await exit_.http.get("/schema/openapi.json")).json()["paths"].keys()


@on_exit(UNHURRIED)
async def test_each_call_can_be_copied_into_a_shell(exit_: ExitUnderTest) -> None:
    """The page has one for every operation, and each is answered as a call that is made well."""
    ada = await exit_.client()
    shown = Page((await exit_.http.get("/schema")).text)
    calls = [words for words in shown.words if words.startswith("curl ")]
    operations = (await exit_.http.get("/schema/openapi.json")).json()["paths"]
    assert len(calls) == sum(len(item) for item in operations.values())
    async with served(app=cast("ASGIApp", exit_.app)) as server:
        environ = {"API": f"http://127.0.0.1:{server.port}", "TOKEN": ada.token, "PATH": os.environ["PATH"]}
        statuses = []
        for call in calls:
            shell = await asyncio.create_subprocess_shell(
                f"{call} -o /dev/null -w '%{{http_code}}'", env=environ, stdout=asyncio.subprocess.PIPE
            )
            statuses.append((await shell.communicate())[0].decode())
    # The examples' region, session and device are not this exit's.
    of_sessions, of_devices = ["200", "503", "404", "404"], ["200", "503", "404", "404", "404", "404"]
    assert statuses == [*of_sessions, *of_devices, "200", "200", "200", "200"]


@pytest.mark.skipif(CHROMIUM is None, reason="takes a browser")
@on_exit()
async def test_the_page_fits_a_telephone(exit_: ExitUnderTest) -> None:
    """At a width of 390 pixels nothing of it lies beside the screen, as a browser lays it out."""
    page = (await exit_.http.get("/schema")).text
    framed = html.escape(re.sub(r"<meta http-equiv.*?>", "", page))
    measure = "const d = document.querySelector('iframe').contentDocument.documentElement"
    text = (
        f'<body><iframe style="width: 390px; height: 800px; border: 0" srcdoc="{framed}"></iframe>'
        f"<script>onload = () => {{ {measure}; document.title = d.scrollWidth - d.clientWidth }}</script>"
    )
    file = exit_.path.with_name("page.html")
    file.write_text(text, encoding="utf-8")
    options = ("--headless", "--no-sandbox", "--disable-gpu", "--virtual-time-budget=5000", "--dump-dom")
    browser = await asyncio.create_subprocess_exec(
        str(CHROMIUM), *options, file.as_uri(), stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.DEVNULL
    )
    laid_out = (await browser.communicate())[0].decode()
    assert re.findall(r"<title>(-?[0-9]+)</title>", laid_out)[-1] == "0"


@on_exit("[api]\npublic_requests_per_minute = 6\npublic_burst = 1\n")
async def test_the_page_counts_against_its_source(exit_: ExitUnderTest) -> None:
    """It counts against its source, as all that is public; the document itself does not."""
    assert (await exit_.http.get("/schema")).status_code == 200
    refused(await exit_.http.get("/schema"), 429, "too many requests")
    assert (await exit_.http.get("/schema/openapi.json")).status_code == 200


def test_the_documents_text_is_no_markup() -> None:
    """Whatever the document says, it is no markup and no template."""
    evil = "<script>alert(1)</script>\"'&{{ 7 * 7 }}{% raw %}"
    field = {"type": "string", "description": evil, "examples": [evil], "pattern": evil}
    shown = reference_page(
        {
            "info": {"title": evil, "version": evil, "description": evil},
            "paths": {
                f"/{evil}": {
                    "get": {
                        "summary": evil,
                        "parameters": [{"name": evil, "schema": field, "description": evil, "required": True}],
                        "responses": {
                            "200": {
                                "description": evil,
                                "headers": {evil: {"description": evil}},
                                "content": {
                                    "application/json": {
                                        "schema": {"type": "object", "properties": {evil: field}},
                                        "examples": {evil: {"value": {evil: evil}}},
                                    }
                                },
                            }
                        },
                    }
                }
            },
        }
    )
    assert "<script" not in shown
    parsed = Page(shown)
    assert {tag for tag, _ in parsed.elements} & {"script"} == set()
    assert evil in parsed.words
