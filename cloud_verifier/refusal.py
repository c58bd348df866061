"""How a request is turned away before any door is reached, over HTTP and in a WebSocket's handshake alike."""

from starlette.types import Scope, Send

from cloud_verifier.answers import headers_of, told
from cloud_verifier.schemas import JSON, write
from cloud_verifier.telemetry import mark_refused
from outrider.errors import OutriderError

__all__ = ["refuse"]


async def refuse(error: OutriderError, scope: Scope, send: Send) -> None:
    """Answer with the error's status and close the connection, so that what is still on its way is not read."""
    mark_refused(scope, error)
    body = write(told(error, scope["state"].get("request_id", "")), JSON)
    fields = {"content-type": JSON, "content-length": str(len(body)), "connection": "close", **headers_of(error)}
    headers = [(name.encode(), value.encode()) for name, value in fields.items()]
    prefix = "websocket.http" if scope["type"] == "websocket" else "http"
    await send({"type": f"{prefix}.response.start", "status": error.http_status, "headers": headers})
    await send({"type": f"{prefix}.response.body", "body": body})
