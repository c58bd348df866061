"""A connection to the verifier's thread as an event loop sees it: send without waiting, hear in order.

Every door and the link within this process talk through it. Knows nothing of sockets.
"""

import asyncio
import contextlib

from cloud_verifier.loop import VerifierLoop
from cloud_verifier.records import SessionRecord
from outrider.errors import OutriderError
from outrider.wire import Down, Fault, Up

__all__ = ["Conversation"]


class Conversation:
    """One session. Raises LinkLost when the verifier was closed, Moved when it is about to be."""

    def __init__(self, verifier: VerifierLoop, credential: str = "", record: SessionRecord | None = None) -> None:
        self._inbox: asyncio.Queue[Down | None] = asyncio.Queue()
        self._loop = asyncio.get_running_loop()
        self._record = record
        try:
            self._connection = verifier.connect(self._deliver, credential)
        except OutriderError as error:
            if record is not None:
                record.heard(Fault.of(error))
                record.end()
            raise

    def _deliver(self, message: Down) -> None:
        with contextlib.suppress(RuntimeError):  # the event loop closed before the verifier noticed
            self._loop.call_soon_threadsafe(self._inbox.put_nowait, message)

    def send(self, *messages: Up) -> None:
        """Those of one call are read together. Raises ProtocolError when far more come than are read, LinkLost."""
        if self._record is not None:
            self._record.asked(messages)
        self._connection.send(*messages)

    async def hear(self) -> Down | None:
        """What the verifier says next; None once this side has closed and all was heard."""
        message = await self._inbox.get()
        if self._record is not None and message is not None:
            self._record.heard(message)
        return message

    def fail(self, error: OutriderError) -> None:
        """End it as if the verifier had refused to go on."""
        self._inbox.put_nowait(Fault.of(error))
        self.close()

    def close(self) -> None:
        """Leave; the verifier forgets the session. Safe to call twice."""
        if not self._connection.is_closed:
            self._connection.close()
            self._inbox.put_nowait(None)
            if self._record is not None:
                self._record.end()
