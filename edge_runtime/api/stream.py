"""Answers that end when their client leaves, whole ones and streams alike."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Coroutine
from contextlib import aclosing
from typing import Any, TypeVar

from fastapi import Request
from fastapi.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from cloud_verifier.calls import ClientLeft
from edge_runtime.tasks import cancelled

__all__ = ["EventStream", "while_heard"]

T = TypeVar("T")


async def while_heard(request: Request, work: Coroutine[Any, Any, T]) -> T:
    """What `work` gives. Raises ClientLeft when the client leaves first; the work is then cancelled and over."""
    working, leaving = asyncio.create_task(work), asyncio.create_task(_left(request))
    try:
        await asyncio.wait((working, leaving), return_when=asyncio.FIRST_COMPLETED)
        if not working.done():
            raise ClientLeft
        return working.result()
    finally:
        await cancelled(working, leaving)


async def _left(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        """The body was read; nothing else should come."""


class EventStream(StreamingResponse):
    """`first` was waited for already. However the response ends, `events` is closed."""

    def __init__(self, first: bytes, events: AsyncGenerator[bytes, None]) -> None:
        super().__init__(_chained(first, events), media_type="text/event-stream", headers={"cache-control": "no-store"})
        self._events = events

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async with aclosing(self._events):
            await super().__call__(scope, receive, send)


async def _chained(first: bytes, events: AsyncGenerator[bytes, None]) -> AsyncIterator[bytes]:
    yield first
    async for each in events:
        yield each
