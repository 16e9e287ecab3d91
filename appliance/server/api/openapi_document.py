"""Puts the generated OpenAPI document into the form that client generators read best. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from appliance.server.api.fields import INSTANT

if TYPE_CHECKING:
    from collections.abc import Mapping

Json = dict[str, Any]

_BOUNDS = ("minimum", "maximum")


def refined(document: Json, schemas: Mapping[str, Json]) -> Json:
    """Returns the document with instants as date-time, integers of 64 bits, and choices of one as what they are.

    `schemas`: further ones, by name.
    """
    components = document["components"]
    found: Json = _refined(document | {"components": components | {"schemas": {**components["schemas"], **schemas}}})
    return found


def _examples(examples: Any) -> Any:
    """Returns a body's named examples without the names in them: an Example Object has no field for that."""
    if not isinstance(examples, dict):
        return examples
    return {name: {key: value for key, value in each.items() if key != "id"} for name, each in examples.items()}


def _refined(node: Any) -> Any:
    if isinstance(node, list):
        return [_refined(each) for each in node]
    if not isinstance(node, dict):
        return node
    refined = {key: _examples(value) if key == "examples" else _refined(value) for key, value in node.items()}
    for key in ("oneOf", "allOf"):
        if isinstance(refined.get(key), list) and len(refined[key]) == 1:
            refined = {**refined.pop(key)[0], **refined}
    if refined.get("pattern") == INSTANT:
        refined["format"] = "date-time"
    if refined.get("type") == "integer":
        refined["format"] = "int64"
        refined |= {key: int(refined[key]) for key in _BOUNDS if key in refined}
    return refined
