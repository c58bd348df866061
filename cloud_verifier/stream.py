"""The WebSocket door: one socket a session, one message a frame.

Knows how messages travel and nothing of what they do. A task always reads, so that a client that leaves is noticed
during a pass and its work dropped.
"""

import asyncio
import contextlib

from fastapi import WebSocket, WebSocketDisconnect

from cloud_verifier.loop import Connection, VerifierLoop
from outrider.errors import LinkLost, OutriderError, Refused
from outrider.wire import SUBPROTOCOL, Down, Fault, Open, Verified, decode_up, from_frame, to_frame

__all__ = ["serve_stream"]

UNSUPPORTED = 1002  # WebSocket close code: protocol error
NORMAL = 1000
TRY_LATER = 1013


async def serve_stream(socket: WebSocket, verifier: VerifierLoop, credential: str) -> None:
    """One session from handshake to last word."""
    if SUBPROTOCOL not in socket.scope["subprotocols"]:
        await socket.close(UNSUPPORTED)
        return
    outbox: asyncio.Queue[Down] = asyncio.Queue()
    loop = asyncio.get_running_loop()

    def deliver(message: Down) -> None:
        with contextlib.suppress(RuntimeError):  # the event loop closed before the verifier noticed
            loop.call_soon_threadsafe(outbox.put_nowait, message)

    try:
        connection = verifier.connect(deliver, credential)
    except (LinkLost, Refused):
        await socket.close(TRY_LATER)
        return
    await socket.accept(SUBPROTOCOL)
    stream = _Stream(socket, connection, outbox)
    reader = asyncio.create_task(stream.read())
    try:
        await stream.write(reader)
    finally:
        connection.close()
        reader.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await reader


class _Stream:
    def __init__(self, socket: WebSocket, connection: Connection, outbox: asyncio.Queue[Down]) -> None:
        self._socket = socket
        self._connection = connection
        self._outbox = outbox
        self._is_padded = True

    async def read(self) -> None:
        """Hand every message to the verifier until the client leaves or breaks the rules."""
        with contextlib.suppress(WebSocketDisconnect):
            while True:
                try:
                    event = await self._socket.receive()
                    if event["type"] == "websocket.disconnect":
                        return
                    message = decode_up(from_frame(event.get("bytes") or b""))
                    if isinstance(message, Open):
                        self._is_padded = message.is_padded
                    self._connection.send(message)
                except OutriderError as error:
                    self._outbox.put_nowait(Fault.of(error))
                    return

    async def write(self, reader: "asyncio.Task[None]") -> None:
        """Send what the verifier says, to the last word or until the reader sees the client leave."""
        while True:
            waiting = asyncio.create_task(self._outbox.get())
            try:
                await asyncio.wait({waiting, reader}, return_when=asyncio.FIRST_COMPLETED)
                if not waiting.done() and self._outbox.empty():
                    return
                message = await waiting
            finally:
                waiting.cancel()
            with contextlib.suppress(WebSocketDisconnect, RuntimeError):  # it left while we were speaking
                await self._socket.send_bytes(to_frame(message, is_padded=self._is_padded))
                if isinstance(message, Fault) or (isinstance(message, Verified) and message.finish):
                    await self._socket.close(NORMAL)
                    return
                continue
            return
