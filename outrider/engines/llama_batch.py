"""The rows of llama.cpp passes: which tokens go together, and the native batch that carries them.

Memory is allocated once and filled in place. Knows no model, no context and no sequence lengths of its own.
"""

import ctypes
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
from llama_cpp import llama_cpp as native
from numpy.typing import NDArray

from outrider.engines.base import Chunk

__all__ = ["MAX_CHUNK", "Batch", "Piece", "passes_of"]

MAX_CHUNK = 512  # tokens of one native pass: batch, physical batch and rows of logits


class Piece(NamedTuple):
    """A run of a chunk's tokens that goes through one native pass; the last `num_logits` rows give logits."""

    number: int  # of the chunk in the call
    sequence: int
    token_ids: Sequence[int]
    num_logits: int


class Batch:
    """A preallocated `llama_batch` of MAX_CHUNK rows, fed by token or, where `width` is not 0, by embedding."""

    def __init__(self, width: int) -> None:
        self._tokens = np.zeros(MAX_CHUNK, np.int32)
        self._embeddings = np.zeros((MAX_CHUNK, width), np.float32)
        self._positions = np.zeros(MAX_CHUNK, np.int32)
        self._counts = np.ones(MAX_CHUNK, np.int32)
        self._numbers = np.zeros(MAX_CHUNK, np.int32)
        self._wants = np.zeros(MAX_CHUNK, np.int8)
        one, base = ctypes.POINTER(ctypes.c_int32), self._numbers.ctypes.data
        self._pointers = (one * MAX_CHUNK)(*(ctypes.cast(base + 4 * row, one) for row in range(MAX_CHUNK)))
        self.struct = native.llama_batch(
            n_tokens=0,
            token=None if width else self._tokens.ctypes.data_as(one),
            embd=self._embeddings.ctypes.data_as(ctypes.POINTER(ctypes.c_float)) if width else None,
            pos=self._positions.ctypes.data_as(one),
            n_seq_id=self._counts.ctypes.data_as(one),
            seq_id=self._pointers,
            logits=self._wants.ctypes.data_as(ctypes.POINTER(ctypes.c_int8)),
        )

    def fill(self, pieces: Sequence[Piece], starts: Sequence[int], embeddings: NDArray[Any] | None) -> None:
        row = 0
        self._wants[:] = 0
        for piece, start in zip(pieces, starts, strict=True):
            end = row + len(piece.token_ids)
            if embeddings is None:
                self._tokens[row:end] = piece.token_ids
            else:
                self._embeddings[row:end] = embeddings[np.asarray(piece.token_ids)]
            self._positions[row:end] = np.arange(start, start + end - row)
            self._numbers[row:end] = piece.sequence
            self._wants[end - piece.num_logits : end] = 1
            row = end
        self.struct.n_tokens = row


def passes_of(chunks: Sequence[Chunk]) -> Iterator[list[Piece]]:
    """Cut chunks into pieces of MAX_CHUNK at most, and group pieces of one length into passes that fit a batch."""
    remaining = {index: list(chunk.token_ids) for index, chunk in enumerate(chunks) if len(chunk.token_ids)}
    while remaining:
        by_length: dict[int, list[Piece]] = {}
        for index, token_ids in list(remaining.items()):
            now, later = token_ids[:MAX_CHUNK], token_ids[MAX_CHUNK:]
            wanted = max(0, chunks[index].num_logits - len(later))
            piece = Piece(index, chunks[index].sequence, now, min(wanted, len(now)))
            by_length.setdefault(len(now), []).append(piece)
            if later:
                remaining[index] = later
            else:
                del remaining[index]
        for length, pieces in by_length.items():
            together = MAX_CHUNK // length
            pieces.sort(key=lambda piece: piece.sequence)  # llama.cpp joins only neighbouring sequences
            for first in range(0, len(pieces), together):
                yield pieces[first : first + together]
