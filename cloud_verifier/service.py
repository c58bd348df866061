"""The verifier as an ASGI application: its doors, and the server that holds them. Each door is a module of its own."""

import uvicorn
from fastapi import FastAPI, WebSocket

from cloud_verifier.loop import VerifierLoop
from cloud_verifier.stream import serve_stream
from outrider.wire import MAX_MESSAGE_BYTES, STREAM_PATH

__all__ = ["create_app", "create_server"]


def create_app(verifier: VerifierLoop) -> FastAPI:
    """The application over a running verifier, which stays the caller's to close."""
    app = FastAPI(title="Outrider verifier", docs_url=None, redoc_url=None, openapi_url=None)

    @app.get("/healthz")
    async def healthz() -> dict[str, str]:
        return {"status": "ok"}

    @app.websocket(STREAM_PATH)
    async def stream(socket: WebSocket) -> None:
        await serve_stream(socket, verifier, "")

    return app


def create_server(verifier: VerifierLoop) -> uvicorn.Server:
    """The service over a running verifier, ready to run on sockets of the caller's."""
    config = uvicorn.Config(
        create_app(verifier),
        log_level="warning",
        ws="websockets-sansio",
        ws_max_size=MAX_MESSAGE_BYTES,
        ws_per_message_deflate=False,  # lengths would leak repeats, and it costs more than it saves
    )
    return uvicorn.Server(config)
