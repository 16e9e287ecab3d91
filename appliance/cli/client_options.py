"""Declares the options that the client's commands share: the exit's URL and the token."""

from __future__ import annotations

import functools
import os
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from appliance.cli import output
from appliance.cli.os_errors import host_faults
from appliance.client.humanize import shortened
from appliance.client.terminal import printable
from appliance.domain.errors import HostError, InvalidRequest

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from appliance.client.api.devices import DevicesClient
    from appliance.client.api.dialer import Dialer, Url
    from appliance.client.api.http import Api
    from appliance.client.api.sessions import SessionsClient
    from appliance.client.connection import ConnectionOptions
    from appliance.client.credentials import Access
    from appliance.client.sudo_user import Invoker


NO_MORE: Mapping[str, type] = {}


@dataclass(frozen=True, slots=True)
class ClientContext:
    """Holds an exit's API and how to reach it."""

    api: Api
    dialer: Dialer
    invoker: Invoker
    access: Access

    @property
    def token(self) -> str:
        if self.access.token is None:
            raise _no_token(self.api.url, self.access, "or --save it once")
        return self.access.token

    @property
    def environment(self) -> dict[str, str]:
        """Returns the environment for programs that the client runs."""
        return self.invoker.environment(os.environ)

    def sessions(
        self, pause: Callable[[float], None] = time.sleep, remark: Callable[[str], None] = output.remark
    ) -> SessionsClient:
        from appliance.client.api.sessions import SessionsClient

        return SessionsClient(self.api, self.token, pause, remark)

    def devices(self) -> DevicesClient:
        from appliance.client.api.devices import DevicesClient

        return DevicesClient(self.api, self.token, time.sleep, output.remark)

    def fetch(self, method: str, path: str, optional: Mapping[str, type] = NO_MORE) -> Mapping[str, Any]:
        """Returns a 200 answer with a `tier`; retries while the exit is busy or unavailable.

        `optional`: types of members that may be missing. Raises HostError for another answer, or none.
        """
        answer = self.sessions().persist(lambda: self.api.ask(method, path, self.token))
        return answer.require(200, {"tier": str}, optional)


def api_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Adds the options for the exit and the token to a command, which gets a `ClientContext` as `exit_`."""

    @click.option(
        "--api",
        metavar="URL",
        help="The exit's URL; default: $WG_APPLIANCE_API, else the saved one, else this host's own.",
    )
    @click.option("--token", metavar="TOKEN", help="The token; other users of this machine can see it meanwhile.")
    @click.option(
        "--token-file",
        type=click.Path(path_type=Path),
        metavar="FILE",
        help="The file with the token; default: $WG_APPLIANCE_TOKEN, else the saved token.",
    )
    @click.option(
        "--save",
        is_flag=True,
        help="Save URL and token in ~/.config/wg-appliance for later commands, --insecure-http with them.",
    )
    @click.option("--insecure-http", is_flag=True, help="Allow plain HTTP: others on the way can read the token.")
    @functools.wraps(command)
    def with_exit(
        *args: Any,
        api: str | None,
        token: str | None,
        token_file: Path | None,
        save: bool,
        insecure_http: bool,
        **kwargs: Any,
    ) -> Any:
        if token is not None and token_file is not None:
            raise click.UsageError("--token and --token-file do not go together")
        with host_faults("cannot read"):
            config_file = click.get_current_context().find_root().obj
            context = _reach(config_file, api, token, token_file, save=save, insecure_http=insecure_http)
        return command(*args, exit_=context, **kwargs)

    return with_exit


def _reach(
    config_file: Path | None,
    api: str | None,
    token: str | None,
    token_file: Path | None,
    *,
    save: bool,
    insecure_http: bool,
) -> ClientContext:
    from appliance.cli import local_exit
    from appliance.client import credentials
    from appliance.client.api.dialer import Dialer
    from appliance.client.sudo_user import find_invoker

    invoker = find_invoker(os.environ)
    saved = credentials.folder(invoker, os.environ)
    with invoker.acting():
        if token_file is not None:
            token = credentials.read_token(token_file)
        access = credentials.find(api, token, os.environ, saved)
    here = local_exit.find(config_file) if access.url is None else None
    url = _allowed(access, insecure_http=insecure_http) if here is None else here.url
    if save and access.elsewhere is not None:
        raise _no_token(url.text, access, "beside --save")
    if save:
        # Not the URL of this host's own exit: it is found again, and what to trust there with it.
        with invoker.acting():
            written = credentials.save(replace(access, insecure_http=access.insecure_http or insecure_http), saved)
        output.remark(f"saved: {', '.join(map(str, written))}")
    dialer = Dialer(url, _mark(), here and here.trusted)
    return ClientContext(dialer.api(), dialer, invoker, replace(access, url=url.text))


def _allowed(access: Access, *, insecure_http: bool) -> Url:
    """Returns the URL if a token may be sent there."""
    from appliance.client.api.dialer import parse_url

    if access.url is None:
        raise click.UsageError("no exit; give its URL as WG_APPLIANCE_API or --api URL, or --save it once")
    try:
        url = parse_url(access.url)
    except InvalidRequest as error:
        raise click.UsageError(str(error)) from error
    if url.sends_token_in_clear_text and not (insecure_http or access.insecure_http):
        raise click.UsageError(f"{url.text}: others on the way could read the token; use https, or --insecure-http")
    return url


def _no_token(url: str, access: Access, where: str) -> click.UsageError:
    saved = f" (the saved one is for {printable(access.elsewhere)})" if access.elsewhere else ""
    given = f"give it as WG_APPLIANCE_TOKEN, --token-file FILE or --token TOKEN, {where}"
    return click.UsageError(f"no token for {url}{saved}; {given}")


def _mark() -> int | None:
    """Returns the fwmark that bypasses this machine's tunnel, if any. Only root may set marks or read the records."""
    from appliance.client.run_records import whole_machine

    if os.geteuid() != 0:
        return None
    connected = whole_machine()
    return None if connected is None else connected.mark


def connection_options(
    sessions: SessionsClient, region: str | None, resolvers: Sequence[str] | None, every_s: int
) -> ConnectionOptions:
    """Returns what a connection is made with. `region` None: the only one there is.

    Raises HostError if no region has an active exit, and click.UsageError if several have.
    """
    from appliance.client.connection import ConnectionOptions
    from appliance.client.tunnel.ipv6 import ipv6_enabled

    return ConnectionOptions(region or _only(sessions.regions()), ipv6_enabled(), resolvers, every_s)


def _only(regions: list[str]) -> str:
    if not regions:
        raise HostError("no region has an active exit; try again later")
    if len(regions) > 1:
        raise click.UsageError(f"there is more than one region, name one: {shortened(printable(', '.join(regions)))}")
    return regions[0]
