"""A real server on a loopback port, for as long as a block runs: in a thread, or in the caller's loop."""

import asyncio
import contextlib
import socket
import types
from collections.abc import AsyncIterator

import uvicorn.server

from benchmarks.serving import UNHURRIED, running, serving
from cloud_verifier.loop import VerifierLoop
from cloud_verifier.server import create_server

__all__ = ["UNHURRIED", "running", "serving", "serving_here"]

# A server of these tests ends a hundred times; uvicorn looks every tenth of a second whether it should.
uvicorn.server.asyncio = types.SimpleNamespace(  # type: ignore[attr-defined]
    **(vars(asyncio) | {"sleep": lambda seconds: asyncio.sleep(seconds / 20)})
)


@contextlib.asynccontextmanager
async def serving_here(loop: VerifierLoop) -> AsyncIterator[int]:
    """Gives the port. The service's tasks are the caller's to see."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # asyncio sets it for sockets it made itself
        server = create_server(loop, UNHURRIED)
        task = asyncio.create_task(server.serve([listener]))
        while not server.started:  # noqa: ASYNC110  uvicorn has no event for it
            await asyncio.sleep(0.005)
        try:
            yield listener.getsockname()[1]
        finally:
            server.should_exit = True
            await task
