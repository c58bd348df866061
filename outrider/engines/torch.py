"""A transformers causal language model on CPU or CUDA: sequences of unequal length, chains or trees, in one pass.

float32 on a CPU, bfloat16 on CUDA. All tokens of a call stand side by side in one packed pass (`packing.py`), whose
sizes are rounded up so that few shapes occur; on CUDA each of them becomes a graph (`cuda_graphs.py`). Knows nothing
about text or sampling.
"""

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
import transformers
from numpy.typing import NDArray
from safetensors import SafetensorError
from transformers import AutoModelForCausalLM

from outrider.engines.base import Chunk, EngineSettings, Logits
from outrider.engines.cuda_graphs import CudaGraphs
from outrider.engines.machine import resolve_threads
from outrider.engines.packed_attention import NAME as PACKED_ATTENTION
from outrider.engines.packed_attention import additive_mask
from outrider.engines.packing import FIELDS, Shape, pack
from outrider.engines.sequences import Sequences
from outrider.engines.slot_cache import SlotCache
from outrider.errors import EngineError, InvalidModel, InvalidParameter
from outrider.manifest import ModelFolder

__all__ = ["TorchEngine"]

MAX_CHUNK = 512
CHANGING_ROPES = ("dynamic", "longrope")  # look at positions on the way, which no recorded pass can

transformers.utils.logging.disable_progress_bar()


class TorchEngine:
    """See `outrider.engines.base.Engine`. Loads safetensors only and never runs a model's own code."""

    supports_tree = True
    can_truncate = True
    max_chunk = MAX_CHUNK
    id_map: NDArray[np.int32] | None = None

    def __init__(self, folder: ModelFolder, settings: EngineSettings) -> None:
        if settings.max_sequences < 1 or settings.max_context < 1:
            raise InvalidParameter("a torch engine needs at least one sequence of one position")
        self._device = _device(settings.provider)
        self.num_threads = resolve_threads(settings.num_threads)
        torch.set_num_threads(self.num_threads)  # torch has one pool a process: the engine opened last decides
        self.name = f"torch {torch.__version__}"
        self._model = _load(folder, self._device)
        config = self._model.config.get_text_config()
        self.n_vocab = int(self._model.get_input_embeddings().num_embeddings)
        self.max_context = min(settings.max_context, *_limits(config))
        self.max_sequences = self.max_batch = settings.max_sequences
        self._sequences = Sequences(self.max_sequences)
        self._unkept: dict[int, int] = {}  # sequence -> where its tree began, until a path of it is kept
        self._cache = SlotCache(config.num_hidden_layers, self.max_sequences, self.max_context)
        self._wanted = torch.empty(0, dtype=torch.int64)
        self._graphs: CudaGraphs | None = None
        self._hook = self._model.get_output_embeddings().register_forward_pre_hook(self._select_rows)
        # Makes the buffers, so that memory fails here; writes to padding's cell only.
        warm = self._forward([Chunk(0, [0])], [self.max_context])
        if warm.shape[-1] != self.n_vocab:
            raise InvalidModel(f"the model takes {self.n_vocab} ids but gives {warm.shape[-1]} logits; it is no target")
        if self._device.type == "cuda" and _rope_type(config) not in CHANGING_ROPES:
            with _typed():
                self._graphs = CudaGraphs(self._run, self.n_vocab, self._device)

    def allocate(self) -> int:
        return self._sequences.allocate()

    def length(self, sequence: int) -> int:
        return self._sequences.length(sequence)

    def extend(self, chunks: Sequence[Chunk]) -> list[Logits]:
        self._sequences.check(chunks, n_vocab=self.n_vocab, max_context=self.max_context, supports_tree=True)
        for chunk in chunks:
            if chunk.sequence in self._unkept:
                raise EngineError(f"sequence {chunk.sequence} holds a whole tree; keep one path of it first")
            if chunk.parents is not None and len(chunk.token_ids) > MAX_CHUNK:
                raise EngineError(f"a tree of {len(chunk.token_ids)} tokens is too large; {MAX_CHUNK} fit a pass")
        parts: list[list[Logits]] = [[] for _ in chunks]
        for indices, pieces in _passes(chunks):
            starts = [self.length(piece.sequence) for piece in pieces]
            logits = self._forward(pieces, starts)
            row = 0
            for index, piece, start in zip(indices, pieces, starts, strict=True):
                self._sequences.resize(piece.sequence, start + len(piece.token_ids))
                if _is_tree(piece):
                    self._unkept[piece.sequence] = start
                parts[index].append(logits[row : row + piece.num_logits])
                row += piece.num_logits
        empty = np.empty((0, self.n_vocab), np.float32)
        return [np.concatenate(part) if len(part) > 1 else (part or [empty])[0] for part in parts]

    def _forward(self, pieces: Sequence[Chunk], starts: Sequence[int]) -> Logits:
        """One pass; the logits of all wanted rows, [sum of num_logits, n_vocab]."""
        packed = pack(pieces, starts, self._cache.capacity)
        with _typed(), torch.inference_mode():
            if self._graphs is not None:
                return self._graphs(packed)
            numbers, sees = (torch.from_numpy(array).to(self._device) for array in (packed.numbers, packed.sees))
            logits: Logits = self._run(packed.shape, numbers, sees)[: packed.num_wanted].cpu().numpy()
            return logits

    def _run(self, shape: Shape, numbers: torch.Tensor, sees: torch.Tensor) -> torch.Tensor:
        """A packed pass on the device, float32 [num_wanted, n_vocab]. Nothing here may look at the numbers' values."""
        part = dict(zip(FIELDS, numbers.split(shape.sizes), strict=True))
        self._wanted = part["wanted"]
        self._cache.begin(part["slots"], part["cells"], part["lane_slots"], shape.num_cells)
        output = self._model(
            input_ids=part["ids"][None],
            attention_mask=additive_mask(sees, part["lane_starts"], shape.num_cells, self._model.dtype),
            position_ids=part["positions"][None],
            cache_position=part["positions"],
            past_key_values=self._cache,
            use_cache=True,
            lane_tokens=part["lane_tokens"],
            places=part["places"],
        )
        return output.logits[0].float()

    def _select_rows(self, _: Any, inputs: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
        """Before the output layer: only the wanted tokens go through it."""
        return (inputs[0].index_select(1, self._wanted),)

    def truncate(self, sequence: int, length: int) -> None:
        if length >= self.length(sequence):
            return
        if length <= self._unkept.get(sequence, length):
            self._unkept.pop(sequence, None)
        self._sequences.resize(sequence, length)

    def keep(self, sequence: int, start: int, rows: Sequence[int]) -> None:
        num_rows = self.length(sequence) - start
        if any(not 0 <= row < num_rows for row in rows) or list(rows) != sorted(set(rows)):
            raise EngineError(f"rows {list(rows)} are no path of the {num_rows} rows held from position {start}")
        with torch.inference_mode():
            self._cache.move(sequence, torch.tensor(list(rows), dtype=torch.int64, device=self._device) + start, start)
        self._unkept.pop(sequence, None)
        self._sequences.resize(sequence, start + len(rows))

    def copy(self, source: int, target: int, length: int) -> None:
        if length > self._unkept.get(source, length):
            raise EngineError(f"sequence {source} holds a whole tree; keep one path of it first")
        with torch.inference_mode():
            self._cache.copy(source, target, length)
        self._sequences.resize(target, length)

    def release(self, sequence: int) -> None:
        self._sequences.release(sequence)
        self._unkept.pop(sequence, None)

    def close(self) -> None:
        self._sequences = Sequences(0)
        self._hook.remove()  # it holds this engine, and the model holds it: without the ring memory is free at once
        self._model = self._graphs = None
        self._cache = SlotCache(0, 0, 0)
        if self._device.type == "cuda":
            torch.cuda.empty_cache()


@contextlib.contextmanager
def _typed() -> Iterator[None]:
    """What torch raises, out of memory among it, as an EngineError."""
    try:
        yield
    except RuntimeError as error:
        reason = str(error).splitlines()[0]
        raise EngineError(f"torch failed ({reason}); release the sequence and ask for less") from error


def _device(provider: str) -> torch.device:
    if provider not in ("auto", "cpu", "cuda"):
        raise InvalidParameter(f"torch runs on cpu or cuda, not on {provider!r}")
    if provider == "cuda" and not torch.cuda.is_available():
        raise InvalidParameter("torch finds no CUDA device here; use the provider cpu")
    return torch.device("cuda" if provider == "cuda" else "cpu")


def _load(folder: ModelFolder, device: torch.device) -> Any:
    try:
        model = AutoModelForCausalLM.from_pretrained(
            str(folder.model_file),
            local_files_only=True,
            use_safetensors=True,
            trust_remote_code=False,
            attn_implementation=PACKED_ATTENTION,
            dtype=torch.bfloat16 if device.type == "cuda" else torch.float32,
        )
    except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise InvalidModel(f"{folder.path} is no model transformers can load ({reason}); pull it again") from None
    # Where attention has more to it than queries, keys and values, transformers says that it is not for "sdpa" either.
    if not (model._supports_attention_backend and model._supports_sdpa):
        raise InvalidModel(f"{folder.path} has an attention of its own; choose a model that runs with sdpa")
    if getattr(model, "_is_stateful", False):
        raise InvalidModel(f"{folder.path} keeps a running state instead of a KV cache; it cannot take drafts back")
    return model.to(device).eval()


def _limits(config: Any) -> Iterator[int]:
    """Positions the model allows. Where layers slide a window, within it they see all: so never beyond it."""
    yield int(config.max_position_embeddings)
    layer_types = getattr(config, "layer_types", None)
    window = getattr(config, "sliding_window", None)
    slides = "sliding_attention" in layer_types if layer_types else getattr(config, "use_sliding_window", True)
    if window and slides:
        yield int(window)


def _rope_type(config: Any) -> str:
    scaling = getattr(config, "rope_scaling", None) or {}
    return str(scaling.get("rope_type", scaling.get("type", "default")))


def _is_tree(chunk: Chunk) -> bool:
    return chunk.parents is not None and list(chunk.parents) != list(range(-1, len(chunk.token_ids) - 1))


def _passes(chunks: Sequence[Chunk]) -> Iterator[tuple[list[int], list[Chunk]]]:
    """All chunks side by side, MAX_CHUNK tokens of each a pass; with each piece the index of its chunk."""
    longest = max((len(chunk.token_ids) for chunk in chunks), default=0)
    for first in range(0, longest, MAX_CHUNK):
        indices, pieces = [], []
        for index, chunk in enumerate(chunks):
            token_ids = chunk.token_ids[first : first + MAX_CHUNK]
            if token_ids:
                num_after = len(chunk.token_ids) - first - len(token_ids)
                num_logits = min(max(0, chunk.num_logits - num_after), len(token_ids))
                parents = chunk.parents if _is_tree(chunk) else None
                indices.append(index)
                pieces.append(Chunk(chunk.sequence, token_ids, num_logits, parents))
        yield indices, pieces
