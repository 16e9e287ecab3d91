"""Turns an OpenAPI document into what its reference page shows: operations with their tables of fields."""

from __future__ import annotations

import json
import shlex
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

Json = dict[str, Any]

CONSTRAINTS = {"minimum": "at least", "maximum": "at most", "pattern": "form", "default": "default"}


@dataclass(frozen=True, slots=True)
class Field:
    """Holds a row of a table: a parameter, or a field of a body with the path to it."""

    name: str
    type: str
    meaning: str
    example: str

    @classmethod
    def of(cls, name: str, schema: Json, *, required: bool) -> Self:
        types = schema.get("type", "")
        return cls(
            name=name,
            type=" or ".join(types) if isinstance(types, list) else types,
            meaning="; ".join(_meaning(schema, required=required)),
            example=_text(schema.get("examples", [""])[0]),
        )


@dataclass(frozen=True, slots=True)
class Body:
    """Holds the JSON body of a request or a response."""

    fields: list[Field]
    examples: list[str]


@dataclass(frozen=True, slots=True)
class Response:
    """Holds a response of an operation. `headers`: pairs of name and description."""

    status: str
    description: str
    headers: list[tuple[str, str]]
    body: Body


@dataclass(frozen=True, slots=True)
class Operation:
    """Holds a method of a path, such as POST /v1/sessions."""

    name: str
    anchor: str
    description: str
    call: str  # for a shell
    authenticated: bool
    parameters: list[Field]
    body: Body | None
    responses: list[Response]


@dataclass(frozen=True, slots=True)
class Reference:
    """Holds everything that the page shows. `description`: paragraphs."""

    title: str
    description: list[str]
    operations: list[Operation]

    @classmethod
    def of(cls, document: Mapping[str, Any]) -> Self:
        info, schemas = document["info"], _Schemas(document.get("components", {}).get("schemas", {}))
        return cls(
            title=f"{info['title']} {info['version']}",
            description=info["description"].split("\n\n"),
            operations=[
                _operation(schemas, f"{method.upper()} {path}", operation)
                for path, item in document["paths"].items()
                for method, operation in item.items()
            ],
        )


@dataclass(frozen=True, slots=True)
class _Schemas:
    """Resolves references to the named schemas of a document."""

    by_name: Mapping[str, Json]

    def resolve(self, schema: Json) -> Json:
        """Follows $ref, allOf and oneOf, and keeps the keys beside them."""
        resolved = {key: value for key, value in schema.items() if key not in ("$ref", "allOf", "oneOf")}
        inner, choices = schema.get("allOf", []), schema.get("oneOf", [])
        if len(choices) > 1:
            resolved["type"] = [_kind(self.resolve(each)) for each in choices]
        else:
            inner = [*inner, *choices]
        if "$ref" in schema:
            inner = [self.by_name[schema["$ref"].rpartition("/")[2]]]
        for part in inner:
            resolved = self.resolve(part) | resolved
        return resolved

    def fields(self, schema: Json, before: str = "") -> Iterator[Field]:
        """Yields the fields of an object or of an array's items; those of inner objects with their full path."""
        schema = self.resolve(schema)
        if schema.get("type") == "array":
            yield from self.fields(schema["items"], f"{before}[].")
            return
        for name, described in schema.get("properties", {}).items():
            field = self.resolve(described)
            yield Field.of(f"{before}{name}", field, required=name in schema.get("required", ()))
            if field.get("type") == "array" and "properties" in self.resolve(field["items"]):
                yield from self.fields(field, f"{before}{name}")


def _operation(schemas: _Schemas, name: str, operation: Json) -> Operation:
    parameters = [
        Field.of(each["name"], each["schema"] | {"description": each["description"]}, required=each["required"])
        for each in operation.get("parameters") or ()
    ]
    body = _body(schemas, operation["requestBody"]) if operation.get("requestBody") else None
    return Operation(
        name=name,
        anchor="".join(letter if letter.isalnum() else "-" for letter in name).strip("-").lower(),
        description=operation.get("description") or operation["summary"],
        call=_call(name, operation, body),
        authenticated=bool(operation.get("security")),
        parameters=parameters,
        body=body,
        responses=[_response(schemas, status, each) for status, each in operation["responses"].items()],
    )


def _call(name: str, operation: Json, body: Body | None) -> str:
    """Returns the operation as a curl command; $API is where the API is, $TOKEN a token."""
    method, _, path = name.partition(" ")
    given = {each["name"]: _text(each["schema"].get("examples", [""])[0]) for each in operation.get("parameters") or ()}
    parts = ["curl -sS"]
    if method != ("GET" if body is None else "POST"):
        parts.append(f"-X {method}")
    if operation.get("security"):
        parts.append('-H "Authorization: Bearer $TOKEN"')
    if body is not None and body.examples:
        parts.append(f"-d {shlex.quote(json.dumps(json.loads(body.examples[0])))}")
    for parameter, value in given.items():
        path = path.replace(f"{{{parameter}}}", value)
    return " ".join([*parts, f'"$API{path}"'])


def _response(schemas: _Schemas, status: str, response: Json) -> Response:
    headers = [(name, header["description"]) for name, header in (response.get("headers") or {}).items()]
    return Response(status, response["description"], headers, _body(schemas, response))


def _body(schemas: _Schemas, holder: Json) -> Body:
    media = holder["content"]["application/json"]
    examples = [json.dumps(each["value"], indent=2) for each in (media.get("examples") or {}).values()]
    return Body(list(schemas.fields(media["schema"])), examples)


def _kind(schema: Json) -> str:
    return _text(schema["const"]) if "const" in schema else str(schema["type"])


def _meaning(schema: Json, *, required: bool) -> Iterator[str]:
    if "description" in schema:
        yield schema["description"]
    yield from (f"{words}: {_text(schema[key])}" for key, words in CONSTRAINTS.items() if key in schema)
    if "enum" in schema:
        yield "one of " + ", ".join(schema["enum"])
    if not required:
        yield "may be absent"


def _text(value: object) -> str:
    """Formats a value; whole numbers without a fraction, even if they are floats."""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return value if isinstance(value, str) else json.dumps(value)
