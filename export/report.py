"""The quality report of an export: how close it is to its source and to its target, how large, how fast.

A reference writes greedily, the export reads the same text, and at every position the two are compared. From where they
agree follows what a drafter brings: over the reference's own text a draft is accepted up to the first disagreement.
Knows no backend. A handful of prompts: a check and a rough size, not a benchmark.
"""

import time
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from outrider import catalog
from outrider.engines import Chunk, Engine, EngineSettings, open_engine
from outrider.errors import BadLogits, EngineError, UsageError
from outrider.manifest import ModelFolder
from outrider.progress import Progress
from outrider.tokens import TextCodec

__all__ = [
    "Comparison",
    "compare",
    "compare_with",
    "divergence",
    "make_report",
    "milliseconds_per_token",
    "summary",
    "tokens_per_pass",
    "write",
]

PROMPTS = {
    "code": (
        "Write a Python function that returns the n-th Fibonacci number with a loop.",
        "Write a Python class for a bank account with deposit and withdraw methods.",
        "Write a SQL query that lists the five customers with the highest total order value.",
    ),
    "chat": (
        "Why is the sky blue? Answer in three sentences.",
        "Give me a short plan for a weekend in Lisbon.",
        "Explain to a child how a bicycle stays upright.",
    ),
}
NUM_TOKENS = 48  # of the reference's text a prompt
NUM_TIMED = 16
CHUNK_ROWS = 16  # of logits that the export holds at once
DRAFTS = (4, 8)
SETTINGS = EngineSettings(max_context=512)


@dataclass(slots=True)
class Comparison:
    """Position by position over one text."""

    is_equal: list[bool] = field(default_factory=list)  # the arg-max of both is the same token
    divergences: list[float] = field(default_factory=list)  # KL(reference || export), nats
    masses: list[float] = field(default_factory=list)  # of the reference's probability, on the ids the export has


def make_report(folder: ModelFolder, source: str, target: str | None, progress: Progress) -> dict[str, Any]:
    """What the manifest keeps as `report`. A comparison that cannot be made says why in its `skipped`."""
    codec = TextCodec(folder)
    prompts = {
        kind: [codec.encode_chat([{"role": "user", "content": text}]) for text in texts]
        for kind, texts in PROMPTS.items()
    }
    with closing(open_engine(folder, SETTINGS)) as engine:
        report: dict[str, Any] = {
            "size_bytes": sum((folder.path / file).stat().st_size for file in folder.manifest.files),
            "ms_per_token": milliseconds_per_token(engine, prompts["code"][0]),
            "num_columns": folder.manifest.n_vocab if engine.id_map is None else len(engine.id_map),
        }
        for role, name in (("source", source), ("target", target)):
            if name is not None:
                report[role] = against(folder, engine, name, prompts, progress)
    return report


def against(
    folder: ModelFolder, engine: Engine, name: str, prompts: dict[str, list[list[int]]], progress: Progress
) -> dict[str, Any]:
    """One reference's part of the report."""
    try:
        reference_folder = catalog.find(name)
        if reference_folder.manifest.tokenizer_fingerprint != folder.manifest.tokenizer_fingerprint:
            return {"name": name, "skipped": "its vocabulary differs, so positions cannot be compared token by token"}
        if reference_folder.manifest.id_map is not None:
            return {"name": name, "skipped": "its own vocabulary is trimmed, so it is no reference"}
        reference = open_engine(reference_folder, SETTINGS)
    except (UsageError, EngineError) as error:
        return {"name": name, "skipped": str(error)}
    stage = f"compare with {name}"
    done, total = 0, sum(map(len, prompts.values()))
    result: dict[str, Any] = {"name": name, "num_tokens": NUM_TOKENS}
    every: list[Comparison] = []
    with closing(reference):
        for kind, texts in prompts.items():
            comparisons = []
            for prompt in texts:
                progress(stage, done, total)
                comparisons.append(compare(engine, reference, prompt, reference_folder.manifest.stop_ids))
                done += 1
            result[kind] = summary(comparisons)
            every += comparisons
    progress(stage, total, total)
    return result | summary(every)


def compare(engine: Engine, reference: Engine, prompt: Sequence[int], stop_ids: Sequence[int]) -> Comparison:
    """The reference writes a greedy continuation of `prompt`; the export reads it, and each position is compared."""
    return compare_with(engine, prompt, *write(reference, prompt, stop_ids, NUM_TOKENS))


def compare_with(
    engine: Engine, prompt: Sequence[int], text: Sequence[int], expected_rows: Sequence[NDArray[np.float32]]
) -> Comparison:
    """The same with what a reference wrote, and the logits it chose from."""
    comparison = Comparison()
    kept = None if engine.id_map is None else np.asarray(engine.id_map)
    for choice, expected, found in zip(text, expected_rows, read(engine, prompt, text), strict=True):
        guess = int(np.argmax(found))
        kl, mass = divergence(expected, found, kept)
        comparison.is_equal.append(choice == (guess if kept is None else int(kept[guess])))
        comparison.divergences.append(kl)
        comparison.masses.append(mass)
    return comparison


def write(
    engine: Engine, prompt: Sequence[int], stop_ids: Sequence[int], num_tokens: int
) -> tuple[list[int], list[NDArray[np.float32]]]:
    """The greedy continuation and the logits that each of its tokens was chosen from."""
    text: list[int] = []
    rows: list[NDArray[np.float32]] = []
    with sequence(engine) as own:
        fed: Sequence[int] = prompt
        while len(text) < num_tokens and (not text or text[-1] not in stop_ids):
            rows.append(engine.extend([Chunk(own, fed)])[0][-1].copy())
            text.append(int(np.argmax(rows[-1])))
            fed = text[-1:]
    return text, rows


def read(engine: Engine, prompt: Sequence[int], text: Sequence[int]) -> Iterator[NDArray[np.float32]]:
    """The logits at each position of `text`, a few rows at a time. A row holds until the next is asked for."""
    with sequence(engine) as own:
        yield engine.extend([Chunk(own, prompt)])[0][-1]
        for start in range(0, len(text) - 1, CHUNK_ROWS):
            piece = text[start : min(start + CHUNK_ROWS, len(text) - 1)]
            yield from engine.extend([Chunk(own, piece, len(piece))])[0]


@contextmanager
def sequence(engine: Engine) -> Iterator[int]:
    """A sequence of an engine, released at the end of the block."""
    number = engine.allocate()
    try:
        yield number
    finally:
        engine.release(number)


def divergence(
    expected: NDArray[np.float32], found: NDArray[np.float32], kept: NDArray[np.int32] | None
) -> tuple[float, float]:
    """KL(expected || found) in nats, and the share of `expected`'s probability on the ids that `found` has.

    With a trimmed vocabulary both are taken over the kept ids and made to sum to one; the share says what was left out.
    Widths may differ by padding: only common ids count. Raises BadLogits on a NaN.
    """
    if np.isnan(expected).any() or np.isnan(found).any():
        raise BadLogits("a model gave logits that are not numbers; build it with the other builder or quantization")
    log_all = log_softmax(expected)
    if kept is None:
        width = min(len(expected), len(found))
        log_kept, found = log_all[:width], found[:width]
    else:
        is_common = kept < len(expected)
        log_kept, found = log_all[kept[is_common]], found[is_common]
    mass = float(np.exp(log_kept).sum())
    log_p, log_q = log_softmax(log_kept), log_softmax(found)
    # D(p || q) = sum p (log p - log q); at least zero but for rounding
    return max(0.0, float(np.sum(np.exp(log_p) * (log_p - log_q)))), min(1.0, mass)


def log_softmax(logits: NDArray[Any]) -> NDArray[np.float64]:
    shifted = logits.astype(np.float64) - float(logits.max())
    result: NDArray[np.float64] = shifted - np.log(np.exp(shifted).sum())
    return result


def tokens_per_pass(is_equal: Sequence[bool], num_drafts: int) -> float:
    """Tokens a verifier's pass brings over this text: the drafts up to the first miss, and its own choice after them.

    >>> tokens_per_pass([True, True, False, True, True, True], 4)
    3.0
    """
    passes = position = 0
    while position < len(is_equal):
        passes += 1
        drafts = is_equal[position : position + num_drafts]
        accepted = drafts.index(False) if False in drafts else len(drafts)
        position += accepted + 1
    # The last pass may promise a token past the text's end; only tokens of the text count.
    return len(is_equal) / passes


def summary(comparisons: Sequence[Comparison]) -> dict[str, Any]:
    return {
        "agreement": round(mean([equal for one in comparisons for equal in one.is_equal]), 4),
        "kl": round(mean([kl for one in comparisons for kl in one.divergences]), 5),
        "coverage": round(mean([mass for one in comparisons for mass in one.masses]), 5),
        "tokens_per_pass": {
            str(num): round(mean([tokens_per_pass(one.is_equal, num) for one in comparisons]), 2) for num in DRAFTS
        },
    }


def mean(values: Sequence[float]) -> float:
    return float(np.mean(values))


def milliseconds_per_token(engine: Engine, prompt: Sequence[int]) -> float:
    """Median time of a pass over one token, after the prompt, with nothing else loaded."""
    with sequence(engine) as own:
        engine.extend([Chunk(own, prompt)])
        return round(float(np.median(list(timed_passes(engine, own, prompt[-1])))), 2)


def timed_passes(engine: Engine, own: int, token_id: int) -> Iterator[float]:
    for _ in range(NUM_TIMED):
        start = time.perf_counter()
        engine.extend([Chunk(own, [token_id])])
        yield (time.perf_counter() - start) * 1000
