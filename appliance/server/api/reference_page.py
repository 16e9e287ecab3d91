"""Renders the OpenAPI document as a self-contained HTML page, without scripts, that works without a network."""

from __future__ import annotations

import base64
import hashlib
import json
from html import escape
from typing import TYPE_CHECKING, Any

from litestar.openapi.plugins import OpenAPIRenderPlugin

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from litestar import Request
    from litestar.types import Scope

Node = dict[str, Any]

STYLE = """
:root { color-scheme: light dark; }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; }
h2 { margin-top: 3rem; border-top: 1px solid; padding-top: 1rem; }
h2, td:first-child, code, pre { font-family: ui-monospace, monospace; }
h2 { font-size: 1.2rem; }
pre { overflow-x: auto; border: 1px solid; padding: .5rem; }
table { border-collapse: collapse; width: 100%; }
th, td { text-align: left; vertical-align: top; padding: .2rem .8rem .2rem 0; border-bottom: 1px solid; }
td + td + td { overflow-wrap: anywhere; }
"""
POLICY = f"default-src 'none'; style-src 'sha256-{base64.b64encode(hashlib.sha256(STYLE.encode()).digest()).decode()}'"


class ReferencePlugin(OpenAPIRenderPlugin):
    """Serves the page at /schema. Unlike the document itself, it counts against its source."""

    def __init__(self, count_source: Callable[[Scope], None]) -> None:
        super().__init__(path="/")
        self._count_source = count_source
        self._page: bytes | None = None

    def render(self, request: Request[Any, Any, Any], openapi_schema: Node) -> bytes:
        self._count_source(request.scope)
        if self._page is None:
            self._page = page(openapi_schema).encode()
        return self._page


def page(document: Node) -> str:
    title = f"{escape(document['info']['title'])} {escape(document['info']['version'])}"
    operations = [
        (f"{method.upper()} {path}", operation)
        for path, item in document["paths"].items()
        for method, operation in item.items()
    ]
    return "\n".join(
        [
            '<!doctype html><html lang="en"><head><meta charset="utf-8">',
            f'<meta http-equiv="Content-Security-Policy" content="{escape(POLICY)}">',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            f"<title>{title}</title><style>{STYLE}</style></head><body>",
            f"<h1>{title}</h1>",
            *(f"<p>{escape(paragraph)}</p>" for paragraph in document["info"]["description"].split("\n\n")),
            "<ul>",
            *(f'<li><a href="#{_anchor(name)}">{escape(name)}</a></li>' for name, _ in operations),
            "</ul>",
            *(part for name, operation in operations for part in _operation(document, name, operation)),
            "</body></html>",
        ]
    )


def _operation(document: Node, name: str, operation: Node) -> Iterator[str]:
    yield f'<h2 id="{_anchor(name)}">{escape(name)}</h2>'
    yield f"<p>{escape(operation.get('description') or operation['summary'])}</p>"
    yield f"<p>{'With a bearer token.' if operation.get('security') else 'Public.'}</p>"
    if parameters := operation.get("parameters"):
        yield "<h3>Parameters</h3>"
        yield from _table(
            (p["name"], p["schema"] | {"description": p["description"]}, p["required"]) for p in parameters
        )
    if body := operation.get("requestBody"):
        yield "<h3>Body</h3>"
        yield from _content(document, body)
    for status, response in operation["responses"].items():
        yield f"<h3>{status}: {escape(response['description'])}</h3>"
        for header, told in (response.get("headers") or {}).items():
            yield f"<p>Header <code>{escape(header)}</code>: {escape(told['description'])}</p>"
        yield from _content(document, response)


def _content(document: Node, holder: Node) -> Iterator[str]:
    media = holder["content"]["application/json"]
    yield from _table(_fields(document, media["schema"]))
    for example in (media.get("examples") or {}).values():
        yield f"<pre>{escape(json.dumps(example['value'], indent=2))}</pre>"


def _fields(document: Node, schema: Node, before: str = "") -> Iterator[tuple[str, Node, bool]]:
    """Yields (name, schema, whether it is always present); fields of inner objects with their full path."""
    schema = _resolved(document, schema)
    if schema.get("type") == "array":
        yield from _fields(document, schema["items"], f"{before}[].")
        return
    for name, field in schema.get("properties", {}).items():
        found = _resolved(document, field)
        yield f"{before}{name}", found, name in schema.get("required", ())
        if found.get("type") == "array" and "properties" in _resolved(document, found["items"]):
            yield from _fields(document, found, f"{before}{name}")


def _resolved(document: Node, schema: Mapping[str, Any]) -> Node:
    """Follows $ref, allOf and oneOf, and keeps the keys beside them."""
    found = {key: value for key, value in schema.items() if key not in ("$ref", "allOf", "oneOf")}
    inner = schema.get("allOf") or schema.get("oneOf") or []
    if "$ref" in schema:
        inner = [document["components"]["schemas"][schema["$ref"].rpartition("/")[2]]]
    for part in inner:
        found = _resolved(document, part) | found
    return found


def _table(fields: Iterable[tuple[str, Node, bool]]) -> Iterator[str]:
    yield "<table><tr><th>field<th>type<th>meaning<th>example</tr>"
    for name, schema, required in fields:
        types = schema.get("type", "")
        kind = " or ".join(types) if isinstance(types, list) else types
        cells = (name, kind, "; ".join(_meaning(schema, required=required)), _text(schema.get("examples", [""])[0]))
        yield "<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in cells) + "</tr>"
    yield "</table>"


def _meaning(schema: Node, *, required: bool) -> Iterator[str]:
    if "description" in schema:
        yield schema["description"]
    for key, word in (("minimum", "at least"), ("maximum", "at most"), ("pattern", "form"), ("default", "default")):
        if key in schema:
            yield f"{word}: {_text(schema[key])}"
    if "enum" in schema:
        yield "one of " + ", ".join(schema["enum"])
    if not required:
        yield "may be absent"


def _text(value: object) -> str:
    """Formats a value; whole numbers without a fraction, even if they are floats."""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return value if isinstance(value, str) else json.dumps(value)


def _anchor(name: str) -> str:
    return "".join(letter if letter.isalnum() else "-" for letter in name).strip("-").lower()
