"""Cuts a GGUF model's token tables to some rows, byte for byte, without touching a number.

The result calls itself a model without a tokenizer: its ids are column numbers, its input comes as embeddings, which
lie beside it for the whole vocabulary. Knows nothing about which ids are worth keeping.
"""

from pathlib import Path

import numpy as np
from gguf import GGUFReader, GGUFValueType, GGUFWriter, ReaderTensor
from gguf.quants import dequantize
from numpy.typing import NDArray

from outrider.errors import InvalidModel, UsageError

__all__ = ["cut_gguf"]

# Architectures whose graph takes an embedding as it stands. Others scale it first, but only when it comes as a token.
PLAIN_INPUT = frozenset({"llama", "qwen2", "qwen3"})
INPUT_TABLE = "token_embd.weight"
TOKEN_TABLES = frozenset({INPUT_TABLE, "output.weight", "output.bias"})
CHUNK_ROWS = 8192


def cut_gguf(source: Path, destination: Path, embeddings: Path, kept_ids: NDArray[np.int32]) -> None:
    """Write `destination` with rows `kept_ids` of each token table, and the full input table as float16 .npy.

    Raises UsageError for an architecture that scales its input embeddings, InvalidModel for a file without a table.
    """
    reader = GGUFReader(source)
    field = reader.get_field("general.architecture")
    architecture = str(field.contents()) if field is not None else ""
    if architecture not in PLAIN_INPUT:
        known = ", ".join(sorted(PLAIN_INPUT))
        raise UsageError(f"a GGUF vocabulary can be trimmed for {known}, not for {architecture}; use --format onnx")
    table = next((tensor for tensor in reader.tensors if tensor.name == INPUT_TABLE), None)
    if table is None:
        raise InvalidModel(f"{source.name} holds no {INPUT_TABLE}; it is not a language model")

    writer = GGUFWriter(destination, architecture)
    for name, entry in reader.fields.items():
        if name.startswith(("GGUF.", "tokenizer.")) or name in {"general.architecture", f"{architecture}.vocab_size"}:
            continue
        sub_type = entry.types[-1] if entry.types[0] == GGUFValueType.ARRAY else None
        writer.add_key_value(name, entry.contents(), entry.types[0], sub_type=sub_type)
    writer.add_tokenizer_model("none")
    writer.add_vocab_size(len(kept_ids))

    tensors = [(tensor, np.asarray(tensor.data)) for tensor in reader.tensors]
    cut = [(tensor, data[kept_ids] if tensor.name in TOKEN_TABLES else data) for tensor, data in tensors]
    for tensor, data in cut:
        writer.add_tensor_info(tensor.name, data.shape, data.dtype, data.nbytes, tensor.tensor_type)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    for _, data in cut:
        writer.write_tensor_data(data)
    writer.close()
    write_embeddings(table, embeddings)


def write_embeddings(table: ReaderTensor, file: Path) -> None:
    """The table's numbers as float16, shape (n_vocab, n_embd), in an .npy that can be mapped."""
    n_embd, n_vocab = (int(size) for size in table.shape)
    rows = np.lib.format.open_memmap(file, mode="w+", dtype=np.float16, shape=(n_vocab, n_embd))
    for start in range(0, n_vocab, CHUNK_ROWS):
        rows[start : start + CHUNK_ROWS] = dequantize(table.data[start : start + CHUNK_ROWS], table.tensor_type)
    rows.flush()
