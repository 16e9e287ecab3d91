"""/v1/sessions."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from litestar import Request, delete, get, post
from litestar.exceptions import InternalServerException
from litestar.params import FromPath  # noqa: TC002 (Litestar reads the handlers' annotations at run time)
from litestar.status_codes import HTTP_200_OK

from appliance.api.documentation import (
    BEARER,
    NO_NODE,
    NOT_FOUND,
    UNAUTHENTICATED,
    UNAVAILABLE,
    CreateSession,
    ListSessions,
    OneSession,
    failures,
)
from appliance.api.schemas import (
    ErrorBody,
    QuotaErrorBody,
    SessionCreated,
    SessionList,
    SessionStatus,
    parse_list_query,
    parse_object,
    parse_wish,
)
from appliance.errors import InvalidRequest, SessionNotFound

if TYPE_CHECKING:
    from collections.abc import Container

    from litestar.types import ControllerRouterHandler

    from appliance.api.auth import Authenticator
    from appliance.clock import Clock
    from appliance.entities import Account, Session
    from appliance.quotas import Quotas
    from appliance.sessions import Sessions

AnyRequest = Request[Any, Any, Any]


async def _body(request: AnyRequest) -> bytes:
    try:
        return await request.body()
    except InternalServerException as error:  # Litestar's word for a client that left before its body was whole
        raise InvalidRequest("the body is not whole") from error


def session_routes(
    sessions: Sessions, quotas: Quotas, authenticate: Authenticator, own_keys: Container[bytes], clock: Clock
) -> list[ControllerRouterHandler]:
    """`own_keys`: public keys no client may use, the exit's own among them."""

    async def shape(account: Account, session: Session) -> SessionStatus:
        return SessionStatus.of(session, await quotas.of(account), clock.now())

    @post(
        "/v1/sessions",
        operation_class=CreateSession,
        security=BEARER,
        responses=failures(
            s400=("the body is not a JSON object, or a field is at fault", ErrorBody),
            s401=UNAUTHENTICATED,
            s402=("a usage window is used up; until when", QuotaErrorBody),
            s403=("the tier's live sessions are all in use", ErrorBody),
            s413=("the body is too large", ErrorBody),
            s503=NO_NODE,
        ),
    )
    async def create_session(request: AnyRequest) -> SessionCreated:
        """Open a session: a whole wg-quick file comes back."""
        account = await authenticate(request)
        wish = parse_wish(parse_object(await _body(request)), own_keys)
        return SessionCreated.of(await sessions.open(account, wish))

    @get(
        "/v1/sessions/{session_id:str}",
        operation_class=OneSession,
        security=BEARER,
        responses=failures(s401=UNAUTHENTICATED, s404=NOT_FOUND),
    )
    async def get_session(request: AnyRequest, session_id: FromPath[str]) -> SessionStatus:
        """A session's figures, live or final."""
        account = await authenticate(request)
        return await shape(account, await sessions.find(account, session_id))

    @delete(
        "/v1/sessions/{session_id:str}",
        operation_class=OneSession,
        status_code=HTTP_200_OK,
        security=BEARER,
        responses=failures(s401=UNAUTHENTICATED, s404=NOT_FOUND, s503=UNAVAILABLE),
    )
    async def delete_session(request: AnyRequest, session_id: FromPath[str]) -> SessionStatus:
        """End a session: its peer is gone when this is answered. Ending it again changes nothing."""
        account = await authenticate(request)
        return await shape(account, await sessions.close(account, session_id))

    @get(
        "/v1/sessions",
        operation_class=ListSessions,
        security=BEARER,
        responses=failures(s400=("a parameter is at fault", ErrorBody), s401=UNAUTHENTICATED),
    )
    async def list_sessions(request: AnyRequest) -> SessionList:
        """The account's sessions, newest first."""
        account = await authenticate(request)
        query = parse_list_query(request.query_params)
        if query.before is not None:
            try:
                await sessions.find(account, query.before)
            except SessionNotFound as error:
                raise InvalidRequest("before must be the id of a session") from error
        found = await sessions.list(account, live=query.live, before=query.before, limit=query.limit)
        quota, now = await quotas.of(account), clock.now()
        return SessionList([SessionStatus.of(session, quota, now) for session in found])

    return [create_session, get_session, delete_session, list_sessions]
