"""A link to a verifier service: one WebSocket, one message a frame, no compression, frames padded to few sizes."""

import asyncio
import logging
import secrets
import ssl
import time
from contextlib import suppress
from functools import partial
from urllib.parse import urlsplit, urlunsplit

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidStatus, InvalidURI, NegotiationError
from websockets.typing import Subprotocol

from outrider.errors import (
    Forbidden,
    InvalidParameter,
    LinkLost,
    NotAVerifier,
    OutriderError,
    Overloaded,
    ProtocolError,
    TooMany,
    Unauthorized,
)
from outrider.framing import from_frame, to_frame
from outrider.wire import MAX_MESSAGE_BYTES, STREAM_PATH, SUBPROTOCOL, Down, Up, decode_down

__all__ = ["WebSocketLink"]

logger = logging.getLogger(__name__)
logger.setLevel(logging.WARNING)  # below it the library logs tokens and frames

CONNECT_S = 10.0
CLOSE_S = 2.0
MAX_UNREAD = 1024  # messages; with as many waiting the socket is not read, and who sends then waits for its end in vain
SCHEMES = {"http": "ws", "https": "wss", "ws": "ws", "wss": "wss"}
CLIENT_HEADER = 6  # bytes of framing before a short message: header, length and mask
SERVER_HEADER = 2


class WebSocketLink:
    """`url` is the verifier's address, e.g. http://127.0.0.1:8700 or wss://host. Raises InvalidParameter.

    `token` is the verifier's bearer token. With `is_padded` frames tell nothing of how many tokens they hold.
    `tls`: what wss:// trusts and shows; None trusts what the system does. A link that is opened again asks a router for
    the replica it had, by a random name that says nothing else.
    """

    def __init__(self, url: str, *, token: str = "", is_padded: bool = True, tls: ssl.SSLContext | None = None) -> None:
        try:
            parts = urlsplit(url if "://" in url else f"http://{url}")
            is_address = bool(parts.hostname) and parts.port != 0
            has_secret = parts.username is not None
        except ValueError:  # a bad port, half an IPv6 address
            is_address = has_secret = False
        if has_secret:  # it would be told in errors, and sent in clear
            raise InvalidParameter("a verifier's address holds no name and no password; give a token instead")
        scheme = SCHEMES.get(parts.scheme) if is_address else None
        if scheme is None:
            raise InvalidParameter(f"{url!r} is not a verifier's address; give one like http://127.0.0.1:8700")
        self._address = parts.netloc
        self._url = urlunsplit((scheme, parts.netloc, parts.path.rstrip("/") + STREAM_PATH, "", ""))
        self._headers = {"x-session-id": secrets.token_hex(8)}
        if token:
            self._headers["Authorization"] = f"Bearer {token}"
        self._tls = tls
        self.is_padded = is_padded
        self._socket: ClientConnection | None = None
        self._pong: asyncio.Future[float] | None = None
        self._rtt_ms: float | None = None
        self.bytes_up = 0
        self.bytes_down = 0

    async def open(self) -> None:
        try:
            self._socket = await connect(
                self._url,
                subprotocols=[Subprotocol(SUBPROTOCOL)],
                additional_headers=self._headers,
                ssl=(self._tls or True) if self._url.startswith("wss:") else None,
                compression=None,  # lengths would leak repeats, and it costs more than it saves
                open_timeout=CONNECT_S,
                close_timeout=CLOSE_S,
                max_size=MAX_MESSAGE_BYTES,
                max_queue=MAX_UNREAD,
                proxy=None,
                logger=logger,
            )
        except (InvalidURI, UnicodeError):
            raise InvalidParameter(f"{self._address!r} is not a verifier's address; give host:port") from None
        except NegotiationError:
            raise ProtocolError(f"{self._address} does not speak {SUBPROTOCOL}; check both versions") from None
        except InvalidStatus as error:
            raise self._refused(error.response.status_code) from None
        except InvalidHandshake as error:
            if isinstance(error.__cause__, (EOFError, OSError)):  # it went away in the middle of its answer
                raise self._hung_up() from None
            raise NotAVerifier(f"{self._address} answers, but is not a verifier; check the address") from None
        except ssl.SSLEOFError:
            raise self._hung_up() from None
        except ssl.SSLCertVerificationError as error:
            raise NotAVerifier(
                f"{self._address} shows a certificate that is not trusted ({error.verify_message}); "
                "give its authority with --ca-file"
            ) from None
        except ssl.SSLError as error:
            raise NotAVerifier(
                f"{self._address} does not answer in TLS ({error.reason}); "
                "if it speaks plain http give http://, else ask its operator"
            ) from None
        except (OSError, TimeoutError):
            raise LinkLost(
                f"no verifier answers at {self._address}; start one with: outrider verifier MODEL --port PORT"
            ) from None
        if self._socket.subprotocol != SUBPROTOCOL:
            await self.close()
            raise ProtocolError(f"{self._address} does not speak {SUBPROTOCOL}; check both versions")
        self._rtt_ms = None
        with suppress(ConnectionClosed):  # `send` will say so
            began = time.perf_counter()  # some loops' own clocks, which the library reads, count whole milliseconds
            self._pong = asyncio.ensure_future(await self._socket.ping())
            self._pong.add_done_callback(partial(self._hear_pong, began))

    def _hear_pong(self, began: float, pong: asyncio.Future[float]) -> None:
        if not pong.cancelled() and pong.exception() is None:
            self._rtt_ms = 1000 * (time.perf_counter() - began)

    @property
    def rtt_ms(self) -> float | None:
        return self._rtt_ms

    async def send(self, message: Up) -> None:
        data = to_frame(message, is_padded=self.is_padded)
        try:
            await self._connected().send(data)
        except ConnectionClosed:
            raise self._lost() from None
        self.bytes_up += len(data) + _framing(len(data)) + CLIENT_HEADER

    async def receive(self) -> Down:
        try:
            data = await self._connected().recv(decode=False)
        except ConnectionClosed:
            raise self._lost() from None
        self.bytes_down += len(data) + _framing(len(data)) + SERVER_HEADER
        return decode_down(from_frame(data))

    async def ping_ms(self) -> float:
        """A round trip, measured now, by a ping of the WebSocket's own. Raises LinkLost."""
        try:
            began = time.perf_counter()
            await (await self._connected().ping())
        except ConnectionClosed:
            raise self._lost() from None
        return 1000 * (time.perf_counter() - began)

    async def close(self) -> None:
        if self._socket is not None:
            socket, self._socket = self._socket, None
            closing = asyncio.create_task(socket.close())
            with suppress(ConnectionClosed):  # the farewell stands behind what was not read yet
                while True:
                    await socket.recv()
            await closing

    def _connected(self) -> ClientConnection:
        if self._socket is None:
            raise self._lost()
        return self._socket

    def _refused(self, status: int) -> OutriderError:
        if status == Unauthorized.http_status:
            return Unauthorized(f"{self._address} wants a valid token; ask its operator, and give it with --token-file")
        if status == Forbidden.http_status:
            return Forbidden(f"{self._address} lets nobody in by that name; use the name or address its operator gave")
        if status in (TooMany.http_status, Overloaded.http_status):
            return Overloaded(f"{self._address} is busy or shutting down; try again soon")
        if status >= 500:  # a proxy whose verifier just died, or a server in its last moments
            return LinkLost(f"the verifier behind {self._address} is gone for now; try again soon")
        return NotAVerifier(
            f"what answers at {self._address} is not a verifier (HTTP status {status}); check the address"
        )

    def _hung_up(self) -> LinkLost:
        """While the link was opened: one that wants more of TLS than it was given and one that dies look alike."""
        is_plain = self._url.startswith("ws:")
        hint = "if it speaks TLS give https://" if is_plain else "if it wants a certificate of yours give --client-cert"
        return LinkLost(f"{self._address} hung up before it answered; {hint}, else check it and try again")

    def _lost(self) -> LinkLost:
        return LinkLost(f"the connection to {self._address} broke; check the verifier and try again")


def _framing(length: int) -> int:
    """Bytes that a frame's length takes beyond the first seven bits."""
    return 0 if length < 126 else 2 if length < 2**16 else 8
