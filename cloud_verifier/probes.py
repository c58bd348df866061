"""What an orchestrator asks: alive, ready, and in what figures. Knows nothing of sessions."""

from fastapi import Depends, FastAPI, Request, Response

from cloud_verifier.answers import answer
from cloud_verifier.loop import VerifierLoop
from cloud_verifier.metrics import CONTENT_TYPE
from cloud_verifier.openapi import describe
from cloud_verifier.schemas import State
from cloud_verifier.security import credential_of
from cloud_verifier.telemetry import Telemetry

__all__ = ["add_probes"]


def add_probes(app: FastAPI, verifier: VerifierLoop, telemetry: Telemetry) -> None:
    """/healthz is open to all."""
    known = [Depends(credential_of)]

    async def healthz(request: Request) -> Response:
        return answer(request, State("ok"))

    async def readyz(request: Request) -> Response:
        verifier.check_ready()
        return answer(request, State("ready"))

    async def metrics() -> Response:
        return Response(telemetry.metrics.text(), media_type=CONTENT_TYPE)

    app.add_api_route("/healthz", healthz, **describe("Alive", None, State))
    app.add_api_route("/readyz", readyz, dependencies=known, **describe("Takes new sessions", None, State))
    app.add_api_route("/metrics", metrics, dependencies=known, include_in_schema=False)
