"""The WebSocket door: one socket a session, one message a frame.

Knows how messages travel and nothing of what they do. A task always reads, so that a client that leaves is noticed
during a pass and its work dropped.
"""

import asyncio
import contextlib

from fastapi import WebSocket, WebSocketDisconnect

from cloud_verifier.answers import refuse
from cloud_verifier.conversation import Conversation
from cloud_verifier.loop import VerifierLoop
from cloud_verifier.telemetry import Telemetry, request_id_of
from outrider.errors import LinkLost, OutriderError, Refused
from outrider.framing import from_frame, to_frame
from outrider.wire import SUBPROTOCOL, Down, Fault, Open, Verified, decode_up

__all__ = ["serve_stream"]

UNSUPPORTED = 1002  # WebSocket close code: protocol error
NORMAL = 1000


async def serve_stream(socket: WebSocket, verifier: VerifierLoop, telemetry: Telemetry, credential: str) -> None:
    """One session from handshake to last word."""
    if SUBPROTOCOL not in socket.scope["subprotocols"]:
        await socket.close(UNSUPPORTED)
        return
    record = telemetry.session("stream", credential, request_id_of(socket))
    try:
        conversation = Conversation(verifier, credential, record)
    except (LinkLost, Refused) as error:
        await socket.send_denial_response(refuse(socket, error))
        return
    stream = _Stream(socket, conversation, telemetry)
    try:
        await socket.accept(SUBPROTOCOL)
        reader = asyncio.create_task(stream.read())
        try:
            await stream.write()
        finally:
            reader.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await reader
    finally:
        conversation.close()


class _Stream:
    def __init__(self, socket: WebSocket, conversation: Conversation, telemetry: Telemetry) -> None:
        self._socket = socket
        self._conversation = conversation
        self._metrics = telemetry.metrics
        self._is_padded = True

    async def read(self) -> None:
        """Hand every message to the verifier until the client leaves or breaks the rules. However it ends, nobody waits
        for more."""
        try:
            with contextlib.suppress(WebSocketDisconnect):
                while (event := await self._socket.receive())["type"] != "websocket.disconnect":
                    self._take(event.get("bytes") or b"")
        except OutriderError as error:  # not a message, or one too many
            self._conversation.fail(error)
        finally:
            self._conversation.close()

    def _take(self, frame: bytes) -> None:
        message = decode_up(from_frame(frame))
        self._metrics.message("up", type(message).__name__.lower(), len(frame))
        if isinstance(message, Open):
            self._is_padded = message.is_padded
        self._conversation.send(message)

    async def write(self) -> None:
        """Send what the verifier says, to the last word or until the reader sees the client leave."""
        with contextlib.suppress(WebSocketDisconnect, RuntimeError):  # it left while we were speaking
            while (message := await self._conversation.hear()) is not None:
                await self._send(message)
                if isinstance(message, Fault) or (isinstance(message, Verified) and message.finish):
                    await self._socket.close(NORMAL)
                    return

    async def _send(self, message: Down) -> None:
        frame = to_frame(message, is_padded=self._is_padded)
        self._metrics.message("down", type(message).__name__.lower(), len(frame))
        if isinstance(message, Fault):
            self._metrics.refused(message.code)
        await self._socket.send_bytes(frame)
