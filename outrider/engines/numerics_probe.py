"""Finds which pass sizes of an engine agree in every bit, and whether sequences in one pass leave each other's bits alone.

A size counts only if it agrees with itself: the same tokens at other places of a chunk, beside other tokens, must give
the same bits, as they will when drafts are refused. Nothing is inferred: sizes share a class if each pair was compared,
logits and cache. Knows nothing of costs; see `profile.py`.
"""

import bisect
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

from outrider.engines.base import Chunk, Engine, Logits
from outrider.progress import Progress

__all__ = ["SIZES", "find_classes", "is_batch_exact"]

SIZES = (1, 2, 3, 4, 5, 6, 7, 8, 9, 12, 16, 24, 32, 48, 64, 128)
SPAN = 48  # rows a small size is compared on; a larger one has a single pass
PROBE = 8  # tokens fed after each fill, in one pass: their logits tell whether the caches are equal
STAGE = "comparing bits"

# Lengths of chunks put into one pass; the last entry of a mix is repeated while the engine takes more sequences.
MIXES = ((1,), (2,), (8,), (1, 2), (2, 1), (3, 5), (5, 3, 1), (16, 1), (32,))


@dataclass(frozen=True, slots=True)
class Trace:
    """What one size made of the text: a digest of each row's logits, and those of the probe after the common length."""

    rows: list[bytes]
    probe: list[bytes]


def find_classes(
    engine: Engine, sequence: int, token_ids: Sequence[int], depth: int, progress: Progress
) -> list[list[int]]:
    """Sets of sizes that agree in every bit, ascending. `sequence` holds `depth` positions and is left so.

    Sizes without a class of their own (which disagree with themselves) are in none. Needs an engine that can truncate.
    """
    sizes = [size for size in SIZES if size <= engine.max_chunk and depth + 2 * size + PROBE <= engine.max_context]
    common = min((_num_rows(size) for size in sizes), default=0)
    traces: dict[int, Trace] = {}
    for number, size in enumerate(sizes):
        progress(STAGE, number, len(sizes))
        rows = _walk(engine, sequence, token_ids, depth, size)
        engine.truncate(sequence, depth + common)
        probe = _digests(engine.extend([Chunk(sequence, token_ids[-PROBE:], PROBE)])[0])
        if _agrees_with_itself(engine, sequence, token_ids, depth, size, rows):
            traces[size] = Trace(rows, probe)
    engine.truncate(sequence, depth)
    progress(STAGE, len(sizes), len(sizes))

    classes: list[list[int]] = []
    for size, trace in traces.items():
        for members in classes:
            if all(_agree(trace, traces[member]) for member in members):
                members.append(size)
                break
        else:
            classes.append([size])
    return classes


def _num_rows(size: int) -> int:
    """Rows of a walk: whole passes only, so that every row and cell compared was made by a pass of this size."""
    return max(1, SPAN // size) * size


def _walk(engine: Engine, sequence: int, token_ids: Sequence[int], depth: int, size: int) -> list[bytes]:
    engine.truncate(sequence, depth)
    rows: list[bytes] = []
    for first in range(0, _num_rows(size), size):
        rows += _digests(engine.extend([Chunk(sequence, token_ids[first : first + size], size)])[0])
    return rows


def _agrees_with_itself(
    engine: Engine, sequence: int, token_ids: Sequence[int], depth: int, size: int, rows: Sequence[bytes]
) -> bool:
    """A pass whose last tokens are wrong and taken back, then one that starts inside it: rows move by an odd number."""
    if size == 1:
        return True
    kept = min((size // 2) | 1, size - 1)
    wrong = token_ids[-(size - kept) :]
    engine.truncate(sequence, depth)
    first = engine.extend([Chunk(sequence, [*token_ids[:kept], *wrong], size)])[0]
    ragged = _digests(first[:kept])
    engine.truncate(sequence, depth + kept)
    ragged += _digests(engine.extend([Chunk(sequence, token_ids[kept : kept + size], size)])[0])
    num_compared = min(len(ragged), len(rows))
    return ragged[:num_compared] == list(rows[:num_compared])


def _agree(one: Trace, other: Trace) -> bool:
    num_compared = min(len(one.rows), len(other.rows))
    return one.rows[:num_compared] == other.rows[:num_compared] and one.probe == other.probe


def is_batch_exact(engine: Engine, token_ids: Sequence[int], depth: int, sizes: Sequence[int]) -> bool:
    """Whether chunks of several sequences in one pass give the bits that each gives alone, the pass's sum being padded
    to one of the ascending `sizes`. Needs all of the engine's sequences free."""
    if engine.max_batch == 1:
        return True
    if not sizes:
        return False
    num_sequences = min(engine.max_batch, engine.max_sequences)
    sequences = [engine.allocate() for _ in range(num_sequences)]
    try:
        # Unequal lengths; the first sequence is the longest.
        depths = [max(1, depth // (number + 1)) for number in range(num_sequences)]
        _fill(engine, sequences, depths, token_ids, sizes)
        return all(
            _mix_is_exact(engine, sequences, depths, token_ids, sizes, lengths)
            for lengths in (_repeated(mix, num_sequences) for mix in MIXES)
            if sum(lengths) <= sizes[-1]
        )
    finally:
        for sequence in sequences:
            engine.release(sequence)


def _repeated(mix: Sequence[int], num_sequences: int) -> list[int]:
    return [mix[min(number, len(mix) - 1)] for number in range(num_sequences)]


def _fill(
    engine: Engine, sequences: Sequence[int], depths: Sequence[int], token_ids: Sequence[int], sizes: Sequence[int]
) -> None:
    for sequence, depth in zip(sequences, depths, strict=True):
        for first in range(0, depth, sizes[-1]):
            engine.extend([Chunk(sequence, token_ids[first : min(first + sizes[-1], depth)], 0)])


def _mix_is_exact(
    engine: Engine,
    sequences: Sequence[int],
    depths: Sequence[int],
    token_ids: Sequence[int],
    sizes: Sequence[int],
    lengths: Sequence[int],
) -> bool:
    starts = range(0, 7 * len(sequences), 7)  # other tokens for each sequence
    texts = [list(token_ids[start : start + length]) for start, length in zip(starts, lengths, strict=True)]
    alone: list[list[bytes]] = []
    for sequence, depth, text in zip(sequences, depths, texts, strict=True):
        rows = _digests(engine.extend([_padded(sequence, text, len(text), sizes)])[0][: len(text)])
        alone.append(rows + _probe(engine, sequence, depth + len(text), token_ids, sizes))
        engine.truncate(sequence, depth)

    chunks = [Chunk(sequence, text, len(text)) for sequence, text in zip(sequences, texts, strict=True)]
    chunks[-1] = _padded(sequences[-1], texts[-1], sum(lengths), sizes)
    together = [_digests(rows[:length]) for rows, length in zip(engine.extend(chunks), lengths, strict=True)]
    is_exact = True
    for number, (sequence, depth) in enumerate(zip(sequences, depths, strict=True)):
        rows = together[number] + _probe(engine, sequence, depth + lengths[number], token_ids, sizes)
        is_exact = is_exact and rows == alone[number]
        engine.truncate(sequence, depth)
    return is_exact


def _padded(sequence: int, text: list[int], total: int, sizes: Sequence[int]) -> Chunk:
    """The text, padded so that a pass of `total` tokens becomes one of the smallest size that holds it."""
    num_padding = sizes[bisect.bisect_left(sizes, total)] - total
    return Chunk(sequence, text + text[-1:] * num_padding, len(text) + num_padding)


def _probe(engine: Engine, sequence: int, length: int, token_ids: Sequence[int], sizes: Sequence[int]) -> list[bytes]:
    engine.truncate(sequence, length)
    return _digests(engine.extend([_padded(sequence, list(token_ids[-1:]), 1, sizes)])[0])


def _digests(rows: Logits) -> list[bytes]:
    """Equal digests: equal bits. Keeps 16 bytes of a row that may have half a megabyte."""
    return [hashlib.blake2b(row.tobytes(), digest_size=16).digest() for row in rows]
