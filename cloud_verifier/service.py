"""The verifier as an ASGI application: settings in, doors out. Each door is a module of its own."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Annotated, Protocol

from fastapi import Depends, FastAPI, WebSocket
from starlette.middleware import Middleware

from cloud_verifier.answers import answer_errors
from cloud_verifier.guard import Guard, max_body_bytes
from cloud_verifier.loop import VerifierLoop
from cloud_verifier.openapi import add_pages
from cloud_verifier.probes import add_probes
from cloud_verifier.rest import add_rest
from cloud_verifier.security import Gate, credential_of
from cloud_verifier.settings import ServiceSettings
from cloud_verifier.stream import serve_stream
from cloud_verifier.telemetry import ObserveRequests, Telemetry
from cloud_verifier.tokens import TokenFile
from cloud_verifier.tracing import configured_tracer
from outrider.wire import STREAM_PATH

__all__ = ["Site", "create_app"]

WATCH_S = 1.0  # between two looks at whether a token was revoked


class Site(Protocol):
    """A web page beside the doors, which may ask them. `paths` are open to all."""

    paths: frozenset[str]

    def add(self, app: FastAPI) -> None:
        """Routes for the paths, and for what else it has."""


def create_app(verifier: VerifierLoop, settings: ServiceSettings | None = None, site: Site | None = None) -> FastAPI:
    """The application over a running verifier, which stays the caller's to close."""
    settings = settings or ServiceSettings()
    telemetry = Telemetry(verifier, configured_tracer())

    @contextlib.asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        async with asyncio.TaskGroup() as tasks:
            watching = tasks.create_task(_end_revoked(settings.tokens, verifier))
            yield
            watching.cancel()

    app = FastAPI(
        title="Outrider verifier",
        docs_url=None,
        redoc_url=None,
        openapi_url=None,
        lifespan=lifespan,
        middleware=[
            Middleware(ObserveRequests, metrics=telemetry.metrics),
            Middleware(Gate, settings=settings, page=site.paths if site else ()),
            Middleware(Guard, settings=settings, max_body_bytes=max_body_bytes(verifier.verifier.max_context)),
        ],
    )
    answer_errors(app)
    add_probes(app, verifier, telemetry)
    add_rest(app, verifier, telemetry, settings.model, settings.engine)
    if settings.tokens is None and not settings.is_public:
        add_pages(app)

    if site is not None:
        site.add(app)

    @app.websocket(STREAM_PATH)
    async def stream(socket: WebSocket, credential: Annotated[str, Depends(credential_of)]) -> None:
        await serve_stream(socket, verifier, telemetry, credential)

    return app


async def _end_revoked(tokens: TokenFile | None, verifier: VerifierLoop) -> None:
    """End the sessions of tokens that are no longer valid, for as long as the service runs."""
    while tokens is not None:
        for credential in tokens.take_revoked():
            verifier.revoke(credential)
        await asyncio.sleep(WATCH_S)
