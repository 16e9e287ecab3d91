"""Removes what killed runs of the client have left on this host."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

from appliance.client.api.http import NoAnswer
from appliance.client.api.sessions import ANSWER_GRACE_S, SESSIONS, STATUS_S
from appliance.client.run_records import abandoned
from appliance.client.tunnel.full_tunnel import FullTunnel
from appliance.client.tunnel.namespace_tunnel import remove_interface
from appliance.network.wireguard import link_state
from appliance.network.wireguard.wireguard_go import end_wireguard_go

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from appliance.client.api.http import Api
    from appliance.client.run_records import RunClaim, RunRecord
    from appliance.client.signals import Interruption


def clear(
    api: Api, token: str, environ: Mapping[str, str], remark: Callable[[str], None], interruption: Interruption
) -> None:
    """Removes tunnels of killed runs, and closes their sessions on this exit; sessions elsewhere end as idle.

    Raises HostError or TunnelError if an interface cannot be removed.
    """
    with abandoned() as claims:
        for claim in claims:
            if not claim.is_readable and not _is_here(claim.record):
                remark(_unreadable(claim))
                continue
            failed = _take_down(claim.record, environ, remark)
            if claim.record.session and claim.record.api == api.url:
                with suppress(NoAnswer), interruption.patient(ANSWER_GRACE_S):
                    api.ask("DELETE", f"{SESSIONS}/{claim.record.session}", token, seconds=STATUS_S)
            whose = f"process {claim.record.pid}" if claim.is_readable else "a run whose record cannot be read"
            if failed:
                remark(f"cannot clear up what {whose} has left: {'; '.join(failed)}")
                continue
            claim.empty()
            remark(f"cleared up what {whose} had left: {claim.record.interface}")


def _is_here(record: RunRecord) -> bool:
    return link_state.link_kind(record.interface) is not None


def _unreadable(claim: RunClaim) -> str:
    return (
        f"{claim.path} cannot be read, and there is no {claim.record.interface} here: a killed run may have left it in "
        "another network namespace; remove the file if it is in none"
    )


def _take_down(record: RunRecord, environ: Mapping[str, str], remark: Callable[[str], None]) -> list[str]:
    if record.kind == "machine":
        return FullTunnel(record.interface, environ, remark, mark=record.mark).down()
    # The network namespace has no name: it ends with the last process in it.
    end_wireguard_go(record.interface)
    remove_interface(record.interface)
    return []
