"""Tables of other programs on the exit's host."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.support.egress.vantage import Vantage

PUBLISHED = """
table inet published {{
  chain in {{
    type nat hook prerouting priority dstnat;
    {rule}
  }}
}}
"""


@contextmanager
def table_of_another(exit_: Vantage, text: str) -> Iterator[None]:
    exit_.world.exit.run("nft", "-f", "-", text_input=text)
    try:
        yield
    finally:
        exit_.exit.sh(f"nft delete table inet {text.split()[2]}")
