"""Finds which pass sizes of an engine agree in every bit, and whether sequences in one pass keep their own bits.

A size counts only if it agrees with itself: the same tokens at other places of a chunk, beside other tokens, must give
the same bits, as they must when drafts are refused. Nothing is inferred: sizes share a class only if each pair was
compared, logits and cache. Rows are compared in runs, for a quantized engine rounds most small differences away.
Knows nothing of costs; see `profile.py`.
"""

import bisect
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

from outrider.engines.base import Chunk, Engine, Logits
from outrider.progress import Progress

__all__ = ["PROBE", "SIZES", "SPAN", "find_classes", "is_batch_exact"]

SIZES = (1, 2, 3, 4, 5, 6, 7, 8, 10, 12, 14, 16, 20, 24, 32, 48, 64, 128)
SPAN = 48  # rows a small size is compared on; a larger one has a single pass
PROBE = 8  # tokens fed after each fill, in one pass: their logits tell whether the caches are equal
STAGE = "comparing bits"

# Lengths of chunks put into one pass; a mix's last entry is repeated where the engine takes more sequences.
MIXES = ((1,), (1, 2), (5, 3, 1), (16, 1), (8,))
NUM_TOGETHER = 3  # sequences in those passes
ROUNDS = 12


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
    """Whether chunks of several sequences in one pass give the bits that each gives alone.

    Each pass, alone or together, is padded to one of the ascending `sizes`. Needs all of the engine's sequences free.
    """
    num_sequences = min(engine.max_batch, engine.max_sequences, NUM_TOGETHER)
    if num_sequences == 1:
        return True
    if not sizes:
        return False
    sequences = [engine.allocate() for _ in range(num_sequences)]
    try:
        for number, sequence in enumerate(sequences):
            history = token_ids[: max(1, depth // (number + 1))]
            for first in range(0, len(history), sizes[-1]):
                engine.extend([Chunk(sequence, history[first : first + sizes[-1]], 0)])
        mixes = [[mix[min(number, len(mix) - 1)] for number in range(num_sequences)] for mix in MIXES]
        mixes = [mix for mix in mixes if sum(mix) <= sizes[-1]]
        return bool(mixes) and all(_keeps_bits(engine, sequences, token_ids, sizes, mix) for mix in mixes)
    finally:
        for sequence in sequences:
            engine.release(sequence)


def _keeps_bits(
    engine: Engine, sequences: Sequence[int], token_ids: Sequence[int], sizes: Sequence[int], lengths: Sequence[int]
) -> bool:
    """Several rounds that build on each other: a difference may be rounded away in one row, hardly in all to come."""
    starts = [engine.length(sequence) for sequence in sequences]
    num_rounds = min(ROUNDS, (engine.max_context - max(starts)) // _padded_to(sizes, sum(lengths)))
    alone: list[list[bytes]] = []
    for number, sequence in enumerate(sequences):
        rows: list[bytes] = []
        for turn in range(num_rounds):
            rows += _pass(engine, [sequence], [_text(token_ids, number, turn, lengths[number])], sizes)[0]
        alone.append(rows)
        engine.truncate(sequence, starts[number])

    together: list[list[bytes]] = [[] for _ in sequences]
    for turn in range(num_rounds):
        texts = [_text(token_ids, number, turn, length) for number, length in enumerate(lengths)]
        for rows, more in zip(together, _pass(engine, sequences, texts, sizes), strict=True):
            rows += more
    for sequence, start in zip(sequences, starts, strict=True):
        engine.truncate(sequence, start)
    return num_rounds > 0 and together == alone


def _text(token_ids: Sequence[int], number: int, turn: int, length: int) -> list[int]:
    """Other tokens for each sequence and turn."""
    start = 7 * number + turn * length
    return list(token_ids[start : start + length])


def _pass(
    engine: Engine, sequences: Sequence[int], texts: Sequence[list[int]], sizes: Sequence[int]
) -> list[list[bytes]]:
    """One pass, its sum padded to the smallest size that holds it; the padding is taken back."""
    total = sum(len(text) for text in texts)
    num_padding = _padded_to(sizes, total) - total
    fed = [*texts[:-1], texts[-1] + texts[-1][-1:] * num_padding]
    chunks = [Chunk(sequence, text, len(text)) for sequence, text in zip(sequences, fed, strict=True)]
    rows = [_digests(logits)[: len(text)] for logits, text in zip(engine.extend(chunks), texts, strict=True)]
    engine.truncate(sequences[-1], engine.length(sequences[-1]) - num_padding)
    return rows


def _padded_to(sizes: Sequence[int], total: int) -> int:
    return sizes[bisect.bisect_left(sizes, total)]


def _digests(rows: Logits) -> list[bytes]:
    """Equal digests: equal bits. Keeps 16 bytes of a row that may have half a megabyte."""
    return [hashlib.blake2b(row.tobytes(), digest_size=16).digest() for row in rows]
