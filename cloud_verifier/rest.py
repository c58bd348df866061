"""The REST door: verify drafts, generate, and what there is. For clients that keep no socket, or have no drafter.

A handler that waits for the verifier is not told when its client leaves; a task of its own watches for that, so that
the session goes at once.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Annotated, Any

import msgspec
from fastapi import Depends, FastAPI, Request, Response
from fastapi.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from cloud_verifier.answers import answer, told
from cloud_verifier.calls import begin_generation, generated, verify
from cloud_verifier.conversation import Conversation
from cloud_verifier.loop import VerifierLoop
from cloud_verifier.openapi import describe
from cloud_verifier.schemas import (
    GenerateAnswer,
    GenerateRequest,
    Model,
    Models,
    VerifyAnswer,
    VerifyRequest,
    logprobs_of,
    read,
)
from cloud_verifier.security import credential_of
from cloud_verifier.telemetry import Telemetry, request_id_of
from outrider.errors import OutriderError
from outrider.wire import Logprobs, unpack_ids

__all__ = ["add_rest"]


def add_rest(app: FastAPI, verifier: VerifierLoop, telemetry: Telemetry, model: str, engine: str) -> None:
    """`model` and `engine` are names to show."""
    core = verifier.verifier

    def converse(door: str, request: Request, credential: str) -> Conversation:
        return Conversation(verifier, credential, telemetry.session(door, credential, request_id_of(request)))

    async def verify_drafts(request: Request, credential: Annotated[str, Depends(credential_of)]) -> Response:
        wish = await _read(request, VerifyRequest)
        with contextlib.closing(converse("verify", request, credential)) as conversation:
            async with _watching(request, conversation):
                return answer(request, await verify(conversation, wish, core.max_context))

    async def generate(request: Request, credential: Annotated[str, Depends(credential_of)]) -> Response:
        wish = await _read(request, GenerateRequest)
        with contextlib.ExitStack() as stack:
            conversation = stack.enter_context(contextlib.closing(converse("generate", request, credential)))
            async with _watching(request, conversation):
                opened = await begin_generation(conversation, wish)
                if not wish.stream:
                    return answer(request, await _whole(conversation, wish, opened.target))
            stack.pop_all()  # the stream closes it
            return _EventStream(conversation, wish, telemetry, request_id_of(request))

    async def models(request: Request, credential: Annotated[str, Depends(credential_of)]) -> Response:
        known = Model(model, engine, core.target, core.vocabulary, core.n_vocab, core.max_context)
        return answer(request, Models([known]))

    add = app.add_api_route
    add("/v1/verify", verify_drafts, methods=["POST"], **describe("Check drafts", VerifyRequest, VerifyAnswer))
    add(
        "/v1/generate",
        generate,
        methods=["POST"],
        **describe("Generate", GenerateRequest, GenerateAnswer, streams=True),
    )
    add("/v1/models", models, methods=["GET"], **describe("What runs here", None, Models))


async def _read(request: Request, kind: type[VerifyRequest] | type[GenerateRequest]) -> Any:
    return read(await request.body(), request.headers.get("content-type", ""), kind)


@contextlib.asynccontextmanager
async def _watching(request: Request, conversation: Conversation) -> AsyncIterator[None]:
    """Close the conversation when the client leaves; whoever waits on it hears that it is over."""

    async def watch() -> None:
        while (await request.receive())["type"] != "http.disconnect":
            """The body was read; nothing else should come."""
        conversation.close()

    watcher = asyncio.create_task(watch())
    try:
        yield
    finally:
        watcher.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await watcher


async def _whole(conversation: Conversation, wish: GenerateRequest, target: str) -> GenerateAnswer:
    tokens: list[int] = []
    logprobs: list[Logprobs] = []
    finish = ""
    async for verified in generated(conversation):
        tokens += unpack_ids(verified.token_ids)
        logprobs += verified.logprobs
        finish = verified.finish or ""
    return GenerateAnswer(tokens, finish, target, logprobs_of(logprobs, wish.logprobs))


class _EventStream(StreamingResponse):
    """Server-sent events: `tokens` as they come, then `finished`, or `error`. However it ends, the session ends."""

    def __init__(
        self, conversation: Conversation, wish: GenerateRequest, telemetry: Telemetry, request_id: str
    ) -> None:
        super().__init__(self._events(), media_type="text/event-stream", headers={"cache-control": "no-store"})
        self._conversation = conversation
        self._wish = wish
        self._telemetry = telemetry
        self._request_id = request_id

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        with contextlib.closing(self._conversation):
            await super().__call__(scope, receive, send)

    async def _events(self) -> AsyncIterator[bytes]:
        num_tokens = 0
        try:
            async for verified in generated(self._conversation):
                token_ids = unpack_ids(verified.token_ids)
                num_tokens += len(token_ids)
                logprobs = logprobs_of(verified.logprobs, self._wish.logprobs)
                yield _event("tokens", {"tokens": token_ids, **({"logprobs": logprobs} if logprobs else {})})
                if verified.finish:
                    yield _event("finished", {"finish": verified.finish, "num_tokens": num_tokens})
        except OutriderError as error:
            self._telemetry.metrics.refused(error.code)
            yield _event("error", told(error, self._request_id))


def _event(name: str, data: object) -> bytes:
    return b"event: %s\ndata: %s\n\n" % (name.encode(), msgspec.json.encode(data))
