"""llama.cpp through llama-cpp-python's low-level interface: one GGUF model, many sequences in one native pass.

Each sequence has its own part of the KV cache (`kv_unified` off), so its attention never reads another's cells. Chunks of
equal length share a native pass; unequal ones do not, for llama.cpp would cut the longer chunks into pieces of other sizes
and sizes decide bits. Knows nothing about text, sampling or padding to numerics classes.
"""

import ctypes
import functools
import weakref
from collections import deque
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import llama_cpp
import numpy as np
from llama_cpp import llama_cpp as native
from numpy.typing import NDArray

from outrider.engines.base import Chunk, EngineSettings, Logits
from outrider.engines.machine import resolve_threads
from outrider.engines.sequences import Sequences
from outrider.errors import ContextExceeded, EngineError, InvalidModel, InvalidParameter
from outrider.manifest import ModelFolder

__all__ = ["LlamaCppEngine"]

MAX_CHUNK = 512  # tokens of one native pass: batch, physical batch and rows of logits
CELLS = 256  # llama.cpp rounds a sequence's cells up to this
LOG_ERROR = 4  # GGML_LOG_LEVEL_ERROR
FLASH_ATTENTION = native.LLAMA_FLASH_ATTN_TYPE_ENABLED

_native_errors: deque[str] = deque(maxlen=3)


@native.llama_log_callback  # type: ignore[untyped-decorator]
def _keep_errors(level: int, text: bytes, _: Any) -> None:
    """Native code would print to the terminal; its errors go into the sentence of ours instead."""
    if level == LOG_ERROR:
        _native_errors.append(text.decode("utf-8", "replace").strip())


@functools.cache
def _start_backend() -> None:
    native.llama_log_set(_keep_errors, ctypes.c_void_p(0))
    native.llama_backend_init()


def _why() -> str:
    """What llama.cpp said about its last failure, for the end of a sentence."""
    said = "; ".join(_native_errors) or "it gave no reason"
    _native_errors.clear()
    return said


class Piece(NamedTuple):
    """A run of a chunk's tokens that goes through one native pass; the last `num_logits` rows give logits."""

    index: int  # of the chunk in the call
    sequence: int
    token_ids: Sequence[int]
    num_logits: int


class LlamaCppEngine:
    """See `outrider.engines.base.Engine`. Raises InvalidModel for a file llama.cpp cannot load."""

    supports_tree = False
    max_chunk = MAX_CHUNK

    def __init__(self, folder: ModelFolder, settings: EngineSettings) -> None:
        manifest = folder.manifest
        self.name = f"llama.cpp {llama_cpp.__version__}"
        self.num_threads = resolve_threads(settings.num_threads)
        self.max_sequences = self.max_batch = settings.max_sequences
        self.id_map = None if manifest.id_map is None else _load(folder.path / manifest.id_map, np.int32, 1)
        self._embeddings = None
        if manifest.embeddings is not None:
            self._embeddings = _load(folder.path / manifest.embeddings, np.float16, 2)

        _start_backend()
        model = _load_model(folder.model_file, settings.num_gpu_layers)
        try:
            vocabulary = native.llama_model_get_vocab(model)
            self._width: int = native.llama_vocab_n_tokens(vocabulary)
            self.n_vocab = self._width if self.id_map is None else manifest.n_vocab
            self.max_context = min(settings.max_context, native.llama_model_n_ctx_train(model))
            self.can_truncate = not (native.llama_model_is_recurrent(model) or native.llama_model_is_hybrid(model))
            num_embedding: int = native.llama_model_n_embd_inp(model)
            self._check_trimmed(num_embedding)
            self._context = _open_context(model, self.max_context, self.max_sequences, self.num_threads)
        except BaseException:
            native.llama_model_free(model)
            raise
        self._memory = native.llama_get_memory(self._context)
        self._sequences = Sequences(self.max_sequences)
        self._batch = Batch(num_embedding if self._embeddings is not None else 0)
        self._free = weakref.finalize(self, _free, self._context, model)

    def _check_trimmed(self, num_embedding: int) -> None:
        if self.id_map is not None and len(self.id_map) != self._width:
            raise InvalidModel(f"the id map has {len(self.id_map)} rows, the model {self._width}; export it again")
        if (self.id_map is None) != (self._embeddings is None):
            raise InvalidModel("a trimmed GGUF needs both an id map and embeddings; export it again")
        if self._embeddings is not None and self._embeddings.shape != (self.n_vocab, num_embedding):
            raise InvalidModel(
                f"the embeddings are {self._embeddings.shape}, the model needs {(self.n_vocab, num_embedding)}; "
                "export it again"
            )

    def allocate(self) -> int:
        return self._sequences.allocate()

    def length(self, sequence: int) -> int:
        return self._sequences.length(sequence)

    def extend(self, chunks: Sequence[Chunk]) -> list[Logits]:
        self._sequences.check(chunks, n_vocab=self.n_vocab, max_context=self.max_context, supports_tree=False)
        passes = list(_passes(chunks))
        results = [np.empty((0, self._width), np.float32)] * len(chunks)
        done: dict[int, list[Logits]] = {}
        for pieces in passes:
            self._decode(pieces, chunks)
            for index, rows in self._logits(pieces):
                # A later pass overwrites the native buffer.
                done.setdefault(index, []).append(rows if len(passes) == 1 else rows.copy())
        for index, parts in done.items():
            results[index] = parts[0] if len(parts) == 1 else np.concatenate(parts)
        return results

    def _decode(self, pieces: Sequence[Piece], chunks: Sequence[Chunk]) -> None:
        self._batch.fill(pieces, [self._sequences.length(piece.sequence) for piece in pieces], self._embeddings)
        _native_errors.clear()
        status: int = native.llama_decode(self._context, self._batch.struct)
        if status == 0:
            for piece in pieces:
                self._sequences.resize(piece.sequence, self.length(piece.sequence) + len(piece.token_ids))
            return
        if status == 1:
            raise ContextExceeded(f"llama.cpp found no room in its cache for {len(chunks)} chunks; shorten the prompt")
        raise EngineError(f"llama.cpp failed with status {status} ({_why()}); release the sequence and start it again")

    def _logits(self, pieces: Sequence[Piece]) -> Iterator[tuple[int, Logits]]:
        """Views of the native buffer, one for each piece that asked for rows."""
        row = 0
        for piece in pieces:
            row += len(piece.token_ids)
            if piece.num_logits == 0:
                continue
            first = native.llama_get_logits_ith(self._context, row - piece.num_logits)
            last = native.llama_get_logits_ith(self._context, row - 1)
            if not first or not last:
                raise EngineError(f"llama.cpp gave no logits ({_why()}); release the sequence and start it again")
            apart = ctypes.addressof(last.contents) - ctypes.addressof(first.contents)
            if apart == (piece.num_logits - 1) * self._width * ctypes.sizeof(ctypes.c_float):
                yield piece.index, np.ctypeslib.as_array(first, (piece.num_logits, self._width))
            else:
                rows = [native.llama_get_logits_ith(self._context, row - n) for n in range(piece.num_logits, 0, -1)]
                yield piece.index, np.stack([np.ctypeslib.as_array(pointer, (self._width,)) for pointer in rows])

    def truncate(self, sequence: int, length: int) -> None:
        if length >= self.length(sequence):
            return
        if not native.llama_memory_seq_rm(self._memory, sequence, length, -1):
            raise EngineError(f"this model cannot forget a part of a sequence (to {length}); release it and start again")
        self._sequences.resize(sequence, length)

    def keep(self, sequence: int, start: int, rows: Sequence[int]) -> None:
        raise EngineError("llama.cpp takes chains only: there is no tree to keep a path of")

    def release(self, sequence: int) -> None:
        if self._sequences.release(sequence):
            native.llama_memory_seq_rm(self._memory, sequence, -1, -1)

    def close(self) -> None:
        self._sequences = Sequences(0)  # nothing is held, so nothing reaches freed memory
        self._embeddings = None
        self._free()


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


def _passes(chunks: Sequence[Chunk]) -> Iterator[list[Piece]]:
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


def _load(path: Path, kind: type[Any], num_dimensions: int) -> NDArray[Any]:
    """The array in an .npy file, mapped, not read. Raises InvalidModel."""
    try:
        array: NDArray[Any] = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError) as error:
        raise InvalidModel(f"{path} cannot be read ({error}); export the model again") from None
    if array.dtype != kind or array.ndim != num_dimensions:
        raise InvalidModel(f"{path} holds {array.ndim}-dimensional {array.dtype}; export the model again")
    return array


def _load_model(path: Path, num_gpu_layers: int) -> int:
    if num_gpu_layers and not native.llama_supports_gpu_offload():
        raise InvalidParameter("this build of llama.cpp has no GPU; use num_gpu_layers=0 or install one that has")
    if not path.is_file():
        raise InvalidModel(f"{path} is missing; pull or export the model again")
    parameters = native.llama_model_default_params()
    parameters.n_gpu_layers = num_gpu_layers
    parameters.use_extra_bufts = False
    _native_errors.clear()
    model: int | None = native.llama_model_load_from_file(str(path).encode(), parameters)
    if not model:
        raise InvalidModel(f"llama.cpp cannot load {path} ({_why()}); pull or export the model again")
    return model


def _open_context(model: int, max_context: int, max_sequences: int, num_threads: int) -> int:
    if max_sequences < 1 or max_context < 1:
        raise InvalidParameter(f"{max_sequences} sequences of {max_context} positions make no sense; give 1 or more")
    parameters = native.llama_context_default_params()
    parameters.n_ctx = -(-max_context // CELLS) * CELLS * max_sequences
    parameters.n_batch = parameters.n_ubatch = MAX_CHUNK
    parameters.n_outputs_max = parameters.n_outputs_max_per_seq = MAX_CHUNK
    parameters.n_seq_max = max_sequences
    parameters.n_threads = parameters.n_threads_batch = num_threads
    parameters.kv_unified = False
    parameters.swa_full = True  # sliding-window layers keep all cells: otherwise truncation would lose some
    parameters.flash_attn_type = FLASH_ATTENTION
    _native_errors.clear()
    context: int | None = native.llama_init_from_model(model, parameters)
    if not context:
        raise EngineError(
            f"llama.cpp cannot hold {max_sequences} sequences of {max_context} positions ({_why()}); ask for fewer"
        )
    return context


def _free(context: int, model: int) -> None:
    native.llama_free(context)
    native.llama_model_free(model)
