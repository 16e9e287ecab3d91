"""`python -m tests.bench.bare_server SOCKET < BODY`: one route that answers with this JSON, parsed once; no more.

What the API's answer is made of and no other work: its class, Litestar, and uvicorn as it is, which logs no requests.
"""

from __future__ import annotations

import socket
import sys

import msgspec
import uvicorn
from litestar import Litestar, get
from litestar.params import FromPath  # noqa: TC002 (Litestar reads the handlers' annotations at run time)

from appliance.server.api.schemas import SessionStatus


def main(path: str, body: bytes) -> None:
    status = msgspec.json.decode(body, type=SessionStatus)

    @get("/v1/sessions/{session_id:str}")
    async def get_session(session_id: FromPath[str]) -> SessionStatus:  # noqa: ARG001 (it has one)
        return status

    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        listener.listen(64)
        app = Litestar([get_session], openapi_config=None, logging_config=None)
        uvicorn.Server(uvicorn.Config(app, log_config=None, access_log=False, timeout_keep_alive=60)).run(
            sockets=[listener]
        )


if __name__ == "__main__":
    main(sys.argv[1], sys.stdin.buffer.read())
