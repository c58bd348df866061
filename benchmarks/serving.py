"""A real server on a loopback port, for as long as a block runs: in a thread of its own."""

import asyncio
import contextlib
import socket
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from functools import partial

import uvicorn

from cloud_verifier.loop import VerifierLoop
from cloud_verifier.server import create_server
from cloud_verifier.settings import ServiceSettings

__all__ = ["UNHURRIED", "prompt", "running", "serving"]

UNHURRIED = ServiceSettings(requests_per_s=1e6, messages_per_s=1e6)  # we ask faster than devices do


def prompt(server: uvicorn.Server) -> Future[Callable[[], object]]:
    """Once it serves: what ends it at once, from any thread. By itself it sleeps for tenths of seconds in between."""
    serves = Future[Callable[[], object]]()

    async def main_loop() -> None:
        loop, told = asyncio.get_running_loop(), asyncio.Event()
        tasks = [asyncio.create_task(type(server).main_loop(server)), asyncio.create_task(told.wait())]
        serves.set_result(partial(loop.call_soon_threadsafe, told.set))
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in tasks:
            task.cancel()

    async def shutdown(sockets: object = None) -> None:
        state = server.server_state
        for listener in server.servers:
            listener.close()
        for connection in list(state.connections):
            connection.shutdown()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(1):
                while state.connections or state.tasks:  # noqa: ASYNC110  uvicorn has no event for it
                    await asyncio.sleep(0.002)
        for task in state.tasks:
            task.cancel()
        await server.lifespan.shutdown()

    server.main_loop, server.shutdown = main_loop, shutdown  # type: ignore[method-assign]
    return serves


@contextlib.contextmanager
def running(server: uvicorn.Server, port: int = 0) -> Iterator[str]:
    """Gives host and port."""
    listener = socket.create_server(("127.0.0.1", port))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
    serves = prompt(server)
    thread.start()
    end = serves.result()
    try:
        yield f"127.0.0.1:{listener.getsockname()[1]}"
    finally:
        end()
        thread.join()
        listener.close()


@contextlib.contextmanager
def serving(loop: VerifierLoop, settings: ServiceSettings = UNHURRIED) -> Iterator[str]:
    """A verifier's service; gives its address."""
    with running(create_server(loop, settings)) as address:
        yield f"{'https' if settings.tls else 'http'}://{address}"
