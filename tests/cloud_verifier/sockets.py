"""The service over the toy engine on a loopback port, and plain sockets to be rude to it with."""

import contextlib
import logging
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from urllib.parse import urlsplit

from websockets.sync.client import ClientConnection, connect

from cloud_verifier.loop import VerifierLoop
from cloud_verifier.settings import ServiceSettings
from cloud_verifier.verifier import Verifier
from outrider.framing import from_frame, to_frame
from outrider.wire import STREAM_PATH, SUBPROTOCOL, Down, Fault, Up, Verified, decode_down
from outrider.wire import unpack_ids as unpack
from tests.serving import UNHURRIED, serving
from tests.toy import ToyEngine

silent = logging.getLogger("tests.client")  # what a test says itself is not to be found in the service's logs
silent.disabled = True

LIMIT_S = 20.0  # nothing here takes a second; this is for what would hang


@dataclass(frozen=True)
class ToyService:
    url: str
    engine: ToyEngine
    verifier: Verifier
    loop: VerifierLoop

    @property
    def port(self) -> int:
        port = urlsplit(self.url).port
        assert port is not None
        return port

    def plain(self) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.port), timeout=LIMIT_S)

    def stream(self, token: str = "", **more: object) -> ClientConnection:
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        return connect(
            self.url.replace("http", "ws", 1) + STREAM_PATH,
            subprotocols=[SUBPROTOCOL],
            additional_headers=headers,
            compression=None,
            open_timeout=LIMIT_S,
            logger=silent,
            **more,
        )


@contextlib.contextmanager
def toy_service(settings: ServiceSettings = UNHURRIED, engine: ToyEngine | None = None) -> Iterator[ToyService]:
    engine = engine or ToyEngine()
    verifier = Verifier(engine, target="t", vocabulary="v")
    loop = VerifierLoop(verifier)
    try:
        with serving(loop, settings) as url:
            yield ToyService(url, engine, verifier, loop)
    finally:
        loop.close()
    verifier.check_integrity()


def say(stream: ClientConnection, message: Up) -> None:
    stream.send(to_frame(message, is_padded=True))


def hear(stream: ClientConnection) -> Down:
    data = stream.recv(timeout=LIMIT_S)
    assert isinstance(data, bytes)
    return decode_down(from_frame(data))


def last_word(stream: ClientConnection) -> tuple[list[int], Down]:
    """All tokens until the end of the session, and the message that ended it."""
    tokens: list[int] = []
    while True:
        message = hear(stream)
        if isinstance(message, Verified):
            tokens += unpack(message.token_ids)
        if isinstance(message, Fault) or getattr(message, "finish", None):
            return tokens, message


def answer(connection: socket.socket, data: bytes = b"") -> bytes:
    """What comes back for `data` until the other side closes."""
    with contextlib.suppress(ConnectionError):
        connection.sendall(data)
    got = bytearray()
    with contextlib.suppress(ConnectionError):
        while block := connection.recv(65536):
            got += block
    return bytes(got)
