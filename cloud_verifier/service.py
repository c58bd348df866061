"""The verifier as an ASGI application: one WebSocket a session, binary messages, and a health check.

Knows how messages travel and nothing of what they do. A task always reads, so that a client that leaves is noticed
during a pass and its work dropped.
"""

import asyncio
import contextlib

import uvicorn
from fastapi import FastAPI, WebSocket, WebSocketDisconnect

from cloud_verifier.loop import Connection, VerifierLoop
from outrider.errors import LinkLost, OutriderError
from outrider.wire import MAX_MESSAGE_BYTES, STREAM_PATH, SUBPROTOCOL, Down, Fault, Verified, decode_up, encode

__all__ = ["create_app", "create_server"]

UNSUPPORTED = 1002  # WebSocket close code: protocol error
NORMAL = 1000
TRY_LATER = 1013


def create_app(verifier: VerifierLoop) -> FastAPI:
    """The application over a running verifier, which stays the caller's to close."""
    app = FastAPI(title="Outrider verifier", docs_url=None, redoc_url=None, openapi_url=None)

    @app.get("/healthz")
    async def healthz() -> dict[str, str]:
        return {"status": "ok"}

    @app.websocket(STREAM_PATH)
    async def stream(socket: WebSocket) -> None:
        if SUBPROTOCOL not in socket.scope["subprotocols"]:
            await socket.close(UNSUPPORTED)
            return
        outbox: asyncio.Queue[Down] = asyncio.Queue()
        loop = asyncio.get_running_loop()

        def deliver(message: Down) -> None:
            with contextlib.suppress(RuntimeError):  # the event loop closed before the verifier noticed
                loop.call_soon_threadsafe(outbox.put_nowait, message)

        try:
            connection = verifier.connect(deliver)
        except LinkLost:
            await socket.close(TRY_LATER)
            return
        await socket.accept(SUBPROTOCOL)
        reader = asyncio.create_task(_read(socket, connection, outbox))
        try:
            await _write(socket, outbox, reader)
        finally:
            connection.close()
            reader.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await reader

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


async def _read(socket: WebSocket, connection: Connection, outbox: asyncio.Queue[Down]) -> None:
    """Hand every message to the verifier until the client leaves or breaks the rules."""
    with contextlib.suppress(WebSocketDisconnect):
        while True:
            event = await socket.receive()
            if event["type"] == "websocket.disconnect":
                return
            try:
                connection.send(decode_up(event.get("bytes") or b""))
            except OutriderError as error:
                outbox.put_nowait(Fault.of(error))
                return


async def _write(socket: WebSocket, outbox: asyncio.Queue[Down], reader: "asyncio.Task[None]") -> None:
    """Send what the verifier says, to the last word or until the reader sees the client leave."""
    while True:
        waiting = asyncio.create_task(outbox.get())
        await asyncio.wait({waiting, reader}, return_when=asyncio.FIRST_COMPLETED)
        if not waiting.done() and outbox.empty():
            waiting.cancel()
            return
        message = await waiting
        with contextlib.suppress(WebSocketDisconnect, RuntimeError):  # it left while we were speaking
            await socket.send_bytes(encode(message))
            if isinstance(message, Fault) or (isinstance(message, Verified) and message.finish):
                await socket.close(NORMAL)
                return
            continue
        return
