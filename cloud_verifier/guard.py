"""How much one credential may ask for: requests a second, connections at once, bytes of a body, messages a second.

Every bound is enforced before more is read than it allows. Knows who asks (the gate said) and nothing of what for.
"""

import asyncio
import time
from collections import Counter
from collections.abc import Callable

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from cloud_verifier.refusal import Refuse, refuse
from cloud_verifier.settings import DoorSettings
from outrider.errors import Refused, TooLarge, TooMany, TooSlow, Unauthorized

__all__ = ["MAX_HEAD_BYTES", "Bucket", "Guard", "max_body_bytes", "max_message_bytes"]

BURST_S = 2.0  # seconds' worth that may come at once
MAX_HEAD_BYTES = 16 * 1024
ROOM = 64 * 1024  # for all but the token ids, and for lists a little too long, which a better sentence refuses


def max_body_bytes(max_context: int) -> int:
    """A list that fills the context, in JSON, and room."""
    return 12 * max_context + ROOM


def max_message_bytes(max_context: int) -> int:
    """A list that fills the context, four bytes an id, and room."""
    return 4 * max_context + ROOM


class Bucket:
    """Lets `rate` a second pass, and twice that at once after a pause."""

    def __init__(self, rate: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._rate = rate
        self._clock = clock
        self._most = max(1.0, BURST_S * rate)
        self._level = self._most
        self._at_s = clock()

    def take(self) -> float:
        """Take one: 0, or the seconds until there is one to take."""
        now_s = self._clock()
        self._level = min(self._most, self._level + (now_s - self._at_s) * self._rate)
        self._at_s = now_s
        if self._level >= 1:
            self._level -= 1
            return 0.0
        return (1 - self._level) / self._rate


class Guard:
    """ASGI middleware behind the gate."""

    def __init__(self, app: ASGIApp, settings: DoorSettings, max_body_bytes: int, refuse: Refuse = refuse) -> None:
        self._app = app
        self._refuse = refuse
        self._settings = settings
        self._max_body_bytes = max_body_bytes
        self._buckets: dict[str, Bucket] = {}
        self._num_open: Counter[str] = Counter()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        credential = scope.get("state", {}).get("credential")
        try:
            _check_head(scope)
            if credential is None:  # what the gate lets in unasked
                await self._app(scope, receive, send)
                return
            self._enter(credential)
        except Refused as error:
            await self._refuse(error, scope, send)
            return
        try:
            if scope["type"] == "websocket":
                await self._app(scope, self._metered(receive, credential), send)
            elif (body := await self._whole_body(scope, receive, send)) is not None:
                await self._app(scope, _again(body, receive), send)
        finally:
            self._num_open[credential] -= 1
            if not self._num_open[credential]:
                del self._num_open[credential]

    def _enter(self, credential: str) -> None:
        bucket = self._buckets.get(credential)
        if bucket is None:
            bucket = self._buckets[credential] = Bucket(self._settings.requests_per_s)
        if wait_s := bucket.take():
            raise _too_many("requests come faster than this credential may send them; wait a moment", wait_s)
        if self._num_open[credential] >= self._settings.max_connections_each:
            raise TooMany("this credential has as many connections open as it may; close one first")
        self._num_open[credential] += 1

    async def _whole_body(self, scope: Scope, receive: Receive, send: Send) -> bytes | None:
        """The body; None when there will be none, because it was refused or the client left."""
        body = bytearray()
        try:
            declared = next((value for key, value in scope["headers"] if key == b"content-length"), b"0")
            if int(declared) > self._max_body_bytes:
                raise self._too_large()
            async with asyncio.timeout(self._settings.body_s):
                while True:
                    event = await receive()
                    if event["type"] != "http.request":
                        return None
                    body += event.get("body", b"")
                    if len(body) > self._max_body_bytes:
                        raise self._too_large()
                    if not event.get("more_body", False):
                        return bytes(body)
        except TimeoutError:
            await self._refuse(TooSlow("the body did not come in time; send it at once"), scope, send)
        except TooLarge as error:
            await self._refuse(error, scope, send)
        return None

    def _too_large(self) -> TooLarge:
        return TooLarge(f"the body is over {self._max_body_bytes} bytes; send a shorter list")

    def _metered(self, receive: Receive, credential: str) -> Receive:
        """`receive`, which raises Refused for a first message that does not come and for messages too many."""
        settings = self._settings
        bucket = Bucket(settings.messages_per_s)
        has_begun = False

        async def metered() -> Message:
            nonlocal has_begun
            try:
                async with asyncio.timeout(None if has_begun else settings.header_s):
                    event = await receive()
            except TimeoutError:
                raise TooSlow("no message came on a new connection; open a session at once") from None
            if event["type"] == "websocket.receive":
                has_begun = True
                if wait_s := bucket.take():
                    raise _too_many("messages come faster than they may; send fewer, larger drafts", wait_s)
                if settings.tokens is not None and not settings.tokens.is_live(credential):
                    raise Unauthorized("the token was revoked; ask the operator for a new one")
            return event

        return metered


def _check_head(scope: Scope) -> None:
    """A head that came in one piece went past the server's own bound."""
    if len(scope["path"]) + sum(len(key) + len(value) + 4 for key, value in scope["headers"]) > MAX_HEAD_BYTES:
        error = TooLarge(f"the headers are over {MAX_HEAD_BYTES} bytes; send fewer")
        error.http_status = 431
        raise error


def _too_many(sentence: str, wait_s: float) -> TooMany:
    error = TooMany(sentence)
    error.retry_after_ms = max(error.retry_after_ms, int(1000 * wait_s))
    return error


def _again(body: bytes, receive: Receive) -> Receive:
    """A `receive` that gives a body that was read before, and then what else comes."""
    is_given = False

    async def again() -> Message:
        nonlocal is_given
        if is_given:
            return await receive()
        is_given = True
        return {"type": "http.request", "body": body, "more_body": False}

    return again
