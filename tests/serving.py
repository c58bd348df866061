"""A real verifier service on a loopback port, for as long as a block runs."""

import contextlib
import socket
import threading
import time
from collections.abc import Iterator

import uvicorn

from cloud_verifier.loop import VerifierLoop
from cloud_verifier.service import create_app
from outrider.wire import MAX_MESSAGE_BYTES


@contextlib.contextmanager
def serving(loop: VerifierLoop) -> Iterator[str]:
    listener = socket.create_server(("127.0.0.1", 0))
    config = uvicorn.Config(
        create_app(loop),
        log_level="warning",
        ws="websockets-sansio",
        ws_max_size=MAX_MESSAGE_BYTES,
        ws_per_message_deflate=False,
    )
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
    thread.start()
    while not server.started:
        time.sleep(0.005)
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join()
        listener.close()
