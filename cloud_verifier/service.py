"""The verifier as an ASGI application: its doors, and the server that holds them. Each door is a module of its own."""

import uvicorn
from fastapi import FastAPI, WebSocket

from cloud_verifier.answers import answer_errors
from cloud_verifier.drain import GRACE_S, DrainingServer
from cloud_verifier.loop import VerifierLoop
from cloud_verifier.openapi import add_pages
from cloud_verifier.probes import probe_router
from cloud_verifier.rest import rest_router
from cloud_verifier.stream import serve_stream
from cloud_verifier.telemetry import ObserveRequests, Telemetry
from cloud_verifier.tracing import configured_tracer
from outrider.wire import MAX_MESSAGE_BYTES, STREAM_PATH

__all__ = ["create_app", "create_server"]


def _nobody() -> str:
    return ""


def create_app(verifier: VerifierLoop, model: str = "", engine: str = "") -> FastAPI:
    """The application over a running verifier, which stays the caller's to close. `model`, `engine`: names to show."""
    telemetry = Telemetry(verifier, configured_tracer())
    app = FastAPI(title="Outrider verifier", docs_url=None, redoc_url=None, openapi_url=None)
    app.add_middleware(ObserveRequests, telemetry=telemetry)
    answer_errors(app)
    app.include_router(probe_router(verifier, telemetry, _nobody))
    app.include_router(rest_router(verifier, telemetry, _nobody, model, engine))
    add_pages(app)

    @app.websocket(STREAM_PATH)
    async def stream(socket: WebSocket) -> None:
        await serve_stream(socket, verifier, telemetry, "")

    return app


def create_server(
    verifier: VerifierLoop, model: str = "", engine: str = "", grace_s: float = GRACE_S
) -> uvicorn.Server:
    """The service over a running verifier, ready to run on sockets of the caller's; stopped by SIGTERM, it drains."""
    config = uvicorn.Config(
        create_app(verifier, model, engine),
        log_level="warning",
        ws="websockets-sansio",
        ws_max_size=MAX_MESSAGE_BYTES,
        ws_per_message_deflate=False,  # lengths would leak repeats, and it costs more than it saves
        timeout_graceful_shutdown=1,  # after the drain, which has said all there was to say
    )
    return DrainingServer(config, verifier, grace_s)
