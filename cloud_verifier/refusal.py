"""How a request is turned away before any door is reached, over HTTP and in a WebSocket's handshake alike."""

from collections.abc import Awaitable, Callable, Mapping
from typing import TypeAlias

from starlette.types import Scope, Send

from cloud_verifier.answers import headers_of, told
from cloud_verifier.schemas import JSON, write
from cloud_verifier.telemetry import mark_refused
from outrider.errors import OutriderError

__all__ = ["Refuse", "refuse", "turn_away"]

Refuse: TypeAlias = Callable[[OutriderError, Scope, Send], Awaitable[None]]


async def refuse(error: OutriderError, scope: Scope, send: Send) -> None:
    """As the verifier's doors do."""
    body = write(told(error, scope["state"].get("request_id", "")), JSON)
    await turn_away(error, scope, send, error.http_status, body, headers_of(error))


async def turn_away(
    error: OutriderError, scope: Scope, send: Send, status: int, body: bytes, more: Mapping[str, str]
) -> None:
    """Answer with a JSON body and close the connection, so that what is still on its way is not read."""
    mark_refused(scope, error)
    fields = {"content-type": JSON, "content-length": str(len(body)), "connection": "close", **more}
    headers = [(name.encode(), value.encode()) for name, value in fields.items()]
    prefix = "websocket.http" if scope["type"] == "websocket" else "http"
    await send({"type": f"{prefix}.response.start", "status": status, "headers": headers})
    await send({"type": f"{prefix}.response.body", "body": body})
