"""A real server on a loopback port, for as long as a block runs: in a thread, or in the caller's loop."""

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator

from benchmarks.serving import UNHURRIED, prompt, running, serving
from cloud_verifier.loop import VerifierLoop
from cloud_verifier.server import create_server

__all__ = ["UNHURRIED", "running", "serving", "serving_here"]


@contextlib.asynccontextmanager
async def serving_here(loop: VerifierLoop) -> AsyncIterator[int]:
    """Gives the port. The service's tasks are the caller's to see."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # asyncio sets it for sockets it made itself
        server = create_server(loop, UNHURRIED)
        serves = prompt(server)
        task = asyncio.create_task(server.serve([listener]))
        end = await asyncio.wrap_future(serves)
        try:
            yield listener.getsockname()[1]
        finally:
            end()
            await task
