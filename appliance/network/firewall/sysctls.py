"""Sets the host's forwarding sysctls for the tunnel, and restores them."""

from __future__ import annotations

import logging
import os
import re
import socket
from typing import TYPE_CHECKING

from appliance.config import state_file
from appliance.domain.errors import EgressError
from appliance.network.firewall import reverse_path, sysctl_paths
from appliance.network.firewall.forwarding import (
    IP_FORWARD,
    IPV6_ALL,
    IPV6_DEFAULT,
    SEND_REDIRECTS,
    is_needed,
)
from appliance.network.firewall.sysctl_paths import FORWARDING, OFF, ON, interface_of, of_interface

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Mapping
    from pathlib import Path

log = logging.getLogger(__name__)


NUMBER = re.compile(r"-?[0-9]{1,9}")  # what any of these sysctls may hold
ALWAYS_READ = (SEND_REDIRECTS, IP_FORWARD, IPV6_ALL)
OF_IPV6_INTERFACES = ("accept_ra", "forwarding")


class Forwarding:
    """Sets and restores sysctls. `proc_sys` is /proc/sys; `record` keeps the original values of the boot `boot_id`."""

    def __init__(
        self,
        proc_sys: Path,
        record: Path,
        boot_id: str,
        interfaces: Callable[[], list[tuple[int, str]]] = socket.if_nameindex,
    ) -> None:
        """`interfaces` returns the index and name of each interface of the host."""
        self._root = proc_sys
        self._record = record
        self._boot_id = boot_id
        self._interfaces = interfaces
        self._found: dict[str, str] | None = None
        self._indices: Mapping[str, int] = {}  # of the interfaces that `found` names
        self.unsettable: set[str] = set()  # sysctls that are not needed, and that could not be set

    @property
    def found(self) -> Mapping[str, str]:
        """Returns the values of the sysctls before they were set, by path below /proc/sys."""
        if self._found is None:
            self._found = self._recorded()
        return self._found

    def follow_names(self) -> None:
        """Records the values of an interface that was renamed under its new name. Raises EgressError."""
        if self.found:
            self._note(_under_new_names(self.found, self._indices, dict(self._interfaces())))

    def read(self, uplinks: Iterable[str] = ()) -> dict[str, str]:
        """Returns (path below /proc/sys, value) of each sysctl that may have to be set, without missing ones."""
        conf = self._root / "net/ipv6/conf"
        of_ipv6 = (str(e.relative_to(self._root)) for name in OF_IPV6_INTERFACES for e in conf.glob(f"*/{name}"))
        names = frozenset(uplinks)
        of_ipv4 = {of_interface(4, uplink) for uplink in names} | (reverse_path.to_read(names) if names else set())
        keys = FORWARDING, reverse_path.BY_MARK
        of_ipv4 |= {name for name in self.found if any(interface_of(name, 4, key) is not None for key in keys)}
        values = {name: self._read(name) for name in (*ALWAYS_READ, *of_ipv4, *of_ipv6)}
        return {name: value for name, value in values.items() if value is not None}

    def set(self, wanted: Mapping[str, str], tunnel: str, default: frozenset[str]) -> None:
        """Records the original values, then sets the sysctls. `default`: the interfaces of a default route.

        Raises EgressError naming all that cannot be set, if clients' traffic does not pass without them. Warns once of
        the others.
        """
        earlier = self.found.keys()
        self._note({**self.found, **self._before(wanted)})
        refused, unset = dict[str, str](), set[str]()
        for name, value in wanted.items():
            was = self._read(name)
            try:
                self._set(name, value, tunnel)
            except OSError as error:
                reason = error.strerror or str(error)
                unset.add(name)
                if is_needed(name, value, default):
                    refused[name] = reason
                elif not isinstance(error, FileNotFoundError):  # its interface has gone; one of its name may come again
                    self.unsettable.add(name)
                    log.warning("sysctl %s stays %s: cannot set %s: %s", _dotted(name), was, value, reason)
            else:
                log.info("sysctl %s = %s (was %s)", _dotted(name), value, was)
        self._note({name: value for name, value in self.found.items() if name in earlier or name not in unset})
        if refused:
            raise EgressError(_refusal(refused))

    def require(self, wanted: Mapping[str, str], tunnel: str, default: frozenset[str]) -> None:
        """Raises EgressError naming all sysctls that clients' traffic needs and that cannot be set here.

        Changes nothing. A tunnel that is yet to be made takes the value of `default`.
        """
        own = of_interface(4, tunnel if self._read(of_interface(4, tunnel)) is not None else "default")
        needed = [name for name, value in wanted.items() if is_needed(name, value, default)]
        if self._read(own) != ON:
            needed.append(own)
        refused = {name: reason for name in needed if (reason := self._obstacle(name)) is not None}
        if refused:
            raise EgressError(_refusal(refused))

    def give_back(self, tunnel: str, uplinks: Collection[str]) -> None:
        """Switches IPv4 forwarding off for the host, and leaves it on for the tunnel. Raises EgressError."""
        earlier = dict(self.found)
        self._note(earlier | {of_interface(4, uplink): OFF for uplink in uplinks})
        try:
            self._write(IP_FORWARD, OFF)
        except OSError as error:
            self._note(earlier)
            raise EgressError(f"cannot set {_dotted(IP_FORWARD)} = 0: {error.strerror}") from error
        self._note({name: value for name, value in self.found.items() if name != IP_FORWARD})
        try:
            # It has switched off all interfaces with it.
            for interface in (*uplinks, tunnel):
                if self._read(of_interface(4, interface)) is not None:
                    self._write(of_interface(4, interface), ON)
        except OSError as error:
            raise EgressError(f"cannot set an interface's forwarding: {error.strerror}") from error
        log.info("sysctl %s = 0 (was 1): an earlier version had set it", _dotted(IP_FORWARD))

    @property
    def has_record(self) -> bool:
        """Tells whether there is a record of this boot."""
        return self._read_record() is not None

    def adopt(self, before: Mapping[str, str]) -> None:
        """Records values as those from before. Raises EgressError."""
        self._note({**before, **self.found})

    def disown(self, names: Collection[str]) -> None:
        """Forgets the original values of sysctls that another program has set meanwhile. Raises EgressError."""
        self._note({name: value for name, value in self.found.items() if name not in names})

    def restore(self) -> list[str]:
        """Restores what `set` changed in this boot; returns the names.

        Restores only sysctls that `set` may change: the record belongs to the service's user, whom root does not trust
        further.
        """
        changeable = self.read()
        # Forwarding first: switching it off resets nothing that comes after it.
        recorded = {name: value for name, value in reversed(self._recorded().items()) if name in changeable}
        if IP_FORWARD not in recorded and changeable.get(IP_FORWARD) == ON:
            # Another program has switched it on meanwhile, and all interfaces with it.
            recorded = {name: value for name, value in recorded.items() if interface_of(name, 4) is None}
        recorded = {name: value for name, value in recorded.items() if changeable[name] != value}
        for name, value in recorded.items():
            try:
                self._write(name, value)
            except OSError as error:
                raise EgressError(f"cannot set {_dotted(name)} = {value}: {error.strerror}") from error
        state_file.forget(self._record)
        self._found = None
        return list(recorded)

    def _before(self, wanted: Mapping[str, str]) -> dict[str, str]:
        """Returns the present values, where none is recorded yet. In an order whose reverse restores them."""
        names = [name for name in wanted if name != IPV6_ALL]
        if IPV6_ALL in wanted:
            names += [IPV6_DEFAULT, IPV6_ALL]
        values = {name: self._read(name) for name in names if name not in self.found}
        if IPV6_DEFAULT in values and self._read(IPV6_ALL) == ON:
            values[IPV6_DEFAULT] = OFF  # an earlier version has switched it on
        return {name: value for name, value in values.items() if value is not None}

    def _note(self, before: Mapping[str, str]) -> None:
        if before == self.found:
            return
        try:
            named = {sysctl_paths.of_any(name) for name in before}
            indices = {interface: index for index, interface in self._interfaces() if interface in named}
            content = {"boot_id": self._boot_id, "values": before, "indices": indices}
            state_file.write_json(self._record, content, on_disk=True)
        except OSError as error:
            raise EgressError(f"cannot note the host's sysctls in {self._record}: {error.strerror}") from error
        self._found, self._indices = dict(before), indices

    def _recorded(self) -> dict[str, str]:
        return self._read_record() or {}

    def _read_record(self) -> dict[str, str] | None:
        """Returns the record of this boot; None if there is none, or it is damaged."""
        try:
            content = state_file.read_json(self._record)
            # After a reboot the kernel's values are fresh; what was recorded before says nothing about them.
            if content["boot_id"] != self._boot_id:
                return None
            indices = {name: index for name, index in content.get("indices", {}).items() if isinstance(index, int)}
            values = {name: value for name, value in content["values"].items() if NUMBER.fullmatch(value)}
        except (FileNotFoundError, state_file.Unfit, ValueError, LookupError, TypeError, AttributeError):
            return None
        self._indices = indices
        return _under_new_names(values, self._indices, dict(self._interfaces()))

    def _read(self, name: str) -> str | None:
        try:
            return (self._root / name).read_text(encoding="ascii").strip()
        except OSError:
            return None  # the interface is gone, or the kernel has no IPv6

    def _set(self, name: str, value: str, tunnel: str) -> None:
        if name == IPV6_ALL and value == ON:
            self._forward_ipv6(tunnel)
        else:
            self._write(name, value)

    def _forward_ipv6(self, tunnel: str) -> None:
        """Sets `all`, and gives the interfaces their own values back, which it sets too. `default` becomes 0."""
        conf = self._root / "net/ipv6/conf"
        was_on = self._read(IPV6_ALL) == ON
        names = [str(entry.relative_to(self._root)) for entry in conf.glob("*/forwarding")]
        before = {name: OFF if was_on or name == IPV6_DEFAULT else self._read(name) for name in names}
        self._write(IPV6_ALL, ON)
        for name, value in before.items():
            if name != IPV6_ALL and value == OFF and interface_of(name, 6) != tunnel and self._read(name) == ON:
                self._write(name, OFF)

    def _obstacle(self, name: str) -> str | None:
        """Returns why a sysctl cannot be set; None if it can."""
        try:
            os.close(os.open(self._root / name, os.O_WRONLY))  # without O_CREAT; nothing is written
        except OSError as error:
            return error.strerror or str(error)
        return None

    def _write(self, name: str, value: str) -> None:
        descriptor = os.open(self._root / name, os.O_WRONLY)  # without O_CREAT
        try:
            os.write(descriptor, value.encode("ascii"))
        finally:
            os.close(descriptor)


def _under_new_names(
    values: Mapping[str, str], indices: Mapping[str, int], interfaces: Mapping[int, str]
) -> dict[str, str]:
    """Returns the values by path. `indices`: of the interfaces in `values`; `interfaces`: as they are called now."""
    new = {name: interfaces[index] for name, index in indices.items() if interfaces.get(index, name) != name}
    return {sysctl_paths.renamed(name, new): value for name, value in values.items()}


def _refusal(refused: Mapping[str, str]) -> str:
    """Names all sysctls that cannot be set, why, and what to set instead from outside of this process."""
    names = ", ".join(f"{_dotted(name)} = 1" for name in refused)
    reasons = ", ".join(dict.fromkeys(refused.values()))
    switches = dict.fromkeys(map(_switch, refused))
    instead = " ".join(f"{_dotted(name)}=1" for name in switches)
    return (
        f"cannot set {names}: {reasons}; clients' traffic needs it: on the machine around this container, or with "
        f"docker run --sysctl, set {instead}"
    )


def _switch(name: str) -> str:
    """Returns the sysctl that sets one for all interfaces."""
    if interface_of(name, 4, reverse_path.BY_MARK) is not None:
        return reverse_path.BY_MARK_ALL
    return IP_FORWARD if name.startswith("net/ipv4/") else IPV6_ALL


def _dotted(name: str) -> str:
    return name.replace("/", ".")
