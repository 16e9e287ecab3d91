"""Runs one connection from start to end: opens a session, brings up the tunnel, shows its status, undoes it all.

The tunnel is removed before the session is closed: undoing changes on this machine needs no answer of the API.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from appliance.client.api.responses import DONE, ENDED, FAILED, Again, Live, Over, pause
from appliance.client.api.sessions import ANSWER_GRACE_S, Stopped
from appliance.client.run_totals import RunTotals
from appliance.client.signals import InterruptedBySignal
from appliance.client.tunnel import wg_config
from appliance.client.tunnel.endpoint_name import resolved
from appliance.client.tunnel.tunnel import TunnelCounters
from appliance.client.ui import status_text
from appliance.domain.errors import ApplianceError, HostError
from appliance.network.wireguard import keys

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from appliance.client.api.dialer import Dialer
    from appliance.client.api.responses import OpenedSession
    from appliance.client.api.sessions import SessionsClient
    from appliance.client.run_records import RunClaim
    from appliance.client.signals import Interruption
    from appliance.client.tunnel.tunnel import ClientTunnel
    from appliance.client.tunnel.wg_config import IPAddress, SessionConfig
    from appliance.client.ui.screen import Screen

NOTHING = TunnelCounters(0, 0, None)


@dataclass(frozen=True, slots=True)
class ConnectionOptions:
    """Holds what the user asks for.

    `resolvers`: None uses the operator's. `every_s`: interval of the status updates.
    """

    region: str
    ipv6: bool
    resolvers: Sequence[str] | None
    every_s: float


@dataclass(frozen=True, slots=True)
class ConnectionOutcome:
    """Says how a run ended.

    `line`: an error for stderr. `of_program`: the status is the program's and is kept as it is. `cause`: of the error.
    """

    exit_status: int
    line: str = ""
    of_program: bool = False
    cause: Exception | None = field(default=None, compare=False)


class ClientConnection:
    def __init__(
        self,
        options: ConnectionOptions,
        key: bytes,
        sessions: SessionsClient,
        dialer: Dialer,
        tunnel: ClientTunnel,
        claim: RunClaim,
        interruption: Interruption,
        resolve: Callable[[str], IPAddress] = resolved,
    ) -> None:
        """`interruption`: holds the signals from before the tunnel is up, and from its end."""
        self._resolve = resolve
        self._interruption = interruption
        self._names: dict[str, IPAddress] = {}  # of exits, as they were resolved last
        self._options = options
        self._key = key
        self._sessions = sessions
        self._dialer = dialer
        self._tunnel = tunnel
        self._claim = claim
        self._begun = _now()
        self._opened: OpenedSession
        self._up_with: SessionConfig
        self._is_open = self._is_up = False
        self._idle = False  # the server has ended the session as idle, and another is to be opened
        self._idle_at_once = 0  # how many in a row were idle before they had been seen live
        self._session: Mapping[str, Any] = {}  # the API's last answer
        self._earlier = RunTotals()  # of the sessions before this one
        self._ask_at = 0.0
        self._failures = 0
        self._away = ""
        self._reading: tuple[float, int, int] | None = None  # time, bytes down, bytes up
        self._last = self._carried = NOTHING  # `_carried`: counters of interfaces that were replaced by new ones

    def begin(self) -> OpenedSession:
        """Opens a session and brings up the tunnel. The caller calls `end` afterwards in any case.

        Raises HostError or TunnelError if either fails.
        """
        self._tunnel.check()
        with self._interruption.patient(ANSWER_GRACE_S):
            opened = self._sessions.open(request(self._options, self._key))
        self._take_over(opened)
        config = self._config(self._opened, self._interruption)
        self._tunnel.up(config)
        # A later session must not bring IPv6 that this tunnel has no address for.
        self._options = replace(self._options, ipv6=config.has_ipv6_address)
        self._up_with = config
        self._is_up = True
        self._go_past_tunnel()
        self._begun = _now()
        return self._opened

    def watch(self, screen: Screen, interruption: Interruption, goes_on: Callable[[], bool] = lambda: False) -> Over:
        """Shows the status until the server ends the session.

        Raises InterruptedBySignal on a signal, or when the screen is gone, unless `goes_on` returns True.
        Raises HostError if the tunnel's interface has gone.
        """
        while True:
            try:
                if _now() >= self._ask_at:
                    over = self._ask(screen, interruption)
                    if over is not None:
                        return over
                screen.status(self._view())
                if screen.gone and not goes_on():
                    raise InterruptedBySignal("the output has been closed")
                interruption.pause(max(0.0, min(self._options.every_s, self._ask_at - _now())))
            except InterruptedBySignal:
                if not goes_on():
                    raise

    def end(self, screen: Screen, over: Over | None) -> list[str]:
        """Undoes everything, even if the screen fails, and prints a receipt. Returns what went wrong, in words."""
        try:
            screen.close()
        finally:
            failed, final = self._take_back(over)
        if final and self._is_up:
            screen.receipt(_now() - self._begun, final, self._earlier.plus(final))
        return failed

    # -------------------------------------------------------------------------------------------------

    def _take_back(self, over: Over | None) -> tuple[list[str], Mapping[str, Any]]:
        """Returns what went wrong, and the session's final counters."""
        failed = self._tunnel.down()
        if not failed:  # else requests to the API still need the mark to bypass the tunnel
            self._dialer.mark = None
        final = over.session if over is not None else {}
        if self._is_open and over is None:
            try:
                with self._interruption.patient(ANSWER_GRACE_S):
                    final = self._sessions.close(self._opened.id)
            except (ApplianceError, InterruptedBySignal) as error:
                failed.append(f"the session {self._opened.id} ends by itself, for it could not be closed: {error}")
        if not failed:  # else the next run tries again
            self._claim.empty()
        return failed, final

    def _take_over(self, opened: OpenedSession) -> None:
        self._opened = opened
        self._is_open = True
        self._claim.note_session(self._sessions.url, opened.id)

    def _config(self, opened: OpenedSession, interruption: Interruption) -> SessionConfig:
        """Raises HostError if the exit's file is refused, or the exit's name is not resolved."""
        options = self._options
        config = session_config(opened.wg_config, options.ipv6, options.resolvers, self._tunnel.default_resolvers)
        if isinstance(config.host, str):
            with interruption.allowed():
                config = replace(config, host=self._resolved(config.host))
        return config

    def _resolved(self, name: str) -> IPAddress:
        """Resolves the exit's name once for each file: between two of them, the exit may have moved."""
        try:
            self._names[name] = self._resolve(name)
        except HostError:  # the query may have gone into a tunnel that carries nothing any more
            if name not in self._names:
                raise
        return self._names[name]

    def _ask(self, screen: Screen, interruption: Interruption) -> Over | None:
        """Queries the session; opens another one if it has ended as idle."""
        if self._idle:
            self._reopen(interruption)
            return None
        with interruption.allowed():
            status = self._sessions.status(self._opened.id, self._failures + 1)
        if isinstance(status, Live):
            self._session = status.session
            self._idle_at_once = 0
            self._answered(self._options.every_s)
        elif isinstance(status, Again):
            self._put_off(status)
        elif status.reopen:
            screen.remark(f"session {self._opened.id} had ended as idle; opening another with the same key")
            self._idle, self._session = True, status.session
            if self._idle_at_once:  # it would go on like this as fast as it answers
                self._ask_at = _now() + pause(self._idle_at_once)
            self._idle_at_once += 1
        else:
            return status
        return None

    def _reopen(self, interruption: Interruption) -> None:
        with interruption.patient(ANSWER_GRACE_S):
            opened = self._sessions.try_open(request(self._options, self._key), self._failures + 1)
        if isinstance(opened, Again):
            self._put_off(opened)
            return
        self._idle = False
        self._take_over(opened)
        self._earlier, self._session = self._earlier.plus(self._session), {}
        self._answered(0)
        config = replace(self._config(opened, interruption), ipv6=self._up_with.ipv6)  # the routes stay as they are
        if config != self._up_with:
            self._tunnel.change(self._up_with, config)
            self._up_with = config
            self._go_past_tunnel()

    def _answered(self, again_s: float) -> None:
        self._failures, self._away = 0, ""
        self._ask_at = _now() + again_s

    def _put_off(self, again: Again) -> None:
        self._failures += 1
        self._away = again.why
        self._ask_at = _now() + again.after_s

    def _go_past_tunnel(self) -> None:
        self._dialer.mark = self._tunnel.mark()
        self._claim.note_mark(self._dialer.mark)

    def _view(self) -> status_text.View:
        traffic = self._traffic()
        return status_text.View(
            id=self._opened.id,
            region=self._options.region,
            public_ip=self._opened.public_ip,
            elapsed_s=_now() - self._begun,
            traffic=traffic,
            session=self._session,
            away=self._away,
            earlier=self._earlier,
        )

    def _traffic(self) -> status_text.Traffic:
        counters, now = self._tunnel.counters(), _now()
        if counters.down < self._last.down or counters.up < self._last.up:
            carried = self._carried
            self._carried = replace(carried, down=carried.down + self._last.down, up=carried.up + self._last.up)
        self._last = counters
        reading = (now, self._carried.down + counters.down, self._carried.up + counters.up)
        down_rate, up_rate = status_text.rates(self._reading, reading)
        self._reading = reading
        age_s = None if counters.handshake_s is None else max(0.0, time.time() - counters.handshake_s)
        return status_text.Traffic(reading[1], reading[2], down_rate, up_rate, age_s)


def request(options: ConnectionOptions, key: bytes) -> dict[str, object]:
    """Returns the body of POST /v1/sessions."""
    public_key = keys.encode(keys.public_key(key))
    return {"region": options.region, "client_public_key": public_key, "ipv6": options.ipv6}


def session_config(
    given: str, ipv6: bool, resolvers: Sequence[str] | None, default_resolvers: Sequence[str] = ()
) -> SessionConfig:
    """Takes the server's wg-quick file apart. Its DNS resolvers are `resolvers`, else the operator's, else
    `default_resolvers`. Raises HostError if the file is not what this API sends."""
    config = wg_config.parse(given, ipv6=ipv6)
    chosen = resolvers if resolvers is not None else config.resolvers or default_resolvers
    return replace(config, resolvers=tuple(chosen), asked=resolvers is not None)


def run(
    connection: ClientConnection, screen: Screen, stay: Callable[[OpenedSession], ConnectionOutcome | Over]
) -> ConnectionOutcome:
    """Runs a connection. `stay`: called between its start and its end; a signal ends it and is not a failure."""
    over: Over | None = None
    try:
        opened = connection.begin()
        try:
            result = stay(opened)
        except InterruptedBySignal:
            result = ConnectionOutcome(DONE)
        over = result if isinstance(result, Over) else None
        outcome = result if isinstance(result, ConnectionOutcome) else ended(result)
    except Stopped as error:
        outcome = ConnectionOutcome(error.exit_status, str(error), cause=error)
    except (ApplianceError, OSError) as error:
        outcome = ConnectionOutcome(FAILED, str(error), cause=error)
    finally:
        failed = connection.end(screen, over)
    if not failed:
        return outcome
    lines = [outcome.line, *failed] if outcome.line else failed
    exit_status = outcome.exit_status if outcome.of_program else outcome.exit_status or FAILED
    return ConnectionOutcome(exit_status, "; ".join(lines), cause=outcome.cause)


def ended(over: Over) -> ConnectionOutcome:
    return ConnectionOutcome(ENDED, f"the server has ended the session: {over.reason}")


def _now() -> float:
    """Returns seconds on a clock that goes on while the machine sleeps (CLOCK_BOOTTIME)."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)
