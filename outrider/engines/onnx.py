"""ONNX Runtime on decoder graphs with a KV cache, of both builders that the exporter uses.

Fused graphs (grouped-query attention in one node) read and write one buffer per layer in place, bound once: a pass
copies no cache and truncation is a number. General graphs return a longer cache each pass; it is handed back as it is,
and truncation copies what stays. Both take one sequence a pass. Knows token ids only.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from outrider.engines.base import Chunk, EngineSettings, Logits, check_chunk
from outrider.engines.machine import resolve_threads
from outrider.errors import EngineError, EngineFull, InvalidModel, InvalidParameter
from outrider.manifest import ModelFolder

__all__ = ["OnnxEngine"]

# ONNX Runtime's names.
PROVIDERS = {
    "auto": "CPUExecutionProvider",
    "cpu": "CPUExecutionProvider",
    "cuda": "CUDAExecutionProvider",
    "qnn": "QNNExecutionProvider",
    "coreml": "CoreMLExecutionProvider",
    "directml": "DmlExecutionProvider",
}
GRAPH_BYTES = 64 * 2**20  # a graph file with external weights is far smaller; only its operators are looked for
PASS_TOKENS = 128  # a longer chunk is run in passes of this size, so that prompt logits stay small


@dataclass(slots=True)
class _Sequence:
    length: int = 0
    binding: Any = None  # IOBinding with this sequence's cache bound
    cache: list[Any] = field(default_factory=list)  # OrtValues: past key and value of each layer
    logits: Logits = field(default_factory=lambda: np.empty((0, 0), np.float32))


class OnnxEngine:
    """See `outrider.engines.base.Engine`. Raises InvalidModel for a graph that is not such a decoder."""

    name = f"onnxruntime {ort.__version__}"
    max_batch = 1
    supports_tree = False
    can_truncate = True

    def __init__(self, folder: ModelFolder, settings: EngineSettings) -> None:
        manifest = folder.manifest
        self.n_vocab = manifest.n_vocab
        self.id_map = None if manifest.id_map is None else np.load(folder.path / manifest.id_map)
        self.max_context = min(settings.max_context, manifest.max_context)
        self.max_sequences = settings.max_sequences
        self.max_chunk = PASS_TOKENS
        self._session = _load(folder, settings)
        self._inputs = {value.name: value for value in self._session.get_inputs()}
        self._past = [name for name in self._inputs if name.startswith("past_key_values.")]
        self._present = [name.replace("past_key_values", "present") for name in self._past]
        outputs = {value.name: value for value in self._session.get_outputs()}
        if "input_ids" not in self._inputs or not self._past or not {"logits", *self._present} <= outputs.keys():
            raise InvalidModel(f"{folder.model_file} is not a decoder with a KV cache; export the model again")
        self._width = int(outputs["logits"].shape[-1])
        self._shares_cache = _is_fused(folder)
        self._ones = np.ones((1, self.max_context), dtype=np.int64)
        self._positions = np.arange(self.max_context, dtype=np.int64).reshape(1, -1)
        self._sequences: dict[int, _Sequence] = {}

    def allocate(self) -> int:
        free = next((n for n in range(self.max_sequences) if n not in self._sequences), None)
        if free is None:
            raise EngineFull(f"all {self.max_sequences} sequences are in use; release one or raise max_sequences")
        sequence = _Sequence(binding=self._session.io_binding())
        length = self.max_context if self._shares_cache else 0
        sequence.cache = [self._empty_cache(name, length) for name in self._past]
        if self._shares_cache:  # bound once: the graph reads and writes the same memory
            for past, present, value in zip(self._past, self._present, sequence.cache, strict=True):
                sequence.binding.bind_ortvalue_input(past, value)
                sequence.binding.bind_ortvalue_output(present, value)
        self._sequences[free] = sequence
        return free

    def _empty_cache(self, name: str, length: int) -> Any:
        _, num_heads, _, head_size = self._inputs[name].shape
        shape = (1, num_heads, length, head_size)
        return ort.OrtValue.ortvalue_from_numpy(np.zeros(shape, np.float32))

    def length(self, sequence: int) -> int:
        return self._sequences[sequence].length

    def extend(self, chunks: Sequence[Chunk]) -> list[Logits]:
        for chunk in chunks:
            length = self._sequences[chunk.sequence].length
            check_chunk(chunk, n_vocab=self.n_vocab, length=length, max_context=self.max_context)
        return [self._extend_one(self._sequences[chunk.sequence], chunk) for chunk in chunks]

    def _extend_one(self, sequence: _Sequence, chunk: Chunk) -> Logits:
        """Runs the chunk in passes; each pass's wanted logits land in one buffer, the last pass's without a copy."""
        token_ids = np.asarray(chunk.token_ids, dtype=np.int64).reshape(1, -1)
        total = token_ids.shape[1]
        wanted: list[Logits] = []
        for start in range(0, total, PASS_TOKENS):
            piece = token_ids[:, start : start + PASS_TOKENS]
            end = start + piece.shape[1]
            rows = self._run(sequence, np.ascontiguousarray(piece))
            num_wanted = min(piece.shape[1], chunk.num_logits - (total - end))
            if num_wanted > 0:
                last = rows[piece.shape[1] - num_wanted :]
                wanted.append(last if end == total else last.copy())
        if not wanted:
            return np.empty((0, self._width), np.float32)
        return wanted[0] if len(wanted) == 1 else np.concatenate(wanted)

    def _run(self, sequence: _Sequence, token_ids: NDArray[np.int64]) -> Logits:
        """One pass over token_ids of shape (1, k): logits of shape (k, width), in the sequence's own buffer."""
        num_tokens = token_ids.shape[1]
        end = sequence.length + num_tokens
        binding = sequence.binding
        binding.bind_cpu_input("input_ids", token_ids)
        binding.bind_cpu_input("attention_mask", self._ones[:, :end])
        if "position_ids" in self._inputs:
            binding.bind_cpu_input("position_ids", np.ascontiguousarray(self._positions[:, sequence.length : end]))
        if not self._shares_cache:
            for past, present, value in zip(self._past, self._present, sequence.cache, strict=True):
                binding.bind_ortvalue_input(past, value)
                binding.bind_output(present, "cpu")
        if len(sequence.logits) < num_tokens:
            sequence.logits = np.empty((num_tokens, self._width), np.float32)
        logits = sequence.logits[:num_tokens]
        shape = (1, num_tokens, self._width)
        binding.bind_output("logits", "cpu", 0, np.float32, shape, logits.ctypes.data)
        try:
            self._session.run_with_iobinding(binding)
        except Exception as error:  # noqa: BLE001  ONNX Runtime raises its own classes and bare RuntimeError alike
            raise EngineError(f"ONNX Runtime failed: {str(error).splitlines()[0]}") from None
        if not self._shares_cache:
            outputs = dict(zip([*self._present, "logits"], binding.get_outputs(), strict=True))
            sequence.cache = [outputs[name] for name in self._present]
        sequence.length = end
        return logits

    def truncate(self, sequence: int, length: int) -> None:
        held = self._sequences[sequence]
        if length >= held.length:
            return
        held.length = length
        if not self._shares_cache:
            held.cache = [
                ort.OrtValue.ortvalue_from_numpy(np.ascontiguousarray(value.numpy()[:, :, :length]))
                for value in held.cache
            ]

    def keep(self, sequence: int, start: int, rows: Sequence[int]) -> None:
        raise EngineError("this engine runs no trees; send a chain")

    def copy(self, source: int, target: int, length: int) -> None:
        held, empty = self._sequences[source], self._sequences[target]
        if self._shares_cache:
            for mine, theirs in zip(empty.cache, held.cache, strict=True):
                mine.numpy()[:, :, :length] = theirs.numpy()[:, :, :length]
        else:
            empty.cache = [
                ort.OrtValue.ortvalue_from_numpy(np.ascontiguousarray(value.numpy()[:, :, :length]))
                for value in held.cache
            ]
        empty.length = length

    def release(self, sequence: int) -> None:
        self._sequences.pop(sequence, None)

    def close(self) -> None:
        self._sequences.clear()
        self._session = None


def _load(folder: ModelFolder, settings: EngineSettings) -> Any:
    provider = PROVIDERS[settings.provider]
    if provider not in ort.get_available_providers():
        known = ", ".join(name for name, full in PROVIDERS.items() if full in ort.get_available_providers())
        raise InvalidParameter(f"execution provider {settings.provider!r} is not in this build; it has: {known}")
    options = ort.SessionOptions()
    options.intra_op_num_threads = resolve_threads(settings.num_threads)
    options.inter_op_num_threads = 1
    # Idle threads would go on spinning, and slow the other model of a pair that takes turns with this one by a third.
    options.add_session_config_entry("session.force_spinning_stop", "1")
    options.log_severity_level = 4
    try:
        return ort.InferenceSession(str(folder.model_file), options, providers=[provider])
    except Exception as error:  # noqa: BLE001  as above
        raise InvalidModel(
            f"{folder.model_file} cannot be loaded ({str(error).splitlines()[0]}); export the model again"
        ) from None


def _is_fused(folder: ModelFolder) -> bool:
    """Whether attention is the fused operator, which can keep past and present in one buffer."""
    with folder.model_file.open("rb") as file:
        return b"GroupQueryAttention" in file.read(GRAPH_BYTES)
