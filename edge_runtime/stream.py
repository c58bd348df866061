"""The verifier as a session hears it: one list, opened on a link and opened again when that broke, and what is said.

Knows the order of messages and how long silence may last; nothing of drafting, of guesses or of when to try again.
"""

import asyncio
from contextlib import suppress

from edge_runtime.links.base import Link
from edge_runtime.request import GenerationRequest
from outrider.errors import LinkError, LinkLost, ProtocolError
from outrider.wire import Cancel, Down, Draft, Fault, Load, Opened, Verified

__all__ = ["VerifierStream"]

WAIT_FOR_DRAFTS = -1
NEVER_WAIT = 0


class VerifierStream:
    """`opened` is what the list was opened with, as long as it is open; the session sets it, once it has taken that in.

    `max_drafts` is what a pass may be asked to look at; a busy verifier allows fewer (`drafts_allowed`).
    """

    def __init__(self, link: Link, *, max_drafts: int, max_silence_s: float, takes_turns: bool) -> None:
        self.link = link
        self.opened: Opened | None = None
        self.drafts_allowed = max_drafts
        self._max_drafts = max_drafts
        self._max_silence_s = max_silence_s
        self._patience_ms = WAIT_FOR_DRAFTS if takes_turns else NEVER_WAIT

    async def open(self, request: GenerationRequest, token_ids: list[int], target: str) -> Opened:
        """Open the list. Raises LinkError, what the verifier refused, and ProtocolError."""
        link = self.link
        await link.open()
        opening = request.opening(token_ids, target, patience_ms=self._patience_ms, is_padded=link.is_padded)
        await link.send(opening)
        opened = request.check(await self._receive(), len(token_ids), target)
        self.drafts_allowed = self._max_drafts
        return opened

    async def verified(self) -> Verified:
        """What was verified next. Raises LinkLost, ProtocolError and the verifier's own fault."""
        message = await self._receive()
        if not isinstance(message, Verified):
            raise ProtocolError("the verifier spoke out of turn; check both sides' versions")
        return message

    async def say(self, message: Draft) -> None:
        """A link that takes nothing may still hold the answer: whether it is lost, those find out who listen."""
        with suppress(LinkLost):
            await self.link.send(message)

    async def leave(self) -> None:
        with suppress(LinkError):
            await self.link.send(Cancel())
        await self.link.close()

    async def _receive(self) -> Down:
        """The next message; what the verifier says of its load is heeded on the way."""
        try:
            async with asyncio.timeout(self._max_silence_s):  # news of the load alone is silence
                while isinstance(message := await self.link.receive(), Load):
                    self.drafts_allowed = min(self._max_drafts, message.max_drafts)
        except TimeoutError:
            raise LinkLost("the verifier says nothing any more; check it and try again") from None
        if isinstance(message, Fault):
            raise message.error()
        return message
