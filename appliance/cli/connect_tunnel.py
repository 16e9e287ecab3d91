"""Keeps a tunnel for `wg-appliance connect`: of the whole machine, or of one program."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from appliance.cli.client_options import connection_options
from appliance.domain.errors import HostError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from appliance.cli.client_options import ClientContext
    from appliance.client.api.responses import OpenedSession, Over
    from appliance.client.api.sessions import SessionsClient
    from appliance.client.connection import ConnectionOptions, ConnectionOutcome
    from appliance.client.run_records import RunClaim
    from appliance.client.signals import Interruption
    from appliance.client.ui.screen import Screen


def keep_tunnel(
    exit_: ClientContext,
    region: str | None,
    resolvers: Sequence[str] | None,
    every_s: int,
    command: Sequence[str] | None,
    as_json: bool,
) -> ConnectionOutcome:
    """Makes a tunnel and keeps it until a signal, the command or the server ends it.

    Raises HostError if this is not root or the tunnel cannot be made.
    """
    from appliance.client import cleanup, run_records
    from appliance.client.api import responses
    from appliance.client.command import refused
    from appliance.client.connection import ConnectionOutcome
    from appliance.client.signals import InterruptedBySignal, Interruption
    from appliance.client.tunnel import namespace_tunnel
    from appliance.client.ui.screen import screen_for

    if os.geteuid() != 0:
        raise HostError("connect makes a tunnel: run it as root (sudo); --config-only and --qr do not need that")
    if command is not None:
        namespace_tunnel.refuse_resolvers(resolvers or ())
        if (refusal := refused(command[0], exit_.invoker, exit_.environment)) is not None:
            return refusal
    interruption = Interruption()
    screen = screen_for(as_json=as_json, command=command is not None)
    sessions = exit_.sessions(interruption.pause, screen.remark)
    with interruption.awaited(ignored_afterwards=True):
        try:
            cleanup.clear(exit_.api, exit_.token, exit_.environment, screen.remark, interruption)
            with run_records.claimed("machine" if command is None else "command") as claim:
                with interruption.allowed():
                    options = connection_options(sessions, region, resolvers, every_s)
                if command is None:
                    return _machine(exit_, sessions, options, claim, screen, interruption)
                return _command(exit_, sessions, options, claim, screen, interruption, command)
        except InterruptedBySignal as error:
            return ConnectionOutcome(responses.FAILED, f"{error} before the tunnel was up")


def _machine(
    exit_: ClientContext,
    sessions: SessionsClient,
    options: ConnectionOptions,
    claim: RunClaim,
    screen: Screen,
    interruption: Interruption,
) -> ConnectionOutcome:
    from appliance.client.connection import ClientConnection, run
    from appliance.client.tunnel.full_tunnel import FullTunnel
    from appliance.network.wireguard import keys

    key = keys.generate_private_key()
    tunnel = FullTunnel(claim.record.interface, exit_.environment, screen.remark, key)
    connection = ClientConnection(options, key, sessions, exit_.dialer, tunnel, claim, interruption)

    def stay(opened: OpenedSession) -> Over:
        screen.connected(opened, options.region, claim.record.interface, "Ctrl-C ends it")
        return connection.watch(screen, interruption)

    return run(connection, screen, stay)


def _command(
    exit_: ClientContext,
    sessions: SessionsClient,
    options: ConnectionOptions,
    claim: RunClaim,
    screen: Screen,
    interruption: Interruption,
    command: Sequence[str],
) -> ConnectionOutcome:
    from appliance.client.command import run_command
    from appliance.client.connection import ClientConnection, run
    from appliance.client.tunnel.namespace_tunnel import NamespaceTunnel
    from appliance.network.wireguard import keys

    key = keys.generate_private_key()
    tunnel = NamespaceTunnel(claim.record.interface, key, claim.resolv_conf)
    connection = ClientConnection(options, key, sessions, exit_.dialer, tunnel, claim, interruption)

    def stay(opened: OpenedSession) -> ConnectionOutcome:
        screen.connected(opened, options.region, claim.record.interface, f"for {command[0]} alone")
        return run_command(
            lambda: tunnel.start(command, exit_.invoker, exit_.environment),
            lambda exits, goes_on: connection.watch(screen, exits, goes_on),
            interruption,
        )

    return run(connection, screen, stay)
