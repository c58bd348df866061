"""A switch in the way to a verifier: cut, it behaves like a network that is gone. To see what then happens.

What is under way breaks with the next message. Knows no reason and no screen.
"""

from edge_runtime.links.base import Link
from outrider.errors import LinkLost
from outrider.wire import Down, Up

__all__ = ["LinkSwitch", "SwitchedLink"]


class LinkSwitch:
    """Of all links that lead through it. `reason` is what who tries is told while it is cut."""

    is_cut = False
    reason = "the link is cut on purpose; switch it on again"

    def check(self) -> None:
        """Raises LinkLost while it is cut."""
        if self.is_cut:
            raise LinkLost(self.reason)


class SwitchedLink:
    def __init__(self, link: Link, switch: LinkSwitch) -> None:
        self._link = link
        self._switch = switch
        self.is_padded = link.is_padded

    @property
    def bytes_up(self) -> int:
        return self._link.bytes_up

    @property
    def bytes_down(self) -> int:
        return self._link.bytes_down

    @property
    def rtt_ms(self) -> float | None:
        return self._link.rtt_ms

    async def open(self) -> None:
        self._switch.check()
        await self._link.open()

    async def send(self, message: Up) -> None:
        self._switch.check()
        await self._link.send(message)

    async def receive(self) -> Down:
        self._switch.check()
        message = await self._link.receive()
        self._switch.check()
        return message

    async def close(self) -> None:
        await self._link.close()
