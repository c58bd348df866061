"""The HTTP server that holds the doors: uvicorn with the bounds it lacks, on connections before they are requests.

Slow handshakes and slow heads are closed, connections counted, malformed upgrades and floods of control frames ended.
Knows nothing of the application behind it.
"""

import asyncio
import logging
import math
import ssl
from pathlib import Path
from typing import Any

import h11
import uvicorn
from starlette.types import ASGIApp
from uvicorn.protocols.http.h11_impl import H11Protocol
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from websockets.frames import Frame

from cloud_verifier.drain import DrainingServer
from cloud_verifier.guard import MAX_HEAD_BYTES, Bucket, max_message_bytes
from cloud_verifier.loop import VerifierLoop
from cloud_verifier.service import Site, create_app
from cloud_verifier.settings import DoorSettings, ServiceSettings
from outrider.errors import InvalidParameter

__all__ = ["BoundedServer", "bounded", "create_server", "tls_context"]

logger = logging.getLogger(__name__)
logger.setLevel(logging.WARNING)  # below it the library logs what was sent

MAX_FRAGMENTS = 16  # of one message; devices send one
CONTROL_FRAMES_PER_S = 10.0
POLICY = 1008  # WebSocket close code: a rule was broken
MALFORMED = b"HTTP/1.1 400 Bad Request\r\nconnection: close\r\ncontent-length: 0\r\n\r\n"
FULL = b"HTTP/1.1 503 Service Unavailable\r\nretry-after: 1\r\nconnection: close\r\ncontent-length: 0\r\n\r\n"


def create_server(
    verifier: VerifierLoop, settings: ServiceSettings | None = None, site: Site | None = None
) -> uvicorn.Server:
    """The service over a running verifier, ready to run on sockets of the caller's."""
    settings = settings or ServiceSettings()
    max_bytes = max_message_bytes(verifier.verifier.max_context)
    app = create_app(verifier, settings, site)
    config = bounded(app, settings, max_bytes)  # what was open was drained: 1 s is enough
    return _VerifierServer(config, verifier, settings.grace_s)


def bounded(app: ASGIApp, settings: DoorSettings, max_bytes: int, grace_s: float = 1.0) -> "_Config":
    """What a BoundedServer needs to run `app`; a stop leaves `grace_s` seconds to requests that are open."""
    return _Config(app, settings, max_bytes, grace_s)


def tls_context(certificate: Path, key: Path, client_ca: Path | None = None) -> ssl.SSLContext:
    """What the service shows and, with `client_ca`, whose certificates devices must show. Raises InvalidParameter."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    try:
        context.load_cert_chain(certificate, key, password=_no_password)
        if client_ca is not None:
            context.load_verify_locations(client_ca)
            context.verify_mode = ssl.CERT_REQUIRED
    except (OSError, ValueError) as error:  # ssl.SSLError is an OSError
        raise InvalidParameter(f"the TLS files cannot be used ({error}); give PEM files that belong together") from None
    return context


def _no_password() -> str:
    raise ValueError("the key asks for a password")


class _Config(uvicorn.Config):
    def __init__(self, app: ASGIApp, settings: DoorSettings, max_bytes: int, grace_s: float) -> None:
        self.settings = settings
        tls = settings.tls
        super().__init__(
            app,
            log_config=None,
            log_level="warning",
            access_log=False,
            http=_Http,
            ws=_WebSocket,
            ws_max_size=max_bytes,
            ws_per_message_deflate=False,  # lengths would leak repeats, and it costs more than it saves
            h11_max_incomplete_event_size=MAX_HEAD_BYTES,
            proxy_headers=False,
            timeout_graceful_shutdown=max(1, math.ceil(grace_s)),
            server_header=False,
            ssl_context_factory=None if tls is None else (lambda config, default: tls),
        )


class BoundedServer(uvicorn.Server):
    """Listens as uvicorn does, but gives a TLS handshake no more time than a request's head."""

    config: _Config

    async def startup(self, sockets: Any = None) -> None:
        await self.lifespan.startup()
        if self.lifespan.should_exit:
            raise SystemExit(3)
        config = self.config
        handshake_s = None if config.ssl is None else config.settings.header_s

        def connect() -> asyncio.Protocol:
            return _Http(config=config, server_state=self.server_state, app_state=self.lifespan.state)

        loop = asyncio.get_running_loop()
        self.servers = [
            await loop.create_server(
                connect, sock=socket, ssl=config.ssl, backlog=config.backlog, ssl_handshake_timeout=handshake_s
            )
            for socket in sockets or []
        ]
        self.started = True


class _VerifierServer(BoundedServer, DrainingServer):
    """Listens like the one, leaves like the other."""


class _Http(H11Protocol):
    """A connection that is closed unless each request's head comes in time, and at once when there are too many."""

    config: _Config
    _head_timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        if len(self.connections) > self.config.settings.max_connections:
            transport.write(FULL)
            transport.close()
        else:
            self._expect_head()

    def data_received(self, data: bytes) -> None:
        self._expect_head()
        super().data_received(data)
        is_upgraded = self.transport.get_protocol() is not self
        if is_upgraded or (self.cycle is not None and not self.cycle.response_complete):
            self._forget_head()

    def connection_lost(self, exc: Exception | None) -> None:
        self._forget_head()
        super().connection_lost(exc)

    def handle_websocket_upgrade(self, event: h11.Request) -> None:
        super().handle_websocket_upgrade(event)
        protocol = self.transport.get_protocol()
        if isinstance(protocol, _WebSocket) and not protocol.handshake_initiated:
            self.transport.write(MALFORMED)
            self.transport.close()

    def _expect_head(self) -> None:
        if self._head_timer is None:
            self._head_timer = self.loop.call_later(self.config.settings.header_s, self.transport.close)

    def _forget_head(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None


class _WebSocket(WebSocketsSansIOProtocol):
    """A socket that is closed for what no device does. Its frames, headers and addresses are never logged."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.logger = self.conn.logger = logger
        self.conn.debug = False
        self._control = Bucket(CONTROL_FRAMES_PER_S)

    async def send(self, message: Any) -> None:
        await super().send(message)
        if message["type"] == "websocket.http.response.body":
            self.handshake_complete = True  # it was refused, which uvicorn would log as an error

    def handle_parser_exception(self) -> None:
        if self.conn.close_sent is not None:  # else the handshake was malformed, and is answered above
            super().handle_parser_exception()

    def handle_cont(self, event: Frame) -> None:
        if len(self.frames) >= MAX_FRAGMENTS:
            self._fail("too many fragments")
        else:
            super().handle_cont(event)

    def handle_ping(self) -> None:
        if self._control.take():
            self._fail("too many pings")
        else:
            super().handle_ping()

    def _fail(self, reason: str) -> None:
        if not self.transport.is_closing():
            self.conn.fail(POLICY, reason)
            self.handle_parser_exception()
