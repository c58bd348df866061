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
from outrider.errors import InvalidModel, InvalidParameter

__all__ = ["ClassEngine", "class_cost_ms", "cut"]


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
        if not self._sizes:
            raise InvalidModel("the model has no numerics class (it cannot take tokens back); choose another target")
        padding = max(sum(cut(num_rows, self._sizes)) - num_rows for num_rows in range(1, self._sizes[-1] + 1))
        if batch_exact:  # a pass of several pieces is padded to the next size, however far
            gaps = [high - low for low, high in zip(self._sizes, self._sizes[1:], strict=False)]
            padding = max(padding, *(gap - 1 for gap in gaps)) if gaps else padding
        if engine.max_context <= padding:
            raise InvalidParameter(f"a context of {engine.max_context} is too small; give at least {padding + 32}")
        self.name = engine.name
        self.n_vocab = engine.n_vocab
        self.id_map = engine.id_map
        self.max_context = engine.max_context - padding
        self.max_chunk = self._sizes[-1]
        self.max_batch = engine.max_batch if batch_exact else 1
        self.max_sequences = engine.max_sequences
        self.can_truncate = engine.can_truncate
        self.allocate = engine.allocate
        self.length = engine.length
        self.truncate = engine.truncate
        self.keep = engine.keep
        self.copy = engine.copy
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
        # All rows or none: some backends run their output layer on the rows asked for, a pass of another size.
        wants_rows = any(piece.num_logits for piece in pieces)
        asked = []
        for piece in pieces:
            token_ids = piece.token_ids + piece.token_ids[-1:] * piece.num_padding
            asked.append(Chunk(chunks[piece.chunk].sequence, token_ids, len(token_ids) if wants_rows else 0))
        for piece, logits in zip(pieces, self._engine.extend(asked), strict=True):
            sequence = chunks[piece.chunk].sequence
            if piece.num_padding:
                self._engine.truncate(sequence, self._engine.length(sequence) - piece.num_padding)
            wanted = logits[len(piece.token_ids) - piece.num_logits : len(piece.token_ids)] if wants_rows else logits
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
        start = 0
        for size in cut(len(token_ids), self._sizes):
            part = token_ids[start : start + size]
            start += len(part)
            pieces.append(_Piece(number, part, max(0, min(len(part), chunk.num_logits - (len(token_ids) - start)))))
        return pieces


def cut(num_rows: int, sizes: Sequence[int]) -> list[int]:
    """The passes, of the ascending `sizes`, that hold `num_rows`: largest first, the last one perhaps padded.

    A pass is padded rather than split where that wastes at most a quarter of it.

    >>> cut(10, [2, 8, 12, 64]), cut(65, [2, 8, 12, 64]), cut(200, [2, 8, 12, 64])
    ([12], [64, 2], [64, 64, 64, 8])
    """
    passes = []
    while num_rows > 0:
        above = next((size for size in sizes if size >= num_rows), None)
        below = next((size for size in reversed(sizes) if size <= num_rows), None)
        fits = above is not None and (below is None or 4 * (above - num_rows) <= above)
        passes.append(above if fits and above is not None else below or sizes[0])
        num_rows -= passes[-1]
    return passes


def class_cost_ms(cost_ms: Mapping[int, float], sizes: Sequence[int]) -> dict[int, float]:
    """What 1, 2, ... rows cost when held to a class, from what passes of each size cost."""
    usable = sorted(size for size in sizes if size in cost_ms)
    return {rows: sum(cost_ms[size] for size in cut(rows, usable)) for rows in sorted(cost_ms)}
