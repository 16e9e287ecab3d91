"""Removes what killed runs of the client have left on this host."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

from appliance.client.api.http import NoAnswer
from appliance.client.api.sessions import SESSIONS, STATUS_S
from appliance.client.run_records import abandoned
from appliance.client.tunnel.full_tunnel import WholeMachine
from appliance.client.tunnel.namespace_tunnel import remove_interface
from appliance.network.wireguard.wireguard_go import end_wireguard_go

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from appliance.client.api.http import Api
    from appliance.client.run_records import RunRecord


def clear(api: Api, token: str, environ: Mapping[str, str], remark: Callable[[str], None]) -> None:
    """Removes tunnels of killed runs, and closes their sessions on this exit; sessions elsewhere end as idle.

    Raises HostError or TunnelError: if an interface cannot be removed.
    """
    with abandoned() as places:
        for place in places:
            failed = _take_down(place.record, environ, remark)
            if place.record.session and place.record.api == api.url:
                with suppress(NoAnswer):
                    api.ask("DELETE", f"{SESSIONS}/{place.record.session}", token, seconds=STATUS_S)
            if failed:
                remark(f"cannot clear up what process {place.record.pid} has left: {'; '.join(failed)}")
                continue
            place.empty()
            remark(f"cleared up what process {place.record.pid} had left: {place.record.interface}")


def _take_down(record: RunRecord, environ: Mapping[str, str], remark: Callable[[str], None]) -> list[str]:
    if record.kind == "machine":
        return WholeMachine(record.interface, environ, remark, record.mark).down()
    # The network namespace has no name: it ends with the last process in it.
    end_wireguard_go(record.interface)
    remove_interface(record.interface)
    return []
