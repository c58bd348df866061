"""The endpoint as an ASGI application: modes in, OpenAI's addresses out."""

import asyncio
import time
from collections.abc import AsyncIterator, Mapping
from typing import Any, TypeVar

import msgspec
from fastapi import FastAPI, Request, Response
from starlette.middleware import Middleware

from cloud_verifier.answers import answer_errors
from cloud_verifier.guard import Guard
from cloud_verifier.schemas import JSON
from cloud_verifier.security import Gate
from cloud_verifier.settings import DoorSettings
from cloud_verifier.telemetry import ObserveRequests
from edge_runtime.api.asking import Asked, asked_of_chat, asked_of_completion
from edge_runtime.api.chat import ChatWriter
from edge_runtime.api.completions import CompletionWriter
from edge_runtime.api.errors import ErrorReply, refuse, refuse_early
from edge_runtime.api.infill import InfillWriter
from edge_runtime.api.modes import Modes
from edge_runtime.api.openapi import DESCRIPTION
from edge_runtime.api.replies import ChatCompletion, Completion, InfillReply, Model, Models
from edge_runtime.api.schemas import ChatRequest, CompletionRequest, EmbeddingRequest, InfillRequest, read
from edge_runtime.api.site import PAGE, add_page
from edge_runtime.api.stream import EventStream, while_heard
from edge_runtime.api.suggestions import Suggestions
from edge_runtime.api.writer import Header, Writer, write_stream, write_whole
from outrider.errors import UsageError

__all__ = ["create_api"]

MAX_BODY_BYTES = 4 << 20  # a conversation of words, schemas and tools
STATE = "x-outrider-state"
T = TypeVar("T")


def create_api(modes: Modes, settings: DoorSettings | None = None) -> FastAPI:
    """The application over runtimes, which stay the caller's to close."""
    settings = settings or DoorSettings()
    app = FastAPI(
        title="Outrider on this device",
        docs_url=None,
        redoc_url=None,
        openapi_url=None,
        middleware=[
            Middleware(ObserveRequests),
            Middleware(Gate, settings=settings, refuse=refuse_early, page=PAGE),
            Middleware(Guard, settings=settings, max_body_bytes=MAX_BODY_BYTES, refuse=refuse_early),
        ],
    )
    answer_errors(app, refuse, "docs/api.md")
    began_s = int(time.time())
    suggestions = Suggestions(modes.find("auto").runtime.codec.bytes_of)

    async def chat(request: Request) -> Response:
        wish = await _read(request, ChatRequest)
        mode = modes.find(wish.model)
        asked = await asyncio.to_thread(asked_of_chat, wish, mode, request.headers)
        writer = ChatWriter(
            mode.runtime.codec,
            has_logprobs=bool(wish.logprobs),
            splits_calls=bool(wish.tools) and wish.tool_choice != "none",
            takes_one_call=wish.parallel_tool_calls is False,
        )
        return await _reply(request, wish, asked, writer)

    async def complete(request: Request) -> Response:
        wish = await _read(request, CompletionRequest)
        mode = modes.find(wish.model)
        asked = await asyncio.to_thread(asked_of_completion, wish, mode, request.headers)
        writer = CompletionWriter(mode.runtime.codec, has_logprobs=wish.logprobs is not None)
        return await _reply(request, wish, asked, writer)

    async def infill(request: Request) -> Response:
        wish = await _read(request, InfillRequest)
        mode = modes.find(wish.model or "auto")
        writer = await asyncio.to_thread(InfillWriter, wish, mode, request.headers, suggestions)
        if wish.stream:
            events = writer.events()
            return EventStream(await while_heard(request, _first(events)), events)
        return _answer(await while_heard(request, writer.whole()), {STATE: writer.state})

    async def models(request: Request) -> Response:
        return _answer(Models([Model(name, began_s) for name in modes.names]))

    async def model(request: Request, name: str) -> Response:
        return _answer(Model(modes.find(name).name, began_s))

    async def embed(request: Request) -> Response:
        error = UsageError("there are no embeddings here: the models answer, they do not embed; ask another server")
        error.code = "not_implemented"
        error.http_status = 501
        raise error

    add, describe = app.add_api_route, DESCRIPTION.route
    chats = describe("Answer a conversation", ChatRequest, ChatCompletion, streams=True)
    completions = describe("Continue a text, or fill a gap in it", CompletionRequest, Completion, streams=True)
    add("/v1/chat/completions", chat, methods=["POST"], **chats)
    add("/v1/completions", complete, methods=["POST"], **completions)
    infills = describe("Fill a gap in code, as editors ask", InfillRequest, InfillReply, streams=True)
    add("/infill", infill, methods=["POST"], **infills)
    embeddings = describe("There are none", EmbeddingRequest, ErrorReply, status=501)
    add("/v1/embeddings", embed, methods=["POST"], **embeddings)
    add("/v1/models", models, methods=["GET"], **describe("What may be asked for", None, Models))
    add("/v1/models/{name:path}", model, methods=["GET"], **describe("One of them", None, Model))
    if settings.tokens is None and not settings.is_public:
        DESCRIPTION.add_pages(app)
    add_page(app, modes)
    return app


async def _read(request: Request, kind: type[T]) -> T:
    return read(await request.body(), request.headers.get("content-type", ""), kind)


async def _reply(request: Request, wish: ChatRequest | CompletionRequest, asked: Asked, writer: Writer) -> Response:
    header = Header(wish.model, asked.n)
    if wish.stream:
        has_usage = wish.stream_options is not None and bool(wish.stream_options.include_usage)
        events = write_stream(writer, asked, header, has_usage=has_usage)
        return EventStream(await while_heard(request, _first(events)), events)
    whole = await while_heard(request, write_whole(writer, asked, header))
    return _answer(whole, {STATE: str(whole.x_outrider.state)})


async def _first(events: AsyncIterator[bytes]) -> bytes:
    """An error that comes before it is told with a status."""
    return await anext(events)


def _answer(content: Any, headers: Mapping[str, str] | None = None) -> Response:
    return Response(msgspec.json.encode(content), 200, headers, media_type=JSON)
