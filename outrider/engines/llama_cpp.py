"""llama.cpp through llama-cpp-python's low-level interface: one GGUF model, many sequences in one native pass.

Each sequence has its own part of the KV cache (`kv_unified` off), so its attention never reads another's cells. Chunks
of equal length share a native pass; unequal ones do not, for llama.cpp would cut the longer chunks into pieces of other
sizes, and sizes decide bits. Knows nothing about text, sampling or padding to numerics classes.
"""

import ctypes
import functools
import weakref
from collections import deque
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import llama_cpp
import numpy as np
from llama_cpp import llama_cpp as native
from numpy.typing import NDArray

from outrider.engines.base import Chunk, EngineSettings, Logits
from outrider.engines.llama_batch import MAX_CHUNK, Batch, Piece, passes_of
from outrider.engines.machine import resolve_threads
from outrider.engines.sequences import Sequences
from outrider.errors import ContextExceeded, EngineError, InvalidModel, InvalidParameter
from outrider.manifest import ModelFolder

__all__ = ["LlamaCppEngine"]

CELLS = 256  # llama.cpp rounds a sequence's cells up to this
LOG_ERROR = 4  # GGML_LOG_LEVEL_ERROR
# Off: its CPU kernel changes at 64 rows, so a cache filled in long chunks would have other bits than one filled in
# short ones; without it all sizes from 2 (Q4_1) or 8 (Q4_K_M) up agree, and short chunks are faster too.
FLASH_ATTENTION = native.LLAMA_FLASH_ATTN_TYPE_DISABLED

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


class LlamaCppEngine:
    """See `outrider.engines.base.Engine`. Raises InvalidModel for a file llama.cpp cannot load."""

    supports_tree = False
    max_chunk = MAX_CHUNK

    def __init__(self, folder: ModelFolder, settings: EngineSettings) -> None:
        if settings.provider not in ("auto", "cpu"):
            raise InvalidParameter(
                f"llama.cpp knows no provider {settings.provider!r}; say how many layers go to the GPU"
            )
        manifest = folder.manifest
        self.name = f"llama.cpp {llama_cpp.__version__}"
        self.num_threads = resolve_threads(settings.num_threads)
        self.max_sequences = self.max_batch = settings.max_sequences
        self.id_map = None if manifest.id_map is None else _load(folder.path / manifest.id_map, np.int32, 1)
        self._embeddings = None
        if manifest.embeddings is not None:
            self._embeddings = _load(folder.path / manifest.embeddings, np.float16, 2)

        _start_backend()
        model = _load_model(folder.model_file, settings)
        try:
            vocabulary = native.llama_model_get_vocab(model)
            self._width: int = native.llama_vocab_n_tokens(vocabulary)
            self.n_vocab = self._width if self.id_map is None else manifest.n_vocab
            self.max_context = min(settings.max_context, native.llama_model_n_ctx_train(model))
            self.can_truncate = not (native.llama_model_is_recurrent(model) or native.llama_model_is_hybrid(model))
            num_embedding: int = native.llama_model_n_embd_inp(model)
            self._check_trimmed(num_embedding)
            self._context = _open_context(model, self.max_context, settings)
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
        passes = list(passes_of(chunks))
        before = {chunk.sequence: self.length(chunk.sequence) for chunk in chunks}
        parts: list[list[Logits]] = [[] for _ in chunks]
        try:
            for pieces in passes:
                self._decode(pieces)
                for number, rows in self._logits(pieces):
                    # A later pass overwrites the native buffer.
                    parts[number].append(rows if len(passes) == 1 else rows.copy())
        except (ContextExceeded, EngineError):
            for sequence, length in before.items():
                self._forget(sequence, length)
            raise
        empty = np.empty((0, self._width), np.float32)
        return [np.concatenate(part) if len(part) > 1 else (part or [empty])[0] for part in parts]

    def _decode(self, pieces: Sequence[Piece]) -> None:
        self._batch.fill(pieces, [self._sequences.length(piece.sequence) for piece in pieces], self._embeddings)
        _native_errors.clear()
        status: int = native.llama_decode(self._context, self._batch.struct)
        if status == 0:
            for piece in pieces:
                self._sequences.resize(piece.sequence, self.length(piece.sequence) + len(piece.token_ids))
            return
        if status == 1:
            raise ContextExceeded(f"llama.cpp found no room in its cache for {len(pieces)} chunks; shorten the prompt")
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
                yield piece.number, np.ctypeslib.as_array(first, (piece.num_logits, self._width))
            else:
                rows = [native.llama_get_logits_ith(self._context, row - n) for n in range(piece.num_logits, 0, -1)]
                yield piece.number, np.stack([np.ctypeslib.as_array(pointer, (self._width,)) for pointer in rows])

    def truncate(self, sequence: int, length: int) -> None:
        if length < self.length(sequence):
            self._forget(sequence, length)

    def _forget(self, sequence: int, length: int) -> None:
        if not native.llama_memory_seq_rm(self._memory, sequence, length, -1):
            raise EngineError("this model cannot forget part of a sequence; release it and start again")
        self._sequences.resize(sequence, length)

    def keep(self, sequence: int, start: int, rows: Sequence[int]) -> None:
        raise EngineError("llama.cpp takes chains only: there is no tree to keep a path of")

    def copy(self, source: int, target: int, length: int) -> None:
        # Whole, then cut: with a cache part for each sequence llama.cpp copies no ranges.
        native.llama_memory_seq_cp(self._memory, source, target, -1, -1)
        self._sequences.resize(target, self.length(source))
        self.truncate(target, length)

    def release(self, sequence: int) -> None:
        if self._sequences.release(sequence):
            native.llama_memory_seq_rm(self._memory, sequence, -1, -1)

    def close(self) -> None:
        self._sequences = Sequences(0)  # nothing is held, so nothing reaches freed memory
        self._embeddings = None
        self._free()


def _load(path: Path, kind: type[Any], num_dimensions: int) -> NDArray[Any]:
    """The array in an .npy file, mapped, not read. Raises InvalidModel."""
    try:
        array: NDArray[Any] = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError) as error:
        raise InvalidModel(f"{path} cannot be read ({error}); export the model again") from None
    if array.dtype != kind or array.ndim != num_dimensions:
        raise InvalidModel(f"{path} holds {array.ndim}-dimensional {array.dtype}; export the model again")
    return array


def _load_model(path: Path, settings: EngineSettings) -> int:
    num_gpu_layers = settings.num_gpu_layers
    if not settings.has_exact_kernels and b"AMX_INT8 = 1" in native.llama_print_system_info():
        raise InvalidParameter("this build of llama.cpp has AMX kernels, which may crash; compile it without them")
    if num_gpu_layers and not native.llama_supports_gpu_offload():
        raise InvalidParameter("this build of llama.cpp has no GPU; use num_gpu_layers=0 or install one that has")
    if not path.is_file():
        raise InvalidModel(f"{path} is missing; pull or export the model again")
    parameters = native.llama_model_default_params()
    parameters.n_gpu_layers = num_gpu_layers
    # No weights rearranged for special kernels: those treat rows in groups, so that a row's bits depend on its place in
    # the chunk, and the one for AMX processors crashes where some compilers built it.
    parameters.use_extra_bufts = not settings.has_exact_kernels
    _native_errors.clear()
    model: int | None = native.llama_model_load_from_file(str(path).encode(), parameters)
    if not model:
        raise InvalidModel(f"llama.cpp cannot load {path.resolve()} ({_why()}); pull or export the model again")
    return model


def _open_context(model: int, max_context: int, settings: EngineSettings) -> int:
    max_sequences, num_threads = settings.max_sequences, resolve_threads(settings.num_threads)
    parameters = native.llama_context_default_params()
    parameters.n_ctx = -(-max_context // CELLS) * CELLS * max_sequences
    parameters.n_batch = parameters.n_ubatch = MAX_CHUNK
    parameters.n_outputs_max = parameters.n_outputs_max_per_seq = MAX_CHUNK
    parameters.n_seq_max = max_sequences
    parameters.n_threads = parameters.n_threads_batch = num_threads
    parameters.kv_unified = False
    parameters.swa_full = True  # sliding-window layers keep all cells: otherwise truncation would lose some
    if settings.has_exact_kernels:
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
