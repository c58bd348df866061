"""A transformers causal language model on CPU or CUDA: sequences of unequal length, chains or trees, in one pass.

float32 on a CPU, bfloat16 on CUDA. Chunks are padded to the longest of the pass; an additive mask says which cells a
row may see. Attention is "sdpa", the faster: "eager" would not keep bits over chunk sizes either, as matrix products
pick kernels by shape. Knows nothing about text or sampling.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
import transformers
from numpy.typing import NDArray
from safetensors import SafetensorError
from transformers import AutoModelForCausalLM

from outrider.engines.attention_mask import additive_mask, ancestors
from outrider.engines.base import Chunk, EngineSettings, Logits
from outrider.engines.machine import resolve_threads
from outrider.engines.sequences import Sequences
from outrider.engines.slot_cache import SlotCache
from outrider.errors import EngineError, InvalidModel, InvalidParameter
from outrider.manifest import ModelFolder

__all__ = ["TorchEngine"]

MAX_CHUNK = 512
BUCKET = 64  # cells attended to are rounded up to this, so that few shapes occur

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
        self._rows = torch.empty(0, dtype=torch.int64)
        self._hook = self._model.get_output_embeddings().register_forward_pre_hook(self._select_rows)
        # Makes the buffers, so that memory fails here; writes to padding's cell only.
        warm = self._forward([Chunk(0, [0])], [self.max_context])
        if warm.shape[-1] != self.n_vocab:
            raise InvalidModel(f"the model takes {self.n_vocab} ids but gives {warm.shape[-1]} logits; it is no target")

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
        num_rows = max(len(piece.token_ids) for piece in pieces)
        ids = np.zeros((len(pieces), num_rows), np.int64)
        for number, piece in enumerate(pieces):
            ids[number, : len(piece.token_ids)] = piece.token_ids
        lengths = np.array([len(piece.token_ids) for piece in pieces])
        wanted = np.array([piece.num_logits for piece in pieces])
        row = np.arange(num_rows)
        is_wanted = (row < lengths[:, None]) & (row >= (lengths - wanted)[:, None])

        start = torch.tensor(starts, device=self._device)[:, None]
        is_real = torch.from_numpy(row < lengths[:, None]).to(self._device)
        sees, depth = ancestors(pieces, num_rows, self._device)
        offsets = torch.arange(num_rows, device=self._device)
        cells = torch.where(is_real, start + offsets, self._cache.capacity).clamp(max=self._cache.capacity)
        num_cells = min(-(-(max(starts) + num_rows) // BUCKET) * BUCKET, self._cache.capacity + 1)
        slots = torch.tensor([piece.sequence for piece in pieces], device=self._device)
        self._rows = torch.from_numpy(np.flatnonzero(is_wanted)).to(self._device)
        try:
            with torch.inference_mode():
                self._cache.begin(slots, cells, num_cells)
                output = self._model(
                    input_ids=torch.from_numpy(ids).to(self._device),
                    attention_mask=additive_mask(sees, start, num_cells, self._model.dtype),
                    position_ids=torch.where(is_real, start + depth, 0),
                    cache_position=offsets,
                    past_key_values=self._cache,
                    use_cache=True,
                )
                logits: Logits = output.logits[0].float().cpu().numpy()
        except RuntimeError as error:  # out of memory among them
            reason = str(error).splitlines()[0]
            raise EngineError(f"torch failed ({reason}); release the sequence and ask for less") from error
        return logits

    def _select_rows(self, _: Any, inputs: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
        """Before the output layer: only the wanted rows, of whatever sequence, go through it."""
        hidden = inputs[0]
        return (hidden.reshape(1, -1, hidden.shape[-1])[:, self._rows],)

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
        with torch.inference_mode():
            self._cache.copy(source, target, length)
        self._sequences.resize(target, length)

    def release(self, sequence: int) -> None:
        self._sequences.release(sequence)
        self._unkept.pop(sequence, None)

    def close(self) -> None:
        self._sequences = Sequences(0)
        self._hook.remove()  # it holds this engine, and the model holds it: without the ring memory is free at once
        self._model = None
        self._cache = SlotCache(0, 0, 0)
        if self._device.type == "cuda":
            torch.cuda.empty_cache()


def _device(provider: str) -> torch.device:
    if provider not in ("cpu", "cuda"):
        raise InvalidParameter(f"torch runs on cpu or cuda, not on {provider!r}")
    if provider == "cuda" and not torch.cuda.is_available():
        raise InvalidParameter("torch finds no CUDA device here; use the provider cpu")
    return torch.device(provider)


def _load(folder: ModelFolder, device: torch.device) -> Any:
    try:
        model = AutoModelForCausalLM.from_pretrained(
            str(folder.model_file),
            local_files_only=True,
            use_safetensors=True,
            trust_remote_code=False,
            attn_implementation="sdpa",
            dtype=torch.bfloat16 if device.type == "cuda" else torch.float32,
        )
    except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise InvalidModel(f"{folder.path} is no model transformers can load ({reason}); pull it again") from None
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
