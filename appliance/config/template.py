"""Generates the configuration file that `wg-appliance init` writes: every key, commented out, at its default."""

from __future__ import annotations

import json
from types import MappingProxyType
from typing import TYPE_CHECKING

from appliance.config.settings import KEYS, SECTIONS, KeyPath

if TYPE_CHECKING:
    from collections.abc import Mapping

NO_VALUES: Mapping[KeyPath, object] = MappingProxyType({})

HEAD = """\
# wg-appliance: configuration
#
# A line that starts with # and a space is a comment; one without the space is a key at its default.
# Sizes: bytes, or text with B, KB, MB, GB, TB (decimal) or KiB, MiB, GiB, TiB. Durations: seconds, or text
# with s, m, h, d. An environment variable WG_APPLIANCE_<SECTION>_<KEY> comes before the key here.
"""

REMARKS: dict[KeyPath, str] = {
    ("node",): "this exit",
    ("wireguard",): "the tunnel",
    ("egress",): "what clients may reach",
    ("api",): "the HTTP API",
    ("metrics",): "for the operator only",
    ("meter",): "metering",
    ("fleet",): "several exits behind one API; only read once this host is in a fleet",
    ("pricing",): "for paid accounts; without this section no costs are shown",
    ("tiers", "anonymous"): "what an account may use",
}


def default_text(values: Mapping[KeyPath, object] = NO_VALUES) -> str:
    """Returns TOML that loads to the defaults, both as it is and with its keys uncommented, except for [pricing].

    Keys in `values` are written uncommented, with those values.
    """
    return HEAD + "".join(f"\n{_section(section, values)}" for section in SECTIONS)


def _section(section: KeyPath, values: Mapping[KeyPath, object]) -> str:
    # An empty [pricing] would already set prices.
    header = ("#" if section == ("pricing",) else "") + f"[{'.'.join(section)}]"
    if section in REMARKS:
        header += f"  # {REMARKS[section]}"
    lines = [header]
    for path, key in KEYS.items():
        if path[:-1] == section:
            # Strings, integers, booleans and empty arrays are the same in JSON and TOML.
            mark = "" if path in values else "#"
            lines.append(f"{f'{mark}{path[-1]} = {json.dumps(values.get(path, key.default))}':<40}  # {key.remark}")
    return "\n".join(lines) + "\n"
