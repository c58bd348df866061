"""A real server on a loopback port, for as long as a block runs: in a thread, or in the caller's loop."""

import asyncio
import contextlib
import socket
import threading
import time
from collections.abc import AsyncIterator, Iterator

import uvicorn

from cloud_verifier.loop import VerifierLoop
from cloud_verifier.server import create_server
from cloud_verifier.settings import ServiceSettings

UNHURRIED = ServiceSettings(requests_per_s=1e6, messages_per_s=1e6)  # tests ask faster than devices do


@contextlib.contextmanager
def running(server: uvicorn.Server, port: int = 0) -> Iterator[str]:
    """Gives host and port."""
    listener = socket.create_server(("127.0.0.1", port))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
    thread.start()
    while not server.started:
        time.sleep(0.005)
    try:
        yield f"127.0.0.1:{listener.getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join()
        listener.close()


@contextlib.contextmanager
def serving(loop: VerifierLoop, settings: ServiceSettings = UNHURRIED) -> Iterator[str]:
    with running(create_server(loop, settings)) as address:
        yield f"{'https' if settings.tls else 'http'}://{address}"


@contextlib.asynccontextmanager
async def serving_here(loop: VerifierLoop) -> AsyncIterator[int]:
    """Gives the port. The service's tasks are the caller's to see."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # asyncio sets it for sockets it made itself
        server = create_server(loop, UNHURRIED)
        running = asyncio.create_task(server.serve([listener]))
        while not server.started:  # noqa: ASYNC110  uvicorn has no event for it
            await asyncio.sleep(0.005)
        try:
            yield listener.getsockname()[1]
        finally:
            server.should_exit = True
            await running
