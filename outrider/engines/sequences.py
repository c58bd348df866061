"""The book of an engine's sequences: which numbers are held, how many positions each holds.

Checks a whole call before any of it reaches native code. Knows no backend; backends that need more keep it themselves.
"""

from collections.abc import Sequence

from outrider.engines.base import Chunk, check_chunk
from outrider.errors import EngineError, EngineFull

__all__ = ["Sequences"]


class Sequences:
    """Lengths by sequence number; free numbers are given out from the lowest."""

    def __init__(self, maximum: int) -> None:
        self.maximum = maximum
        self._lengths: dict[int, int] = {}

    def allocate(self) -> int:
        """The lowest free number, now held with length 0. Raises EngineFull."""
        for number in range(self.maximum):
            if number not in self._lengths:
                self._lengths[number] = 0
                return number
        raise EngineFull(f"all {self.maximum} sequences are in use; release one or open the model with more")

    def length(self, number: int) -> int:
        """Positions held. Raises EngineError for a number that is not held."""
        try:
            return self._lengths[number]
        except KeyError:
            raise EngineError(f"sequence {number} is not held; allocate one first") from None

    def resize(self, number: int, length: int) -> None:
        self.length(number)
        self._lengths[number] = length

    def release(self, number: int) -> bool:
        """Whether the number was held."""
        return self._lengths.pop(number, None) is not None

    def check(self, chunks: Sequence[Chunk], *, n_vocab: int, max_context: int, supports_tree: bool) -> None:
        """Raise InvalidToken, ContextExceeded or EngineError for any chunk that the engine may not be given."""
        if len({chunk.sequence for chunk in chunks}) != len(chunks):
            raise EngineError("a sequence appears twice in one call; join its chunks")
        for chunk in chunks:
            check_chunk(chunk, n_vocab=n_vocab, length=self.length(chunk.sequence), max_context=max_context)
            if not 0 <= chunk.num_logits <= len(chunk.token_ids):
                raise EngineError(f"{chunk.num_logits} rows of logits were asked of {len(chunk.token_ids)} tokens")
            if chunk.parents is not None:
                _check_parents(chunk, supports_tree)


def _check_parents(chunk: Chunk, supports_tree: bool) -> None:
    parents = list(chunk.parents or ())
    if len(parents) != len(chunk.token_ids):
        raise EngineError(f"a tree of {len(chunk.token_ids)} tokens came with {len(parents)} parents")
    if not supports_tree and parents != list(range(-1, len(parents) - 1)):
        raise EngineError("this engine takes chains only; send the tree's paths one by one")
    if any(not -1 <= parent < row for row, parent in enumerate(parents)):
        raise EngineError("a tree's token must come after the token it follows")
