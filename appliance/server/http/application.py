"""Applies to every route what HTTP says of all: HEAD is answered as GET, and a target may be in absolute form."""

from __future__ import annotations

import re
from functools import partial
from typing import TYPE_CHECKING, cast
from urllib.parse import unquote

from litestar import HttpMethod, Litestar
from litestar.enums import ScopeType

if TYPE_CHECKING:
    from litestar.types import HTTPScope, Message, Receive, Scope, Send

# RFC 9112, section 3.2.2: a server must accept it, also where no proxy is meant.
_ORIGIN = re.compile(rb"https?://[^/?#]*", re.IGNORECASE)


class Application(Litestar):
    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # type: ignore[override]  # all kinds of scope
        if scope["type"] != ScopeType.HTTP:
            await super().__call__(scope, receive, send)
            return
        _use_origin_form(scope)
        if scope["method"] == HttpMethod.HEAD:
            await self._head(scope, receive, send)
        elif scope["method"] == HttpMethod.OPTIONS:
            await super().__call__(scope, receive, partial(_send_options, send))
        else:
            await super().__call__(scope, receive, send)

    async def _head(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers as GET would, with the same headers and without the body (RFC 9110, section 9.3.2)."""
        get = cast("Scope", {**scope, "method": HttpMethod.GET})

        async def send_head(message: Message) -> None:
            await send({**message, "body": b""} if message["type"] == "http.response.body" else message)

        try:
            await super().__call__(get, receive, send_head)
        finally:
            if "path_template" in get:  # Litestar notes it, and the metrics read it
                scope["path_template"] = get["path_template"]


async def _send_options(send: Send, message: Message) -> None:
    """Sends an answer to OPTIONS, of which Litestar knows GET alone."""
    if message["type"] == "http.response.start":
        for index, (name, value) in enumerate(headers := list(message["headers"])):
            if name == b"allow":
                headers[index] = name, allow(value.decode("ascii")).encode()
        message["headers"] = headers
    await send(message)


def allow(methods: str) -> str:
    """Returns an Allow header's value with HEAD where there is GET."""
    listed = {each.strip() for each in methods.split(",")}
    return ", ".join(sorted(listed | ({HttpMethod.HEAD.value} if HttpMethod.GET.value in listed else set())))


def _use_origin_form(scope: HTTPScope) -> None:
    """Replaces a target in absolute form by the path in it. Any host is ours: no request is forwarded."""
    raw = scope["raw_path"]
    if raw.startswith(b"/"):
        return
    origin = _ORIGIN.match(raw)
    if origin is not None:
        scope["raw_path"] = raw[origin.end() :] or b"/"
        scope["path"] = unquote(scope["raw_path"].decode("ascii"))
