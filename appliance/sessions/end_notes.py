"""Counts and logs the ends of sessions."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from appliance.config.log_format import about

if TYPE_CHECKING:
    from appliance.domain.entities import Reason, Session
    from appliance.sessions.metrics import Metrics

log = logging.getLogger(__name__)


def note_end(metrics: Metrics, session: Session, reason: Reason) -> None:
    """Counts and logs the end of a session."""
    metrics.sessions_terminated.labels(reason).inc()
    log.info("session ended", extra=about(**ids_of(session), reason=reason))


def ids_of(session: Session) -> dict[str, str]:
    """Returns the fields that name a session in the log."""
    return {"session": session.id, "account": session.account_id}
