"""Renders a device's file and hands it over: on stdout, in a file of the caller's, or as a QR code."""

from __future__ import annotations

import os
import sys
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from appliance.cli import output
from appliance.cli.parameters import NO_RESOLVERS
from appliance.client.ui import qr
from appliance.config.value_types import RESOLVERS, show
from appliance.domain.errors import HostError
from appliance.network import standing_note
from appliance.network.exit_node import build_exit, client_settings
from appliance.network.wireguard import keys

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from ipaddress import IPv4Address, IPv6Address

    from appliance.cli.admin import Admin
    from appliance.domain.device import Device
    from appliance.network.exit_node import Endpoint, Exit

    Address = IPv4Address | IPv6Address

MODE = 0o600

qr_option = click.option("--qr", "as_qr", is_flag=True, help="Draw the file as a QR code, for the WireGuard app.")
file_option = click.option(
    "--file",
    "path",
    type=click.Path(path_type=Path),
    metavar="F",
    help="Write the file there, readable by you alone; it must not exist yet.",
)
key_option = click.option("--public-key", "key", metavar="K", help="The client's own public key; no key is made here.")
dns_option = click.option(
    "--dns",
    multiple=True,
    metavar="ADDR",
    help="A resolver for the file's DNS line; may be repeated; 'none': no such line.",
)


@dataclass(frozen=True, slots=True)
class Wanted:
    """Holds what the caller asks of the file. `key`: the client's own public key, as given.

    `dns`: the resolvers of its DNS line, none for no line; None: the operator's.
    """

    as_qr: bool
    path: Path | None
    key: str | None
    dns: tuple[Address, ...] | None
    as_json: bool

    @classmethod
    def checked(cls, *, as_qr: bool, path: Path | None, key: str | None, dns: Sequence[str], as_json: bool) -> Wanted:
        """Raises UsageError for what does not go together, HostError where no code can be drawn."""
        if as_qr and (path is not None or key is not None or as_json):
            other = "--file" if path is not None else "--public-key" if key is not None else "--json"
            raise click.UsageError(f"--qr does not go with {other}")
        resolvers = _resolvers(dns)
        if as_qr:
            qr.check(sys.stdout.encoding, "--file")
        rehearse(as_qr=as_qr)
        return cls(as_qr, path, key, resolvers, as_json)


def _resolvers(given: Sequence[str]) -> tuple[Address, ...] | None:
    """Returns the resolvers, each once; None if no --dns was given."""
    if not given:
        return None
    if NO_RESOLVERS in given:
        if len(given) > 1:
            raise click.UsageError("--dns none goes with no other --dns")
        return ()
    try:
        return tuple(dict.fromkeys(RESOLVERS.parse(list(given))))
    except ValueError as error:
        raise click.UsageError(f"--dns {' '.join(map(show, given))}: must be {RESOLVERS.allowed}") from error


@dataclass(frozen=True, slots=True)
class KeyPair:
    """Holds a device's keys. `private` None: only its client has it."""

    public: bytes
    private: bytes | None


def rehearse(*, as_qr: bool = False) -> None:
    """Imports what is needed once the command is the store's owner, who may not read the program's folder."""
    keys.generate_key_pair()
    if as_qr:
        qr.draw("", colour=False)


def key_pair(wanted: Wanted, exit_: Exit) -> KeyPair:
    """Returns the client's key, checked as the API does, or a new pair. Raises InvalidRequest."""
    if wanted.key is None:
        private, public = keys.generate_key_pair()
        return KeyPair(public, private)
    public = keys.parse_public_key(wanted.key, "--public-key")
    keys.refuse_weak(public, "--public-key", {exit_.public_key})
    return KeyPair(public, None)


def exit_of(a: Admin) -> Exit:
    """Describes this exit. Raises HostError if there is no server key."""
    return build_exit(a.settings.wireguard, a.state.read_key())


def endpoint(a: Admin) -> Endpoint:
    """Returns what clients dial: as configured, else the address that the server noted last.

    Raises HostError if it is not known.
    """
    configured, noted = a.settings.node.public_ip, standing_note.read(a.state.addresses)
    if a.settings.wireguard.endpoint is None and configured is None and noted is None:
        raise HostError(
            "the address that clients dial is not known yet: start the server, or set wireguard.endpoint or "
            "node.public_ip"
        )
    public_ip = configured or (None if noted is None else noted.address)
    return client_settings(a.settings.wireguard).endpoint_of(str(public_ip))


def known_endpoint(a: Admin) -> str | None:
    """Returns what a file made now says; None if that is not known."""
    try:
        return str(endpoint(a))
    except HostError:
        return None


def text_of(a: Admin, exit_: Exit, made: Device, private_key: bytes | None, wanted: Wanted) -> str:
    """Returns the file. One for an app has a DNS line unless none is asked for: an app has no resolver that the tunnel
    reaches."""
    tunnel = a.settings.wireguard
    app_dns = (tunnel.dns or tunnel.app_dns) if wanted.as_qr else None
    return exit_.device_config(made, private_key, endpoint(a), dns=app_dns if wanted.dns is None else wanted.dns)


@contextmanager
def handed_over(wanted: Wanted, again: str) -> Iterator[Callable[[str, dict[str, Any]], None]]:
    """Takes the place of the file before a device is made; yields what writes or shows it.

    The place is given back if the work fails. `again`: the command that makes another file, should this one be lost.
    Raises HostError.
    """
    descriptor = None if wanted.path is None else _new(wanted.path)
    done = False

    def hand_over(text: str, facts: dict[str, Any]) -> None:
        nonlocal done
        if descriptor is not None:
            _write(descriptor, text, wanted.path, again)
            done = True
        _show(wanted, text, facts)

    try:
        yield hand_over
    finally:
        if descriptor is not None:
            os.close(descriptor)
        if wanted.path is not None and not done:
            with suppress(OSError):
                wanted.path.unlink()


def _show(wanted: Wanted, text: str, facts: dict[str, Any]) -> None:
    if wanted.as_json:
        output.write_json(facts | ({"wg_config": text} if wanted.path is None else {"file": str(wanted.path)}))
    elif wanted.path is not None:
        output.remark(f"written: {wanted.path}")
    elif wanted.as_qr:
        output.write_qr(text)
    else:
        output.write(text.rstrip("\n"))


def _new(path: Path) -> int:
    try:
        return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, MODE)
    except FileExistsError as error:
        raise HostError(f"{path} is there already; name another, or remove it") from error
    except OSError as error:
        raise HostError(f"cannot write {path}: {error.strerror}") from error


def _write(descriptor: int, text: str, path: Path | None, again: str) -> None:
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8", closefd=False) as file:
            file.write(text)
    except OSError as error:
        raise HostError(
            f"cannot write {path}: {error.strerror}; the device is there, its file is lost, make another: {again}"
        ) from error
