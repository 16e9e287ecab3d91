"""Takes away what runs have left that were killed."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

from appliance.client.api.http import NoAnswer
from appliance.client.api.sessions import SESSIONS, STATUS_S
from appliance.client.run_records import abandoned
from appliance.client.tunnel.device import end_wireguard_go
from appliance.client.tunnel.full_tunnel import WholeMachine
from appliance.client.tunnel.namespace_tunnel import remove_interface

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from appliance.client.api.http import Api
    from appliance.client.run_records import RunRecord


def clear(api: Api, token: str, environ: Mapping[str, str], remark: Callable[[str], None]) -> None:
    """Of the same exit, their sessions too; others end as idle. Raises HostError or TunnelError."""
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
    # Its namespace had no name: it goes with the last program in it.
    end_wireguard_go(record.interface)
    remove_interface(record.interface)
    return []
