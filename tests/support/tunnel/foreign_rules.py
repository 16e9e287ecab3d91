"""Rules that other programs have written, put into a namespace."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tests.support.tunnel.namespace import Namespace

RULES = Path(__file__).parents[2] / "doctor" / "rules"
UPLINK = "wan"


def load_rules(space: Namespace, file: Path, interface: str) -> None:
    """With the world's interfaces in the place of wga0 and eth0."""
    text = file.read_text(encoding="utf-8").replace("wga0", interface).replace("eth0", UPLINK)
    program = file.suffix[1:]
    space.run(*(("nft", "-f", "-") if program == "nft" else (f"{program}-nft-restore",)), text_input=text)
