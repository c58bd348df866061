"""A link to a verifier in this process: messages pass between threads as they are, nothing is encoded."""

from cloud_verifier.conversation import Conversation
from cloud_verifier.loop import VerifierLoop
from outrider.errors import LinkLost
from outrider.wire import Down, Up

__all__ = ["InProcessLink"]


class InProcessLink:
    bytes_up = 0
    bytes_down = 0
    rtt_ms = None
    is_padded = False

    def __init__(self, verifier: VerifierLoop, credential: str = "") -> None:
        """What drafts of a `credential` cost is its own balance: others may use another."""
        self._verifier = verifier
        self._credential = credential
        self._conversation: Conversation | None = None  # a new one for every opening: last words stay with the old

    async def open(self) -> None:
        try:
            self._conversation = Conversation(self._verifier, self._credential)
        except LinkLost as error:
            error.may_retry = False  # in this process nobody starts it again
            raise

    async def send(self, message: Up) -> None:
        self._opened().send(message)

    async def receive(self) -> Down:
        message = await self._opened().hear()
        if message is None:
            raise LinkLost("the link was closed; open it again")
        return message

    async def close(self) -> None:
        if self._conversation is not None:
            self._conversation.close()

    def _opened(self) -> Conversation:
        if self._conversation is None:
            raise LinkLost("the link is not open; open it first")
        return self._conversation
