"""A real verifier service on a loopback port, for as long as a block runs."""

import contextlib
import socket
import threading
import time
from collections.abc import Iterator

from cloud_verifier.loop import VerifierLoop
from cloud_verifier.service import create_server


@contextlib.contextmanager
def serving(loop: VerifierLoop) -> Iterator[str]:
    listener = socket.create_server(("127.0.0.1", 0))
    server = create_server(loop)
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
