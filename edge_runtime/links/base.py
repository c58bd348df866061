"""The contract of a link: two streams of messages, in order, to and from one verifier session."""

from typing import Protocol

from outrider.wire import Down, Up

__all__ = ["Link"]


class Link(Protocol):
    is_padded: bool  # frames are of one size each way

    @property
    def bytes_up(self) -> int:
        """Message bytes sent so far, framing included; 0 where nothing leaves the process."""

    @property
    def bytes_down(self) -> int: ...

    async def open(self) -> None:
        """Connect, or connect anew after a loss. Raises LinkLost with what to do."""

    async def send(self, message: Up) -> None:
        """Raises LinkLost when the connection is gone."""

    async def receive(self) -> Down:
        """The next message, however long it takes. Raises LinkLost, ProtocolError."""

    async def close(self) -> None:
        """Leave; the verifier forgets the session. Safe to call twice."""
