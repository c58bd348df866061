"""Keeps every pass of an engine inside one numerics class, so that bits do not depend on how tokens arrived.

A class is a set of pass sizes whose logits and cache agree in every bit (`profile.py` measures it). Chunks are split
into pieces of the class's sizes; a last piece that falls between sizes is padded, and the padding truncated away.
Logits of a position are then a function of the token list alone: of one token or many a pass, after a miss, after the
cache was dropped and filled again. An Engine around an Engine; knows nothing of drafts.
"""

import bisect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from outrider.engines.base import Chunk, Engine, Logits, check_chunk

__all__ = ["ClassEngine", "class_cost_ms"]


@dataclass(slots=True)
class _Piece:
    """Part of a chunk that goes through in one pass."""

    chunk: int
    token_ids: list[int]
    num_logits: int
    num_padding: int = 0


class ClassEngine:
    """`engine` with every pass held to the ascending `sizes` of one class.

    With `batch_exact` pieces of several sequences share a pass as long as their sum is a size of the class too.
    """

    supports_tree = False  # a tree's rows have no class of their own yet

    def __init__(self, engine: Engine, sizes: Sequence[int], *, batch_exact: bool = False) -> None:
        self._engine = engine
        self._sizes = sorted(size for size in sizes if size <= engine.max_chunk)
        gaps = [high - low for low, high in zip([0, *self._sizes], self._sizes, strict=False)]
        self.max_padding = max(gaps) - 1
        self.name = engine.name
        self.n_vocab = engine.n_vocab
        self.id_map = engine.id_map
        self.max_context = engine.max_context - self.max_padding
        self.max_chunk = self._sizes[-1]
        self.max_batch = engine.max_batch if batch_exact else 1
        self.max_sequences = engine.max_sequences
        self.can_truncate = engine.can_truncate
        self.allocate = engine.allocate
        self.length = engine.length
        self.truncate = engine.truncate
        self.keep = engine.keep
        self.release = engine.release
        self.close = engine.close

    def extend(self, chunks: Sequence[Chunk]) -> list[Logits]:
        for chunk in chunks:
            length = self.length(chunk.sequence)
            check_chunk(chunk, n_vocab=self.n_vocab, length=length, max_context=self.max_context)
        rows: list[list[Logits]] = [[] for _ in chunks]
        passes = self._plan(chunks)
        for number, pieces in enumerate(passes):
            is_last = number == len(passes) - 1
            self._run(chunks, pieces, rows, copy=not is_last)
        return [parts[0] if len(parts) == 1 else np.concatenate(parts) for parts in rows]

    def _run(self, chunks: Sequence[Chunk], pieces: list[_Piece], rows: list[list[Logits]], *, copy: bool) -> None:
        asked = []
        for piece in pieces:
            padding = piece.token_ids[-1:] * piece.num_padding
            num_logits = piece.num_logits + piece.num_padding if piece.num_logits else 0
            asked.append(Chunk(chunks[piece.chunk].sequence, piece.token_ids + padding, num_logits))
        for piece, logits in zip(pieces, self._engine.extend(asked), strict=True):
            sequence = chunks[piece.chunk].sequence
            if piece.num_padding:
                self._engine.truncate(sequence, self._engine.length(sequence) - piece.num_padding)
            wanted = logits[: piece.num_logits]
            if piece.num_logits or not rows[piece.chunk]:
                rows[piece.chunk].append(wanted.copy() if copy else wanted)

    def _plan(self, chunks: Sequence[Chunk]) -> list[list[_Piece]]:
        """Passes, in order. A sequence's pieces keep their order and never share a pass."""
        waiting = [self._split(number, chunk) for number, chunk in enumerate(chunks)]
        passes: list[list[_Piece]] = []
        while any(waiting):
            together: list[_Piece] = []
            total = 0
            for pieces in waiting:
                if pieces and len(together) < self.max_batch and total + len(pieces[0].token_ids) <= self.max_chunk:
                    total += len(pieces[0].token_ids)
                    together.append(pieces.pop(0))
            together[-1].num_padding = self._sizes[bisect.bisect_left(self._sizes, total)] - total
            passes.append(together)
        return passes

    def _split(self, number: int, chunk: Chunk) -> list[_Piece]:
        token_ids = list(chunk.token_ids)
        pieces = []
        for start in range(0, len(token_ids), self.max_chunk):
            part = token_ids[start : start + self.max_chunk]
            after = len(token_ids) - start - len(part)
            pieces.append(_Piece(number, part, max(0, min(len(part), chunk.num_logits - after))))
        return pieces


def class_cost_ms(cost_ms: Mapping[int, float], sizes: Sequence[int]) -> dict[int, float]:
    """What 1, 2, ... rows cost when held to a class, from what passes of each size cost: split, then padded."""
    usable = sorted(size for size in sizes if size in cost_ms)
    largest = usable[-1]

    def cost(num_rows: int) -> float:
        num_full, rest = divmod(num_rows, largest)
        return num_full * cost_ms[largest] + (cost_ms[usable[bisect.bisect_left(usable, rest)]] if rest else 0.0)

    return {num_rows: cost(num_rows) for num_rows in sorted(cost_ms)}
