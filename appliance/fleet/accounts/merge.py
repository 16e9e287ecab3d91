"""Decides what becomes of a joining host's accounts, and makes them the fleet's.

An account of a name that the fleet has is dropped with its tokens if it was never used, and else in the way, unless it
gets another name. The others become the fleet's, as accounts are kept on the hub alone: the host follows them then, and
its sessions and devices are still of the same accounts.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import msgspec

from appliance.store.queries import account_offers
from appliance.store.queries.account_offers import OfferedAccount

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    import aiosqlite

LONGEST_NAME = 64  # characters


@dataclass(frozen=True, slots=True)
class AccountMerge:
    """Tells what becomes of accounts. `in_the_way`: the names for which the host may not join.

    `renamed`: new names by old ones. `taken_in`: under their new names. All are names of the host's, sorted.
    """

    taken_in: Sequence[OfferedAccount]
    renamed: Mapping[str, str]
    dropped: Sequence[str]
    in_the_way: Sequence[str]


def merge(
    offered: Sequence[OfferedAccount], names: Mapping[str, str], known: Collection[str], suffix: str
) -> AccountMerge:
    """Returns what becomes of the accounts that a host offers.

    `names`: ids of the fleet's accounts by their names, at least of those that are offered, with and without the
    suffix. `known`: ids that the fleet has or had, of a host that was in it before: those are the fleet's to decide
    about, tokens and all. `suffix` "": no account gets another name.
    """
    taken_in, renamed = list[OfferedAccount](), dict[str, str]()
    dropped, in_the_way = list[str](), list[str]()
    new = {each.name for each in offered if each.id not in known and each.name not in names}
    for each in offered:
        if each.id in known:
            continue
        if not each.name.isprintable():
            in_the_way.append(each.name)
        elif each.name not in names:
            taken_in.append(each)
        elif not each.used:
            dropped.append(each.name)
        else:
            other = each.name + suffix
            if not suffix or other in names or other in new or len(other) > LONGEST_NAME or not other.isprintable():
                in_the_way.append(each.name)
                continue
            renamed[each.name] = other
            taken_in.append(msgspec.structs.replace(each, name=other))
    return AccountMerge(taken_in, renamed, sorted(dropped), sorted(in_the_way))


async def take_in(db: aiosqlite.Connection, offered: Sequence[OfferedAccount], suffix: str) -> AccountMerge:
    """Makes a joining host's accounts the hub's, in the transaction that admits the host; nothing if any is in the way.

    Asked again, as its answer was lost, it finds them there.
    """
    wanted = [each.name for each in offered] + [each.name + suffix for each in offered]
    names = await account_offers.names_taken(db, wanted)
    found = merge(offered, names, await account_offers.known(db, [each.id for each in offered]), suffix)
    if not found.in_the_way:
        await account_offers.take_in(db, found.taken_in)
    return found
