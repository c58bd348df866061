"""A link to a verifier in this process: messages pass between threads as they are, nothing is encoded."""

import asyncio
import contextlib

from cloud_verifier.loop import Connection, VerifierLoop
from outrider.errors import LinkLost
from outrider.wire import Down, Up

__all__ = ["InProcessLink"]


class InProcessLink:
    bytes_up = 0
    bytes_down = 0
    is_padded = False

    def __init__(self, verifier: VerifierLoop) -> None:
        self._verifier = verifier
        self._inbox: asyncio.Queue[Down] = asyncio.Queue()
        self._connection: Connection | None = None

    async def open(self) -> None:
        self._inbox = inbox = asyncio.Queue[Down]()  # an earlier connection's last words stay with it
        loop = asyncio.get_running_loop()

        def deliver(message: Down) -> None:
            with contextlib.suppress(RuntimeError):  # the event loop closed before the verifier noticed
                loop.call_soon_threadsafe(inbox.put_nowait, message)

        try:
            self._connection = self._verifier.connect(deliver)
        except LinkLost as error:
            error.may_retry = False  # in this process nobody starts it again
            raise

    async def send(self, message: Up) -> None:
        if self._connection is None:
            raise LinkLost("the link is not open; open it first")
        self._connection.send(message)

    async def receive(self) -> Down:
        return await self._inbox.get()

    async def close(self) -> None:
        if self._connection is not None:
            self._connection.close()
