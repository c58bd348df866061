"""The verifier's own thread: takes messages in between passes, runs passes, hands answers out.

Everything that touches the engine happens here. A connection is one session; both links and the service use it.
Knows nothing of how messages travel.
"""

import logging
import queue
import threading
import traceback
from collections.abc import Callable
from typing import TypeAlias

from cloud_verifier.limits import MAX_UNREAD
from cloud_verifier.verifier import Verifier
from outrider.errors import LinkLost, Moved, OutriderError, ProtocolError, Unauthorized
from outrider.wire import Down, Fault, Open, Up

__all__ = ["Connection", "VerifierLoop"]

logger = logging.getLogger(__name__)

# None: end the thread. A name: the credential to end.
Inbox: TypeAlias = "queue.SimpleQueue[tuple[Connection, Up | None] | str | None]"


class Connection:
    """One device's stream. `deliver` is called from the verifier's thread and must not block."""

    def __init__(
        self, inbox: Inbox, ended: threading.Event, deliver: Callable[[Down], None], credential: str = ""
    ) -> None:
        self._inbox = inbox
        self.credential = credential
        self._ended = ended
        self._deliver = deliver
        self.session: str | None = None
        self.num_unread = 0
        self.is_closed = False

    def send(self, message: Up) -> None:
        """Pass a message on. Raises ProtocolError when far more come than are read, LinkLost after the end."""
        if self.num_unread >= MAX_UNREAD:
            raise ProtocolError("messages come faster than they can be read; send fewer, larger drafts")
        self.num_unread += 1
        self._inbox.put((self, message))
        if self._ended.is_set():  # asked after putting: a message is read, or it is told here that it was not
            raise _over()

    def close(self) -> None:
        """End the session, if it still runs. Safe to call twice."""
        if not self.is_closed:
            self.is_closed = True
            self._inbox.put((self, None))

    def deliver(self, message: Down) -> None:
        if not self.is_closed:
            self._deliver(message)


class VerifierLoop:
    """Runs `verifier` in a thread of its own from construction until `close`."""

    def __init__(self, verifier: Verifier) -> None:
        self._verifier = verifier
        self._inbox: Inbox = queue.SimpleQueue()
        self._ended = threading.Event()
        self._connections: dict[str, Connection] = {}
        self._is_closing = False
        self._is_draining = False
        self._thread = threading.Thread(target=self._run, name="verifier", daemon=True)
        self._thread.start()

    def connect(self, deliver: Callable[[Down], None], credential: str = "") -> Connection:
        """A new connection for whoever `credential` names. Raises LinkLost when the verifier was closed, Moved when
        it is about to be."""
        if self._ended.is_set():
            raise _over()
        if self._is_draining:
            raise _moved()
        return Connection(self._inbox, self._ended, deliver, credential)

    @property
    def verifier(self) -> Verifier:
        """For what does not change, and for numbers that may be a pass old: its thread is at work on it."""
        return self._verifier

    @property
    def num_waiting(self) -> int:
        """Messages that no pass has read yet."""
        return self._inbox.qsize()

    @property
    def is_ready(self) -> bool:
        """Whether new sessions are taken."""
        return not (self._ended.is_set() or self._is_draining)

    def start_draining(self) -> None:
        """Take no new sessions; those that are open go on."""
        self._is_draining = True

    def revoke(self, credential: str) -> None:
        """End the sessions of a credential that is no longer valid."""
        self._inbox.put(credential)

    @property
    def num_connections(self) -> int:
        return len(self._connections)

    def close(self) -> None:
        """Finish the pass in progress, tell the sessions and end the thread. Safe to call twice."""
        self._inbox.put(None)
        self._thread.join()

    def _run(self) -> None:
        try:
            while not self._is_closing:
                self._take_in(self._verifier.wait_s())
                for name, message in self._verifier.step():
                    self._deliver(name, message)
        except Exception as error:  # noqa: BLE001  told below; its text might quote what somebody sent
            where = "".join(traceback.format_tb(error.__traceback__))
            logger.error("the verifier's thread failed with %s at\n%s", type(error).__name__, where)
        finally:  # whatever ended it, nobody is left waiting
            self._ended.set()
            last_word = Fault.of(_moved() if self._is_draining else _over())
            for name in list(self._connections):
                self._deliver(name, last_word)
            while not self._inbox.empty():
                if isinstance(item := self._inbox.get(), tuple):
                    item[0].deliver(last_word)

    def _deliver(self, name: str, message: Down) -> None:
        connection = self._connections.get(name)
        if connection is not None:
            if isinstance(message, Fault) or getattr(message, "finish", None):
                del self._connections[name]
            connection.deliver(message)

    def _take_in(self, wait_s: float | None) -> None:
        """Read the messages that are there now, not those that go on coming; with nothing to do, wait for one."""
        is_waiting = wait_s is None or wait_s > 0
        try:
            item = self._inbox.get(block=is_waiting, timeout=wait_s)
            for _ in range(self._inbox.qsize()):
                self._read(item)
                item = self._inbox.get_nowait()
            self._read(item)
        except queue.Empty:
            return

    def _read(self, item: tuple[Connection, Up | None] | str | None) -> None:
        if item is None:
            self._is_closing = True
        elif isinstance(item, str):
            self._end_all(item)
        else:
            self._handle(*item)

    def _end_all(self, credential: str) -> None:
        for name, connection in list(self._connections.items()):
            if connection.credential == credential:
                self._verifier.close(name)
                self._deliver(name, Fault.of(Unauthorized("the token was revoked; ask the operator for a new one")))

    def _handle(self, connection: Connection, message: Up | None) -> None:
        if message is None:
            if connection.session is not None:
                self._verifier.close(connection.session)
                self._connections.pop(connection.session, None)
            return
        connection.num_unread -= 1
        try:
            if connection.session is None:
                if not isinstance(message, Open):
                    raise ProtocolError("the first message must be Open; begin again")
                opened = self._verifier.open(message, connection.credential)
                connection.session = opened.session
                self._connections[opened.session] = connection
                connection.deliver(opened)
            elif isinstance(message, Open):
                raise ProtocolError("the session is open already; use a new connection")
            else:
                self._verifier.receive(connection.session, message)
        except OutriderError as error:
            if connection.session is not None:
                self._verifier.close(connection.session)
                self._connections.pop(connection.session, None)
            connection.deliver(Fault.of(error))


def _moved() -> Moved:
    return Moved("the verifier is shutting down; open the session again, here later or elsewhere")


def _over() -> LinkLost:
    return LinkLost("the verifier has shut down; open the session again")
