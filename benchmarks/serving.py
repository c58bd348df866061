"""A real server on a loopback port, for as long as a block runs: in a thread of its own."""

import contextlib
import socket
import threading
import time
from collections.abc import Iterator

import uvicorn

from cloud_verifier.loop import VerifierLoop
from cloud_verifier.server import create_server
from cloud_verifier.settings import ServiceSettings

__all__ = ["UNHURRIED", "running", "serving"]

UNHURRIED = ServiceSettings(requests_per_s=1e6, messages_per_s=1e6)  # we ask faster than devices do


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
    """A verifier's service; gives its address."""
    with running(create_server(loop, settings)) as address:
        yield f"{'https' if settings.tls else 'http'}://{address}"
