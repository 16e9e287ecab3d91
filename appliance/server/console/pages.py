"""Renders templates as self-contained HTML pages: one response, without scripts, that works without a network."""

from __future__ import annotations

import base64
import hashlib
from importlib import resources
from typing import TYPE_CHECKING, Any

from appliance.server.console.reference import Reference

if TYPE_CHECKING:
    from collections.abc import Mapping


def reference_page(document: Mapping[str, Any]) -> str:
    """Renders an OpenAPI document as a page for people."""
    return _render("reference.html", "reference.css", reference=Reference.of(document))


def _render(template: str, stylesheet: str, **values: object) -> str:
    """Renders `template` with the stylesheet inlined, and with a policy under which a browser loads nothing else."""
    # Not at the head of the file: most servers never render a page, and no command does.
    from jinja2 import Environment, FunctionLoader, StrictUndefined

    environment = Environment(
        autoescape=True,
        loader=FunctionLoader(lambda name: _asset("templates", name)),
        lstrip_blocks=True,
        trim_blocks=True,
        undefined=StrictUndefined,
    )
    style = _asset("static", stylesheet)
    return environment.get_template(template).render(values, style=style, policy=_policy(style))


def _policy(style: str) -> str:
    """Returns the Content-Security-Policy that allows the inline stylesheet `style` alone."""
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    return f"default-src 'none'; style-src 'sha256-{digest}'"


def _asset(folder: str, name: str) -> str:
    return (resources.files("appliance.server.console") / folder / name).read_text(encoding="utf-8")
