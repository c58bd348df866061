"""What answers in a verifier's place and is none: a login page, a proxy without its verifier."""

import contextlib
import socketserver
import threading
from collections.abc import Iterator
from dataclasses import dataclass

__all__ = ["SomethingElse", "answering"]


@dataclass
class SomethingElse:
    url: str
    num_asked: int = 0


@contextlib.contextmanager
def answering(answer: bytes) -> Iterator[SomethingElse]:
    """Gives this answer, bytes of HTTP/1.1, to whatever it is asked. No connection outlives it."""

    class Handler(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            self.request.settimeout(20)
            if self.request.recv(4096):
                there.num_asked += 1
                self.request.sendall(answer)

    with socketserver.TCPServer(("127.0.0.1", 0), Handler) as server:
        there = SomethingElse(f"http://127.0.0.1:{server.server_address[1]}")
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield there
        finally:
            server.shutdown()
            thread.join()
