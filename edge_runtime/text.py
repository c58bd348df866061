"""An answer as text, token by token: whole characters, up to a stop string, and back again where tokens are retracted.

Knows no session and no journal.
"""

from collections.abc import Sequence

from outrider.stops import StopStrings
from outrider.tokens import StreamDecoder, TextCodec

__all__ = ["AnswerText"]


class AnswerText:
    """Raises InvalidParameter for strings `stop` that cannot be. `is_hit` once one of them has come."""

    def __init__(self, codec: TextCodec, stop: Sequence[str] = ()) -> None:
        self._codec = codec
        self._stop = stop
        self._decoder = StreamDecoder(codec)
        self._stops = StopStrings(stop)
        self.token_ids: list[int] = []
        self._ends: list[int] = []  # characters told after each token

    @property
    def is_hit(self) -> bool:
        return self._stops.is_hit

    def append(self, token_id: int) -> str:
        """The text that the token completes: empty inside a character, and inside what may become a stop string."""
        text = self._stops.feed(self._decoder.feed(token_id))
        self.token_ids.append(token_id)
        self._ends.append((self._ends[-1] if self._ends else 0) + len(text))
        return text

    def retract(self, length: int) -> int:
        """Keep the first `length` tokens. Gives how many characters of the text told so far those are."""
        kept = self.token_ids[:length]
        self._decoder, self._stops = StreamDecoder(self._codec), StopStrings(self._stop)
        self.token_ids, self._ends = [], []
        for token_id in kept:
            self.append(token_id)
        return self._ends[-1] if kept else 0

    def flush(self) -> str:
        """What was held back, at the answer's end."""
        return self._stops.feed(self._decoder.flush()) + self._stops.flush()
