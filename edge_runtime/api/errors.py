"""Errors as OpenAI's clients know them: {"error": {"message", "type", "param", "code"}}, and x-should-retry.

Everything else in this package raises errors of the one tree; here they are told. Knows no endpoint.
"""

import re
from collections.abc import Mapping

import msgspec
from fastapi import Response
from starlette.requests import HTTPConnection
from starlette.types import Scope, Send

from cloud_verifier.answers import NOTHING, headers_of
from cloud_verifier.refusal import turn_away
from cloud_verifier.schemas import JSON
from cloud_verifier.telemetry import mark_refused
from outrider.errors import ModelMismatch, OutriderError, ProtocolError, Refused, VocabularyMismatch

__all__ = ["ErrorReply", "error_reply", "of_the_verifier", "refuse", "refuse_early"]

CODES = {
    "context_exceeded": "context_length_exceeded",
    "unauthorized": "invalid_api_key",
    "too_many": "rate_limit_exceeded",
    "unknown_model": "model_not_found",
}
TYPES = {401: "authentication_error", 403: "permission_error", 429: "rate_limit_error"}
# Our sentences about a parameter begin with it.
PARAM = re.compile(r"([a-z]+(?:_[a-z]+)*(?:\[\d+\])?(?:\.[a-z_]+|\[\d+\]|\[\.\.\.\])*)(?= is | has | names |: )")


class ErrorBody(msgspec.Struct, frozen=True):
    message: str
    type: str
    param: str | None
    code: str


class ErrorReply(msgspec.Struct, frozen=True):
    error: ErrorBody


def error_reply(error: OutriderError) -> ErrorReply:
    status = error.http_status
    kind = TYPES.get(status, "invalid_request_error" if status < 500 else "server_error")
    found = PARAM.match(str(error)) if status == 400 else None
    return ErrorReply(ErrorBody(str(error), kind, found[1] if found else None, CODES.get(error.code, error.code)))


def of_the_verifier(error: OutriderError) -> OutriderError:
    """What the verifier holds against this device is not the client's fault, and is not told as if it were."""
    if isinstance(error, Refused | ModelMismatch | VocabularyMismatch | ProtocolError):
        error.http_status = 503 if error.may_retry else 502
    return error


def refuse(request: HTTPConnection, error: OutriderError, headers: Mapping[str, str] = NOTHING) -> Response:
    """The answer that an error is."""
    mark_refused(request.scope, error)
    body = msgspec.json.encode(error_reply(error))
    return Response(body, error.http_status, {**_headers_of(error), **headers}, media_type=JSON)


async def refuse_early(error: OutriderError, scope: Scope, send: Send) -> None:
    """The same before any endpoint is reached."""
    body = msgspec.json.encode(error_reply(error))
    await turn_away(error, scope, send, error.http_status, body, _headers_of(error))


def _headers_of(error: OutriderError) -> dict[str, str]:
    return {"x-should-retry": "true" if error.may_retry else "false", **headers_of(error)}
