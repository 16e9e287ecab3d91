"""Defines the routes below /v1/sessions."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from litestar import MediaType, Request, Response, delete, get, post
from litestar.params import FromPath  # noqa: TC002 (Litestar reads the handlers' annotations at run time)
from litestar.status_codes import HTTP_200_OK, HTTP_201_CREATED

from appliance.domain.errors import InvalidRequest, SessionNotFound
from appliance.server.api.accept import prefers_text
from appliance.server.api.auth import presented
from appliance.server.api.openapi_failures import (
    BAD_BODY,
    BAD_PARAMETER,
    KEY_IN_USE,
    NO_MORE_LIVE,
    NO_NODE,
    NOT_ENDED,
    NOT_FOUND,
    QUOTA_EXCEEDED,
    TOO_LARGE,
    TOO_MANY,
    UNAUTHENTICATED,
    UNAVAILABLE,
    failures,
)
from appliance.server.api.openapi_operations import (
    BEARER,
    SESSION_ID_HEADER,
    CreateSession,
    ListSessions,
    OneSession,
)
from appliance.server.api.routes.handling import object_in, options
from appliance.server.api.schemas import (
    SessionCreated,
    SessionList,
    SessionStatus,
    parse_list_query,
    parse_session_request,
)

if TYPE_CHECKING:
    from collections.abc import Container, Sequence

    from litestar.types import ControllerRouterHandler

    from appliance.domain.clock import Clock
    from appliance.domain.entities import Account, Session
    from appliance.server.api.auth import Authenticator
    from appliance.server.api.offered import Offered
    from appliance.sessions.opening import NewSession

AnyRequest = Request[Any, Any, Any]


def session_routes(
    offered: Offered,
    authenticate: Authenticator,
    own_keys: Container[bytes],
    clock: Clock,
) -> list[ControllerRouterHandler]:
    """Returns the routes. `own_keys`: public keys that no client may use, such as the exit's own."""

    async def shape(account: Account, listed: Sequence[Session]) -> list[SessionStatus]:
        names, quotas = await offered.devices.names(listed), await offered.quotas.of_each(account, listed)
        now = clock.now()
        return [
            SessionStatus.of(session, quota, now, names.get(session.device_id))
            for session, quota in zip(listed, quotas, strict=True)
        ]

    @post(
        "/v1/sessions",
        operation_id="createSession",
        operation_class=CreateSession,
        tags=["sessions"],
        summary="Open a session",
        response_description="the session, and its tunnel's file",
        security=BEARER,
        responses=failures(
            s400=BAD_BODY,
            s401=UNAUTHENTICATED,
            s402=QUOTA_EXCEEDED,
            s403=NO_MORE_LIVE,
            s409=KEY_IN_USE,
            s413=TOO_LARGE,
            s429=TOO_MANY,
            s503=NO_NODE,
        ),
    )
    async def create_session(request: AnyRequest) -> SessionCreated:
        """Open a session. The answer contains a whole wg-quick file; with Accept: text/plain it is the file alone."""
        account = await authenticate(request)
        wanted = parse_session_request(await object_in(request), own_keys)
        opened = await offered.sessions.open(account, replace(wanted, token_hash=presented(request)))
        return _file(opened) if prefers_text(request.scope["headers"]) else SessionCreated.of(opened)  # type: ignore[return-value]  # the declared type is JSON's

    @get(
        "/v1/sessions/{session_id:str}",
        operation_id="getSession",
        operation_class=OneSession,
        tags=["sessions"],
        summary="Show a session",
        response_description="the session's figures",
        security=BEARER,
        responses=failures(s401=UNAUTHENTICATED, s404=NOT_FOUND, s429=TOO_MANY, s503=UNAVAILABLE),
    )
    async def get_session(request: AnyRequest, session_id: FromPath[str]) -> SessionStatus:
        """Show a session: its current figures, or the final ones."""
        account = await authenticate(request)
        (found,) = await shape(account, [await offered.sessions.find(account, session_id)])
        return found

    @delete(
        "/v1/sessions/{session_id:str}",
        operation_id="deleteSession",
        operation_class=OneSession,
        tags=["sessions"],
        summary="End a session",
        response_description="the session's figures",
        status_code=HTTP_200_OK,
        security=BEARER,
        responses=failures(s401=UNAUTHENTICATED, s404=NOT_FOUND, s429=TOO_MANY, s503=NOT_ENDED),
    )
    async def delete_session(request: AnyRequest, session_id: FromPath[str]) -> SessionStatus:
        """End a session. Its peer has been removed when this is answered. Ending it again changes nothing."""
        account = await authenticate(request)
        (ended,) = await shape(account, [await offered.sessions.close(account, session_id)])
        return ended.closed()

    @get(
        "/v1/sessions",
        operation_id="listSessions",
        operation_class=ListSessions,
        tags=["sessions"],
        summary="List the account's sessions",
        response_description="the sessions",
        security=BEARER,
        responses=failures(s400=BAD_PARAMETER, s401=UNAUTHENTICATED, s429=TOO_MANY, s503=UNAVAILABLE),
    )
    async def list_sessions(request: AnyRequest) -> SessionList:
        """List the account's sessions, newest first."""
        account = await authenticate(request)
        query = parse_list_query(list(request.query_params.multi_items()))
        if query.before is not None:
            try:
                await offered.sessions.find(account, query.before)
            except SessionNotFound as error:
                raise InvalidRequest("before must be the id of a session") from error
        listed = await offered.sessions.list(account, live=query.live, before=query.before, limit=query.limit)
        return SessionList(await shape(account, listed))

    return [
        options("/v1/sessions", "GET", "POST"),
        options("/v1/sessions/{session_id:str}", "DELETE", "GET"),
        create_session,
        get_session,
        delete_session,
        list_sessions,
    ]


def _file(opened: NewSession) -> Response[str]:
    """Returns the file as the whole answer, so that a client without a JSON parser can write it as it is."""
    return Response(
        opened.wg_config,
        status_code=HTTP_201_CREATED,
        media_type=MediaType.TEXT,
        headers={SESSION_ID_HEADER: opened.session.id},
    )
