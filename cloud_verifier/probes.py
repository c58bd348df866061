"""What an orchestrator asks: alive, ready, and in what figures. Knows nothing of sessions."""

from collections.abc import Callable
from typing import Any

from fastapi import APIRouter, Depends, Request, Response

from cloud_verifier.answers import answer
from cloud_verifier.loop import VerifierLoop
from cloud_verifier.metrics import CONTENT_TYPE
from cloud_verifier.openapi import describe
from cloud_verifier.schemas import State
from cloud_verifier.telemetry import Telemetry

__all__ = ["probe_router"]


def probe_router(verifier: VerifierLoop, telemetry: Telemetry, credential_of: Callable[..., Any]) -> APIRouter:
    """/healthz is open to all; the others ask for `credential_of`."""
    router = APIRouter()
    known = [Depends(credential_of)]

    async def healthz(request: Request) -> Response:
        return answer(request, State("ok"))

    async def readyz(request: Request) -> Response:
        verifier.check_ready()
        return answer(request, State("ready"))

    async def metrics() -> Response:
        return Response(telemetry.metrics.text(), media_type=CONTENT_TYPE)

    router.add_api_route("/healthz", healthz, **describe("Alive", None, State))
    router.add_api_route("/readyz", readyz, dependencies=known, **describe("Takes new sessions", None, State))
    router.add_api_route("/metrics", metrics, dependencies=known, include_in_schema=False)
    return router
