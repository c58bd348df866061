"""How a REST door says yes and no: in JSON or msgpack as the client accepts, errors always in one shape.

{"error": {"code": "...", "message": "...", "request_id": "..."}}
"""

import logging
import math
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import TypeAlias

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from msgspec import Struct
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, HTTPConnection

from cloud_verifier.calls import ClientLeft
from cloud_verifier.schemas import JSON, MSGPACK, ErrorAnswer, ErrorBody, write
from cloud_verifier.telemetry import CLIENT_LEFT, mark_refused, request_id_of
from outrider.errors import InvalidParameter, OutriderError, Unauthorized

__all__ = ["NOTHING", "answer", "answer_errors", "headers_of", "refuse", "told"]

logger = logging.getLogger(__name__)

NOTHING: Mapping[str, str] = MappingProxyType({})
Refusal: TypeAlias = Callable[[HTTPConnection, OutriderError, Mapping[str, str]], Response]


def answer(request: HTTPConnection, content: Struct, status: int = 200) -> Response:
    media_type = MSGPACK if MSGPACK in request.headers.get("accept", "") else JSON
    return Response(write(content, media_type), status, media_type=media_type)


def told(error: OutriderError, request_id: str) -> ErrorAnswer:
    return ErrorAnswer(ErrorBody(error.code, str(error), request_id))


def refuse(request: HTTPConnection, error: OutriderError, headers: Mapping[str, str] = NOTHING) -> Response:
    """The answer that an error is, to a request or to a WebSocket's handshake."""
    mark_refused(request.scope, error)
    response = answer(request, told(error, request_id_of(request)), error.http_status)
    response.headers.update({**headers_of(error), **headers})
    return response


def headers_of(error: OutriderError) -> dict[str, str]:
    """What tells a client's library what to do: show a token, come again later."""
    headers = {}
    if isinstance(error, Unauthorized):
        headers["www-authenticate"] = "Bearer"
    if error.may_retry:
        headers["retry-after"] = str(max(1, math.ceil(error.retry_after_ms / 1000)))
    return headers


def answer_errors(app: FastAPI, refuse: Refusal = refuse, page: str = "docs/protocol.md") -> None:
    """Give every error that can leave a door its status and its shape. `page` says what there is."""

    async def ours(request: Request, error: Exception) -> Response:
        if not isinstance(error, OutriderError):
            raise error
        return refuse(request, error, NOTHING)

    async def theirs(request: Request, error: Exception) -> Response:
        """No such route, no such method, and what a dependency of the framework's refuses."""
        status = error.status_code if isinstance(error, HTTPException) else 400
        headers = dict(error.headers or {}) if isinstance(error, HTTPException) else {}
        refusal = InvalidParameter(f"{request.method} is not for this address; see {page}")
        refusal.http_status = status
        return refuse(request, refusal, headers)

    async def left(request: Request, error: Exception) -> Response:
        return Response(status_code=CLIENT_LEFT)

    async def failed(request: Request, error: Exception) -> Response:
        logger.error("a request failed", extra={"request_id": request_id_of(request)}, exc_info=error)
        return refuse(request, OutriderError("the service failed; tell its operator the request's id"), NOTHING)

    app.add_exception_handler(OutriderError, ours)
    app.add_exception_handler(HTTPException, theirs)
    app.add_exception_handler(RequestValidationError, theirs)
    app.add_exception_handler(ClientLeft, left)
    app.add_exception_handler(ClientDisconnect, left)
    app.add_exception_handler(Exception, failed)
