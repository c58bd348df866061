"""An engine that counts: after a token comes the next number. It costs next to nothing: what is left is the service."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from outrider.engines.base import Chunk, Logits
from outrider.engines.sequences import Sequences
from outrider.errors import EngineError

__all__ = ["CountingEngine"]


class CountingEngine:
    """See `outrider.engines.base.Engine`. Ids count up to `n_vocab` and begin again."""

    name = "counting"
    n_vocab = 64
    id_map: NDArray[np.int32] | None = None
    max_chunk = 512
    can_truncate = True
    supports_tree = False

    def __init__(self, max_sequences: int, max_context: int = 4096) -> None:
        self.max_sequences = self.max_batch = max_sequences
        self.max_context = max_context
        self._sequences = Sequences(max_sequences)
        self.allocate = self._sequences.allocate
        self.length = self._sequences.length
        self._rows = np.eye(self.n_vocab, dtype=np.float32)

    def extend(self, chunks: Sequence[Chunk]) -> list[Logits]:
        self._sequences.check(chunks, n_vocab=self.n_vocab, max_context=self.max_context, supports_tree=False)
        logits = []
        for chunk in chunks:
            self._sequences.resize(chunk.sequence, self.length(chunk.sequence) + len(chunk.token_ids))
            last = np.array(chunk.token_ids[len(chunk.token_ids) - chunk.num_logits :], np.int64)
            logits.append(self._rows[(last + 1) % self.n_vocab])
        return logits

    def truncate(self, sequence: int, length: int) -> None:
        self._sequences.resize(sequence, min(length, self.length(sequence)))

    def keep(self, sequence: int, start: int, rows: Sequence[int]) -> None:
        raise EngineError("this engine runs no trees; send a chain")

    def copy(self, source: int, target: int, length: int) -> None:
        self._sequences.resize(target, length)

    def release(self, sequence: int) -> None:
        self._sequences.release(sequence)

    def close(self) -> None:
        """Nothing to free."""
