"""The OpenAPI document is true: every path, method and status there is, and real answers fit its schemas."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from appliance import __version__
from tests.support.api.answers import code_of
from tests.support.api.device_owner import Owner, key_of
from tests.support.api.exit_under_test import ExitUnderTest, new_key, on_exit

if TYPE_CHECKING:
    from collections.abc import Iterator

    import httpx

Document = dict[str, Any]

OPERATIONS = {
    ("post", "/v1/sessions"): {"201", "400", "401", "402", "403", "409", "413", "429", "503"},
    ("get", "/v1/sessions"): {"200", "400", "401", "429", "503"},
    ("get", "/v1/sessions/{session_id}"): {"200", "401", "404", "429", "503"},
    ("delete", "/v1/sessions/{session_id}"): {"200", "401", "404", "429", "503"},
    ("post", "/v1/devices"): {"201", "400", "401", "403", "409", "413", "429", "503"},
    ("get", "/v1/devices"): {"200", "400", "401", "429", "503"},
    ("get", "/v1/devices/{device_id}"): {"200", "401", "404", "429", "503"},
    ("patch", "/v1/devices/{device_id}"): {"200", "400", "401", "404", "409", "413", "429", "503"},
    ("delete", "/v1/devices/{device_id}"): {"200", "401", "404", "429", "503"},
    ("post", "/v1/devices/{device_id}/rotate"): {"200", "400", "401", "404", "409", "413", "429", "503"},
    ("get", "/v1/usage"): {"200", "401", "429", "503"},
    ("get", "/v1/regions"): {"200", "429"},
    ("get", "/healthz"): {"200"},
    ("get", "/readyz"): {"200", "503"},
}
IDS = {
    *("createSession", "listSessions", "getSession", "deleteSession"),
    *("createDevice", "listDevices", "getDevice", "patchDevice", "deleteDevice", "rotateDevice"),
    *("getUsage", "listRegions", "getHealth", "getReadiness"),
}
# Of requests that no operation is asked for.
ELSEWHERE = {"not_found", "method_not_allowed", "request_timeout", "headers_too_large", "not_implemented"}
ELSEWHERE |= {"internal_error"}
RETRY = {"429", "503"}
TYPES = {"string": str, "integer": int, "boolean": bool, "array": list, "object": dict, "null": type(None)}


async def document(exit_: ExitUnderTest) -> Document:
    answer = await exit_.http.get("/schema/openapi.json")
    assert answer.status_code == 200
    found: Document = answer.json()
    return found


def resolve(found: Document, schema: Document) -> Document:
    while "$ref" in schema or "allOf" in schema:
        if "allOf" in schema:
            (schema,) = schema["allOf"]
            continue
        node: Any = found
        for step in schema["$ref"].removeprefix("#/").split("/"):
            node = node[step]
        schema = node
    return schema


def faults(found: Document, schema: Document, value: object, where: str = "$") -> Iterator[str]:
    """What of `value` does not fit `schema`; fields that the schema does not name are faults too."""
    schema = resolve(found, schema)
    if value not in schema.get("enum", [schema.get("const", value)]):
        yield f"{where}: {value!r} is none of those"
    if "oneOf" in schema:
        if all(any(faults(found, choice, value, where)) for choice in schema["oneOf"]):
            yield f"{where}: none of the choices"
        return
    types = schema["type"] if isinstance(schema["type"], list) else [schema["type"]]
    if not any(type(value) is TYPES[name] for name in types):
        yield f"{where}: {value!r} is no {types}"
    if isinstance(value, dict):
        yield from (f"{where}: no {name}" for name in schema.get("required", ()) if name not in value)
        for name, inner in value.items():
            if name in schema["properties"]:
                yield from faults(found, schema["properties"][name], inner, f"{where}.{name}")
            else:
                yield f"{where}: {name} is not in the document"
    if isinstance(value, list):
        for inner in value:
            yield from faults(found, schema["items"], inner, f"{where}[]")


def check(found: Document, answer: httpx.Response, path: str) -> None:
    """The answer's status is documented for the path, and its body fits what is documented."""
    operation = found["paths"][path][answer.request.method.lower()]
    content = operation["responses"][str(answer.status_code)]["content"]
    assert list(faults(found, content["application/json"]["schema"], answer.json())) == []


@on_exit()
async def test_the_document_lists_exactly_the_operations(exit_: ExitUnderTest) -> None:
    """A 3.1 document that lists exactly the operations there are, with their statuses, each id once."""
    found = await document(exit_)
    assert found["openapi"].startswith("3.1")
    assert found["info"].keys() >= {"title", "version"}
    listed = {(m, path): o for path, item in found["paths"].items() for m, o in item.items()}
    assert {key: set(o["responses"]) for key, o in listed.items()} == OPERATIONS
    assert sorted(o["operationId"] for o in listed.values()) == sorted(IDS)
    assert all(o["summary"] and o["description"] for o in listed.values())
    assert found["info"]["version"] == __version__
    tags = {tag["name"] for tag in found["tags"] if tag["description"]}
    assert {tag for o in listed.values() for tag in o["tags"]} == tags
    assert {len(o["tags"]) for o in listed.values()} == {1}


@on_exit()
async def test_every_code_has_an_example(exit_: ExitUnderTest) -> None:
    """Each code that an operation may answer with stands there with its message; the others are named in words."""
    found = await document(exit_)
    answers = [r for item in found["paths"].values() for o in item.values() for r in o["responses"].values()]
    bodies = [
        example["value"] for r in answers for example in r["content"]["application/json"].get("examples", {}).values()
    ]
    shown = {body["code"] for body in bodies}
    assert shown | ELSEWHERE == set(found["components"]["schemas"]["ErrorCode"]["enum"])
    assert not shown & ELSEWHERE
    assert all(code in found["info"]["description"] for code in ELSEWHERE)
    assert all(body["code"] == code_of(503 if "gone" in body["error"] else 400, body["error"]) for body in bodies)


@on_exit()
async def test_values_have_the_formats_that_generators_know(exit_: ExitUnderTest) -> None:
    """Instants are date-time, integers are of 64 bits with whole bounds; no choice is of one."""
    found = await document(exit_)

    def walk(node: object) -> Iterator[Document]:
        if isinstance(node, dict):
            yield node
        for inner in node.values() if isinstance(node, dict) else node if isinstance(node, list) else ():
            yield from walk(inner)

    fields = [
        each for schema in found["components"]["schemas"].values() for each in schema.get("properties", {}).items()
    ]
    instants = [field for name, field in fields if name.endswith("_at")]
    assert len(instants) > 8
    assert {field["format"] for field in instants} == {"date-time"}
    for schema in walk(found):
        if schema.get("type") == "integer":
            assert schema["format"] == "int64"
            assert {type(schema[key]) for key in ("minimum", "maximum") if key in schema} <= {int}
        for key in ("oneOf", "allOf", "anyOf"):
            assert len(schema.get(key, [1, 2])) > 1


@on_exit()
async def test_every_field_is_explained(exit_: ExitUnderTest) -> None:
    """Fields and parameters have a meaning and an example that fits; errors have an example, and their headers."""
    found = await document(exit_)
    operations = [(m, path, o) for path, item in found["paths"].items() for m, o in item.items()]
    fields = [
        *(f for name, schema in found["components"]["schemas"].items() for f in schema.get("properties", {}).items()),
        *((p["name"], p["schema"] | p) for _, _, o in operations for p in o.get("parameters", ())),
    ]
    assert len(fields) > 40
    for name, field in fields:
        inner = field.get("items", {})
        if "$ref" in inner or "const" in field or "enum" in field:
            continue  # said of each of its fields; said by its only value
        assert field.get("description"), name
        for example in field["examples"]:
            assert list(faults(found, field, example)) == [], name
            assert not isinstance(example, str) or re.search(field.get("pattern", ""), example), name
    for method, path, operation in operations:
        for status, response in operation["responses"].items():
            media = response["content"]["application/json"]
            for example in media.get("examples", {}).values():
                assert list(faults(found, media["schema"], example["value"])) == [], (method, path, status)
            assert ("examples" in media) == (int(status) >= 400), (method, path, status)
            headers = set(response.get("headers") or {}) - {"Session-Id"}
            assert ("Session-Id" in (response.get("headers") or {})) == ("text/plain" in response["content"])
            assert ("text/plain" in response["content"]) == ((method, path, status) == ("post", "/v1/sessions", "201"))
            assert headers == (
                {"Retry-After"} if status in RETRY else {"WWW-Authenticate"} if status == "401" else set()
            )


@on_exit()
async def test_every_reference_leads_somewhere(exit_: ExitUnderTest) -> None:
    """Every reference in the document leads somewhere."""
    found = await document(exit_)

    def references(node: object) -> Iterator[str]:
        if isinstance(node, dict):
            yield from ([node["$ref"]] if "$ref" in node else [])
            for inner in node.values():
                yield from references(inner)
        elif isinstance(node, list):
            for inner in node:
                yield from references(inner)

    for reference in references(found):
        assert resolve(found, {"$ref": reference})


@on_exit()
async def test_the_documented_request_is_the_contracts(exit_: ExitUnderTest) -> None:
    """The body's fields, the list's parameters and who needs a token are those of the contract."""
    found = await document(exit_)
    post, listing = found["paths"]["/v1/sessions"]["post"], found["paths"]["/v1/sessions"]["get"]
    reference = post["requestBody"]["content"]["application/json"]["schema"]
    assert reference == {"$ref": "#/components/schemas/SessionRequest"}
    schema = resolve(found, reference)
    assert schema["properties"].keys() == {"region", "client_public_key", "ipv6", "dns"}
    dns = schema["properties"]["dns"]
    for value, fits in ((None, 1), (False, 1), (["9.9.9.9"], 1), (True, 0), ("9.9.9.9", 0), ([9], 0)):
        assert bool(list(faults(found, dns, value))) != fits, value
    assert schema["required"] == ["region"]
    assert re.fullmatch(schema["properties"]["region"]["pattern"], "fsn")
    assert {p["name"] for p in listing["parameters"]} == {"live", "limit", "before"}
    bodies = [each for item in found["paths"].values() for each in item.values() if "requestBody" in each]
    assert [each["operationId"] for each in bodies if not each["requestBody"]["required"]] == ["rotateDevice"]
    for path, item in found["paths"].items():
        for operation in item.values():
            assert operation.get("security") == (
                [{"bearer": []}] if path.startswith(("/v1/sessions", "/v1/devices", "/v1/usage")) else None
            )
    assert found["components"]["securitySchemes"]["bearer"] == {"type": "http", "scheme": "bearer"}


async def documented_devices(exit_: ExitUnderTest, found: Document, ada: Owner) -> None:
    every, one = "/v1/devices", "/v1/devices/{device_id}"
    key, _ = new_key()
    made = await ada.post(client_public_key=key)
    check(found, made, every)
    for fields in ({}, {"region": "nowhere"}, {"name": ""}, {"name": "b", "client_public_key": key}):
        check(found, await ada.post(**fields), every)
    device_id = made.json()["id"]
    await exit_.shake(key_of(exit_, device_id))
    exit_.parts.node.public_ip = "192.0.2.2"
    shown = await ada.ask("GET", f"/v1/devices/{device_id}")
    assert shown.json().keys() >= {"stale", "session_id", "last_handshake_at"}
    check(found, shown, one)
    check(found, await ada.client.delete(shown.json()["session_id"]), "/v1/sessions/{session_id}")
    for change in ({"paused": True}, {"name": 1}, {"name": "b"}):
        check(found, await ada.patch(device_id, **change), one)
    check(found, await ada.rotate(device_id), f"{one}/rotate")
    check(found, await ada.rotate(device_id, client_public_key="x"), f"{one}/rotate")
    for listed in (await ada.ask("GET", every), await ada.ask("GET", every, before="x")):
        check(found, listed, every)
    for removed in (await ada.remove(device_id), await ada.remove(device_id)):
        check(found, removed, one)


@on_exit("[tiers.paid]\nmax_live_sessions = 2\nmax_devices = 1\n")
async def test_real_answers_are_as_documented(exit_: ExitUnderTest) -> None:
    """Real answers, good and bad, are as documented."""
    found = await document(exit_)
    ada = await exit_.client()
    opened = await ada.post()
    check(found, opened, "/v1/sessions")
    one = "/v1/sessions/{session_id}"
    session_id = opened.json()["id"]
    check(found, await ada.status_answer(session_id), one)
    exit_.tunnel.add_traffic(exit_.key_of(session_id), rx=1, handshake_ns=exit_.clock.wall_ms * 10**6)
    check(found, await ada.delete(session_id), one)
    check(found, await ada.status_answer(session_id), one)
    check(found, await ada.delete("ses_1"), one)
    check(found, await ada.status_answer("ses_1"), one)
    check(found, await ada.get("/v1/sessions"), "/v1/sessions")
    check(found, await ada.get("/v1/sessions", limit="x"), "/v1/sessions")
    await documented_devices(exit_, found, Owner(ada))
    for body in ({}, {"region": "nowhere"}, {"region": "fsn"}, {"region": "fsn"}, {"region": "fsn"}):
        check(found, await ada.post(body), "/v1/sessions")
    check(found, await exit_.http.post("/v1/sessions", content=b" " * 100_000, headers=ada.headers), "/v1/sessions")
    for path in ("/v1/sessions", "/v1/regions", "/healthz", "/readyz"):
        check(found, await exit_.http.get(path), path)
    exit_.tunnel.vanish()
    exit_.clock.advance(1)
    check(found, await exit_.http.get("/readyz"), "/readyz")
