"""Claims the appliance's nftables table, replaces it as a whole, and remembers its name in the state directory."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from appliance.config import state_file
from appliance.domain.errors import EgressError
from appliance.network.firewall import nft, ruleset, table_choice
from appliance.network.firewall.table_choice import Recorded
from appliance.network.record_place import place_of

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping
    from pathlib import Path

    from appliance.network.firewall.rules import EgressRules

    Nft = Callable[..., Awaitable[str]]  # (script, *arguments): executes the script, or runs with the arguments

log = logging.getLogger(__name__)

DOUBTFUL = 5  # changes by other programs


class OwnTable:
    """Holds the table's name. `nft` runs the program, and raises EgressError if it fails."""

    def __init__(self, interface: str, record: Path, run_nft: Nft) -> None:
        self._interface = interface
        self._record = record
        self._nft = run_nft
        self._recorded = read(record)
        self._claimed = False
        self._intact = False  # as it was last replaced
        self._changes = 0  # by other programs, each restored before the next
        self.name = table_choice.FIRST if self._recorded is None else self._recorded.table

    def changed(self) -> None:
        """Notes a change by another program. After some, it is looked at whose the table is: two may use one name."""
        # A change of one transaction is told by many events.
        if self._intact:
            self._intact = False
            self._changes += 1
            self._claimed = self._claimed and self._changes % DOUBTFUL != 0

    async def replace(self, rules: EgressRules) -> None:
        """Replaces the table; one that does not stand yet is created only if no other appliance was first."""
        self._intact = True  # before, as an event reports any later change
        if not self._claimed and await self._claim(rules):
            return
        await self._nft(ruleset.render(rules, self.name))

    async def remove(self) -> None:
        """Removes the table, if there is one that is ours."""
        if not self._claimed:
            self.name, stands = await self._choose()
            if not stands:
                return
        await self._nft(ruleset.remove(self.name))

    async def _claim(self, rules: EgressRules) -> bool:
        """Chooses the name. Returns whether the table was created by that, with these rules."""
        name, stands = await self._choose()
        created = not stands and await self._create(name, rules)
        if not stands and not created:
            return await self._claim(rules)
        if name != self.name and self._recorded is not None:
            log.warning("nftables table inet %s is another appliance's: inet %s is used from now on", self.name, name)
        self.name, self._claimed = name, True
        self._note()
        return created

    async def _choose(self) -> tuple[str, bool]:
        """Returns the name, and whether a table of it stands."""
        listed = await self._listed()
        name = table_choice.choose(self._interface, self._recorded, listed)
        if name is None:
            taken = table_choice.suffixed(self._interface)
            raise EgressError(f"nftables table inet {taken} is another program's: nft delete table inet {taken}")
        return name, name in listed

    async def _create(self, name: str, rules: EgressRules) -> bool:
        """Creates the table. Returns False if one of this name has come meanwhile."""
        try:
            await self._nft(ruleset.create(rules, name))
        except EgressError:
            if name not in await self._listed():
                raise
            return False
        return True

    async def _listed(self) -> Mapping[str, str]:
        names = table_choice.candidates(self._interface, self._recorded)
        standing = (await self._nft("", "list", "tables", "inet")).splitlines()
        return {name: await self._nft("", *_listing_of(name)) for name in names if f"table inet {name}" in standing}

    def _note(self) -> None:
        """Records the name. Only logs a failure: the table says itself whose it is."""
        recorded = Recorded(self.name, self._interface)
        if recorded == self._recorded:
            return
        self._recorded = recorded
        try:
            content = {**recorded._asdict(), "directory": place_of(self._record)}
            state_file.write_json(self._record, content)
        except OSError as error:
            log.warning("cannot note the nftables table in %s: %s", self._record, error.strerror)


def read(record: Path) -> Recorded | None:
    """Returns what was recorded in this directory about an appliance's table; None if there is nothing."""
    try:
        content = state_file.read_json(record)
        recorded = Recorded(str(content["table"]), str(content["interface"]))
        own = content["directory"] == place_of(record) and table_choice.is_an_appliances("inet", recorded.table)
        return recorded if own else None
    except (OSError, ValueError, TypeError, KeyError):
        return None


def standing(interface: str, record: Path, environ: Mapping[str, str] | None = None) -> str | None:
    """Returns the name of this appliance's table if it stands. Blocking; raises ProgramFailed."""
    recorded, tables = read(record), nft.tables(environ)
    names = [name for name in table_choice.candidates(interface, recorded) if f"inet {name}" in tables]
    listed = {name: nft.listing(_listing_of(name), environ) for name in names}
    name = table_choice.choose(interface, recorded, listed)
    return name if name in listed else None


def _listing_of(table: str) -> tuple[str, ...]:
    return "--terse", "list", "table", "inet", table
