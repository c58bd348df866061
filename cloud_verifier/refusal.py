"""How a request is turned away before any door is reached, over HTTP and in a WebSocket's handshake alike."""

import math

import msgspec
from starlette.types import Scope, Send

from outrider.errors import OutriderError, Unauthorized

__all__ = ["refuse"]


async def refuse(error: OutriderError, scope: Scope, send: Send) -> None:
    """Answer with the error's status and close the connection, so that what is still on its way is not read."""
    body = msgspec.json.encode({"error": {"code": error.code, "message": str(error)}})
    headers = [
        (b"content-type", b"application/json"),
        (b"content-length", str(len(body)).encode()),
        (b"connection", b"close"),
    ]
    if isinstance(error, Unauthorized):
        headers.append((b"www-authenticate", b"Bearer"))
    if error.may_retry:
        headers.append((b"retry-after", str(math.ceil(error.retry_after_ms / 1000)).encode()))
    prefix = "websocket.http" if scope["type"] == "websocket" else "http"
    await send({"type": f"{prefix}.response.start", "status": error.http_status, "headers": headers})
    await send({"type": f"{prefix}.response.body", "body": body})
