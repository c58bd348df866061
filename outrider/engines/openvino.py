"""OpenVINO on the fused ONNX graphs: attention over a cache in blocks, the tokens of several sequences in one pass.

The same files as ONNX Runtime's, other kernels: where a processor multiplies small matrices well a pass over many rows
costs little more than a plain one (docs/decisions/0015). Each sequence has its own run of blocks, so truncation is a
number. Knows token ids only.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import openvino as ov
from numpy.typing import NDArray

from outrider.engines.base import Chunk, EngineSettings, Logits
from outrider.engines.machine import resolve_threads
from outrider.engines.paged_graph import paged
from outrider.engines.sequences import Sequences
from outrider.errors import EngineError, InvalidModel
from outrider.manifest import ModelFolder

__all__ = ["OpenVinoEngine"]

PASS_TOKENS = 128  # a longer chunk is run in passes of this size
GROUP = 128  # activations share a scale in groups of so many, as the weights do


class OpenVinoEngine:
    """See `outrider.engines.base.Engine`. Raises InvalidModel for a graph that `paged` cannot rewrite."""

    name = f"openvino {ov.__version__.partition('-')[0]}"
    max_batch = 64
    supports_tree = False
    can_truncate = True

    def __init__(self, folder: ModelFolder, settings: EngineSettings) -> None:
        manifest = folder.manifest
        self.n_vocab = manifest.n_vocab
        self.id_map = None if manifest.id_map is None else np.load(folder.path / manifest.id_map)
        self.max_context = min(settings.max_context, manifest.max_context)
        self.max_sequences = settings.max_sequences
        self.max_chunk = PASS_TOKENS
        compiled = _compile(folder, settings)
        self._width = compiled.output(0).partial_shape[2].get_length()
        self._request: Any = compiled.create_infer_request()
        self._sequences = Sequences(settings.max_sequences)
        caches = [each for each in compiled.inputs if "_cache." in each.any_name]
        self._block_size = caches[0].partial_shape[2].get_length()
        self._num_blocks = -(-(self.max_context + 1) // self._block_size)  # of a sequence
        self._caches: list[NDArray[np.float32]] = []
        for cache in caches:
            shape = [
                self.max_sequences * self._num_blocks,
                *(each.get_length() for each in list(cache.partial_shape)[1:]),
            ]
            held = np.zeros(shape, np.float32)
            self._caches.append(held)
            self._request.set_tensor(cache, ov.Tensor(held, shared_memory=True))
        self._warm_up()

    def _warm_up(self) -> None:
        """The first pass arranges the weights for the kernels, which takes seconds: a part of loading."""
        sequence = self.allocate()
        self.extend([Chunk(sequence, [0])])
        self.release(sequence)

    def allocate(self) -> int:
        return self._sequences.allocate()

    def length(self, sequence: int) -> int:
        return self._sequences.length(sequence)

    def extend(self, chunks: Sequence[Chunk]) -> list[Logits]:
        self._sequences.check(chunks, n_vocab=self.n_vocab, max_context=self.max_context, supports_tree=False)
        passes = _passes(chunks)
        rows: list[list[Logits]] = [[] for _ in chunks]
        for number, pieces in enumerate(passes):
            logits = self._run(pieces)
            for (place, piece), found in zip(pieces, logits, strict=True):
                if piece.num_logits:
                    rows[place].append(found if number == len(passes) - 1 else found.copy())
        empty = np.empty((0, self._width), np.float32)
        return [np.concatenate(parts) if len(parts) > 1 else parts[0] if parts else empty for parts in rows]

    def _run(self, pieces: Sequence[tuple[int, Chunk]]) -> list[Logits]:
        """One pass over pieces of different sequences: the rows that each wants, in the request's own buffer."""
        chunks = [piece for _, piece in pieces]
        # A token that is alone in its sequence is attended by another kernel: beside others it goes in twice.
        fed = [[*chunk.token_ids] * (1 + (len(chunks) > 1 and len(chunk.token_ids) == 1)) for chunk in chunks]
        starts = [self.length(chunk.sequence) for chunk in chunks]
        ends = [start + len(token_ids) for start, token_ids in zip(starts, fed, strict=True)]
        begins = np.cumsum([0, *map(len, fed)])
        blocks = [
            np.arange(-(-end // self._block_size)) + chunk.sequence * self._num_blocks
            for end, chunk in zip(ends, chunks, strict=True)
        ]
        wanted = [
            np.arange(len(chunk.token_ids) - chunk.num_logits, len(chunk.token_ids)) + begin
            for begin, chunk in zip(begins, chunks, strict=False)
        ]
        inputs = {
            "input_ids": np.concatenate(fed).astype(np.int64)[None],
            "position_ids": np.concatenate([np.arange(*span) for span in zip(starts, ends, strict=True)]),
            "rows": np.concatenate(wanted),
            "past_lens": np.array(starts),
            "subsequence_begins": begins,
            "block_indices": np.concatenate(blocks),
            "block_indices_begins": np.cumsum([0, *map(len, blocks)]),
            "max_context_len": np.array(max(ends)),
        }
        typed = {name: value if name == "input_ids" else value.astype(np.int32) for name, value in inputs.items()}
        try:
            self._request.infer(typed, share_inputs=True)
        except Exception as error:  # noqa: BLE001  OpenVINO raises bare RuntimeError and classes of its own
            raise EngineError(f"OpenVINO failed: {_reason(error)}") from None
        for chunk, start in zip(chunks, starts, strict=True):
            self._sequences.resize(chunk.sequence, start + len(chunk.token_ids))
        logits: Logits = self._request.get_output_tensor(0).data[0]
        return np.split(logits, np.cumsum([chunk.num_logits for chunk in chunks])[:-1])

    def truncate(self, sequence: int, length: int) -> None:
        if length < self.length(sequence):
            self._sequences.resize(sequence, length)

    def keep(self, sequence: int, start: int, rows: Sequence[int]) -> None:
        raise EngineError("this engine runs no trees; send a chain")

    def copy(self, source: int, target: int, length: int) -> None:
        first, onto = source * self._num_blocks, target * self._num_blocks
        num_blocks = -(-length // self._block_size)
        for cache in self._caches:
            cache[onto : onto + num_blocks] = cache[first : first + num_blocks]
        self._sequences.resize(target, length)

    def release(self, sequence: int) -> None:
        self._sequences.release(sequence)

    def close(self) -> None:
        self._request = None
        self._caches.clear()


def _passes(chunks: Sequence[Chunk]) -> list[list[tuple[int, Chunk]]]:
    """Pieces of at most PASS_TOKENS, with the numbers of the chunks they are of; each pass takes one of every chunk."""
    passes: list[list[tuple[int, Chunk]]] = []
    for number, chunk in enumerate(chunks):
        total = len(chunk.token_ids)
        for turn, start in enumerate(range(0, total, PASS_TOKENS)):
            token_ids = chunk.token_ids[start : start + PASS_TOKENS]
            after = total - start - len(token_ids)
            num_logits = max(0, min(len(token_ids), chunk.num_logits - after))
            if turn == len(passes):
                passes.append([])
            passes[turn].append((number, Chunk(chunk.sequence, token_ids, num_logits)))
    return passes


def _compile(folder: ModelFolder, settings: EngineSettings) -> Any:
    """Numbers stay 32-bit floats between the layers, and in the cache; only products are of 8-bit integers."""
    told = {
        "INFERENCE_NUM_THREADS": resolve_threads(settings.num_threads),
        "INFERENCE_PRECISION_HINT": "f32",
        "KV_CACHE_PRECISION": "f32",
        "DYNAMIC_QUANTIZATION_GROUP_SIZE": GROUP,
        "ENABLE_CPU_PINNING": False,
    }
    core = ov.Core()
    try:
        return core.compile_model(paged(core.read_model(folder.model_file)), "CPU", told)
    except RuntimeError as error:
        raise InvalidModel(f"{folder.model_file} cannot be loaded ({_reason(error)}); export the model again") from None


def _reason(error: Exception) -> str:
    """Its last line that says something: those before name places in OpenVINO's sources."""
    return next((line.strip() for line in reversed(str(error).splitlines()) if line.strip()), type(error).__name__)
