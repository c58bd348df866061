"""The contract of an engine: token ids in, logits out.

An engine holds one model on one backend and the KV cache of some sequences. It knows neither text nor sessions nor
sampling. It is used from one thread at a time. Ids are checked before native code sees them.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from outrider.errors import ContextExceeded, InvalidParameter, InvalidToken

__all__ = ["PROVIDERS", "Chunk", "Engine", "EngineSettings", "check_chunk"]

Logits = NDArray[np.float32]
# What a model runs on. "auto" is the CPU, and for an ONNX target the faster of the libraries for it (`fastest.py`).
PROVIDERS = ("auto", "cpu", "openvino", "cuda", "qnn", "coreml", "directml")
MAX_THREADS = 512  # llama.cpp's own bound, beyond which it crashes


@dataclass(frozen=True)
class EngineSettings:
    """How to run a model here. `num_threads=0` leaves the number to the machine (its physical cores)."""

    num_threads: int = 0
    max_context: int = 4096  # positions a sequence may hold; lowered to the model's own limit
    max_sequences: int = 1  # sequences resident at once
    provider: str = "auto"  # one of PROVIDERS, for ONNX models; torch has cpu and cuda
    num_gpu_layers: int = 0  # llama.cpp only; -1 for all
    has_exact_kernels: bool = True  # llama.cpp only; False takes its fastest kernels, which have no numerics class

    def __post_init__(self) -> None:
        if not 0 <= self.num_threads <= MAX_THREADS:
            raise InvalidParameter(f"num_threads is {self.num_threads}; give a number from 0 to {MAX_THREADS}")
        if self.provider not in PROVIDERS:
            raise InvalidParameter(f"provider is {self.provider!r}; give one of {', '.join(PROVIDERS)}")
        for name, least in (("max_context", 1), ("max_sequences", 1), ("num_gpu_layers", -1)):
            if getattr(self, name) < least:
                raise InvalidParameter(f"{name} is {getattr(self, name)}; give a number from {least} on")


@dataclass(frozen=True, slots=True)
class Chunk:
    """Tokens to append to one sequence.

    `num_logits` asks for the logits of that many last rows (0 when only the cache is to be filled).
    `parents`, for engines with `supports_tree`: for each token the index in this chunk of the token it follows, or -1
    where it follows what the sequence already holds. None is the chain -1, 0, 1, ...
    """

    sequence: int
    token_ids: Sequence[int] = field(repr=False)
    num_logits: int = 1
    parents: Sequence[int] | None = None


class Engine(Protocol):
    """One model on one backend, and the KV cache of some sequences. Used from one thread at a time."""

    name: str  # backend and its version, e.g. "onnxruntime 1.32.0"
    n_vocab: int  # ids 0 <= id < n_vocab may be fed
    max_context: int  # positions a sequence may hold
    max_batch: int  # sequences that one backend pass takes together
    max_chunk: int  # tokens of one sequence that one pass takes
    max_sequences: int
    can_truncate: bool
    supports_tree: bool
    id_map: NDArray[np.int32] | None  # trimmed vocabularies: logits column j is token id_map[j]; None: column j is id j

    def allocate(self) -> int:
        """A number for a new, empty sequence. Raises EngineFull when `max_sequences` are held."""

    def length(self, sequence: int) -> int:
        """Positions the sequence holds."""

    def extend(self, chunks: Sequence[Chunk]) -> list[Logits]:
        """Append each chunk to its sequence (each sequence at most once a call); logits for the rows asked for.

        Returns one float32 array of shape (num_logits, width) a chunk, width being `n_vocab` or `len(id_map)`. Arrays
        may be views of the engine's own buffer: they hold until the next call. Raises InvalidToken and ContextExceeded
        with no sequence changed; EngineError from the backend, after which the lengths of the sequences in the call
        are undefined and they should be truncated or released.
        """

    def truncate(self, sequence: int, length: int) -> None:
        """Forget all positions from `length` on. Truncating to the present length or beyond is always safe."""

    def keep(self, sequence: int, start: int, rows: Sequence[int]) -> None:
        """After a tree chunk that began at position `start`: keep only these rows of it, in this order (a path)."""

    def copy(self, source: int, target: int, length: int) -> None:
        """Make `target`, which is empty, hold the first `length` positions of `source`, in every bit."""

    def release(self, sequence: int) -> None:
        """Free the sequence. Releasing one that is not held is safe."""

    def close(self) -> None:
        """Free the model. Safe to call twice."""


def check_chunk(chunk: Chunk, *, n_vocab: int, length: int, max_context: int) -> None:
    """Raise before native code would see a bad id or run past the cache.

    >>> check_chunk(Chunk(0, [9]), n_vocab=8, length=0, max_context=16)
    Traceback (most recent call last):
    outrider.errors.InvalidToken: token id 9 is outside the model's vocabulary of 8
    """
    for token_id in chunk.token_ids:
        if not 0 <= token_id < n_vocab:
            raise InvalidToken(f"token id {token_id} is outside the model's vocabulary of {n_vocab}")
    if length + len(chunk.token_ids) > max_context:
        raise ContextExceeded(
            f"{length + len(chunk.token_ids)} tokens do not fit the context of {max_context}; "
            "shorten the prompt, ask for fewer tokens or raise the context"
        )
