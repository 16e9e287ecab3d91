"""Describes what a standby asks of the hub that it stands by for, to have the same fold, and what it is answered."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta, Struct

from appliance.fleet.link.wire import PREFIX
from appliance.fleet.reports.reports import Count, Instant, Text, UsageRequest  # noqa: TC001 (msgspec goes by them)

MOST_NODES = 10_000


def subject(node_id: str) -> str:
    """Returns the subject on which this host asks."""
    return f"{PREFIX}.led.{node_id}.copy"


class CopyRequest(Struct, frozen=True, omit_defaults=True):
    """Asks which exits the hub was told of: CopiedNodes; with `node`: the digest of that one; with `usage` beside it:
    a page of its reports, with the windows of their accounts.

    `has`: up to which batch of each exit the standby has all; told with the first question.
    """

    has: Annotated[dict[Text, Count], Meta(max_length=MOST_NODES)] = {}
    node: Text = ""
    usage: UsageRequest | None = None


class ToldNode(Struct, frozen=True, array_like=True):
    """Says how far an exit has told the hub: its last batch, and up to when (wall clock, ms) it has told all, which it
    said in batch `upto_batch`; 0: it has not said so."""

    node: Text
    batch: Count
    mark: Text
    upto: Instant = 0
    upto_batch: Count = 0


class CopiedNodes(Struct, frozen=True, tag="nodes"):
    """Holds all exits that have ever told something, also those that have left."""

    nodes: tuple[ToldNode, ...] = ()
