"""What the doors tell operators, in one place: metrics, log lines, spans, each under the id of its request.

A request's id is the client's x-request-id where that is sane, else made here; the answer carries it back.
"""

import logging
import re
import secrets
import time
from typing import Any

from starlette.datastructures import MutableHeaders
from starlette.requests import HTTPConnection
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from cloud_verifier.loop import VerifierLoop
from cloud_verifier.metrics import Metrics
from cloud_verifier.records import SessionRecord
from outrider.errors import OutriderError

__all__ = ["CLIENT_LEFT", "ObserveRequests", "Telemetry", "mark_refused", "request_id_of"]

logger = logging.getLogger(__name__)

SANE = re.compile(r"[A-Za-z0-9._-]{1,64}")
REQUEST_ID = "x-request-id"
PROBES = ("/healthz", "/readyz", "/metrics")  # they would drown the rest of the log
CLIENT_LEFT = 499  # the status of a request that got no answer


class Telemetry:
    """`tracer` is an OpenTelemetry tracer, or None."""

    def __init__(self, verifier: VerifierLoop, tracer: Any = None) -> None:
        self.metrics = Metrics(verifier)
        self._tracer = tracer

    def session(self, door: str, credential: str, request_id: str) -> SessionRecord:
        span = self._tracer.start_span(f"outrider.{door}") if self._tracer else None
        return SessionRecord(door, credential, request_id, span)


def request_id_of(connection: HTTPConnection) -> str:
    return str(connection.scope.get("state", {}).get("request_id", ""))


def mark_refused(scope: Scope, error: OutriderError) -> None:
    """Say why a request was not answered with what it asked for; it is counted and logged when the request is over."""
    scope.setdefault("state", {})["refused"] = error.code


class ObserveRequests:
    """ASGI middleware, the outermost: gives every request its id, and logs it, and counts it, when it is over."""

    def __init__(self, app: ASGIApp, metrics: Metrics | None = None) -> None:
        self._app = app
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        given = HTTPConnection(scope).headers.get(REQUEST_ID, "")
        request_id = given if SANE.fullmatch(given) else secrets.token_hex(8)
        scope.setdefault("state", {})["request_id"] = request_id
        began_s = time.monotonic()
        status = 0

        async def observed(message: Message) -> None:
            nonlocal status
            if message["type"] in ("http.response.start", "websocket.accept", "websocket.http.response.start"):
                status = message.get("status", 101)
                MutableHeaders(scope=message)[REQUEST_ID] = request_id
            await send(message)

        try:
            await self._app(scope, receive, observed)
        finally:
            self._over(scope, status or CLIENT_LEFT, time.monotonic() - began_s)

    def _over(self, scope: Scope, status: int, elapsed_s: float) -> None:
        route = getattr(scope.get("route"), "path", "none")
        refused = scope["state"].get("refused", "")
        if scope["type"] != "http" and not refused:
            return  # a session tells of itself
        if self._metrics is not None and refused:
            self._metrics.refused(refused)
        if self._metrics is not None and scope["type"] == "http":
            self._metrics.request(route, status, elapsed_s)
        level = logging.DEBUG if route in PROBES else logging.INFO
        fields = {"request_id": scope["state"]["request_id"], "route": route, "status": status, "refused": refused}
        logger.log(level, "request", extra={**fields, "duration_ms": round(elapsed_s * 1000, 3)})
