"""A GGUF file without the lists of its tokenizer, whose texts the reader of weights would take minutes over.

All that stays is copied byte by byte. Knows nothing of weights, and not what the tokenizer is.
"""

import shutil
import struct
from pathlib import Path

from outrider.gguf_header import read_header

__all__ = ["drop_token_lists"]

UINT32 = 4  # the number of that type in a file


def drop_token_lists(source: Path, destination: Path) -> None:
    """Write `destination`: `source` with the number of its tokens in place of each of them. Raises InvalidModel."""
    header = read_header(source)
    metadata = header.metadata
    lists = {key for key, value in metadata.items() if key.startswith("tokenizer.") and isinstance(value, list)}
    size_key = f"{metadata.get('general.architecture')}.vocab_size"
    num_tokens = len(metadata.get("tokenizer.ggml.tokens", ()))
    added = _entry(size_key, num_tokens) if num_tokens and size_key not in metadata else b""
    with source.open("rb") as file, destination.open("wb") as light:

        def copy(span: tuple[int, int]) -> None:
            file.seek(span[0])
            light.write(file.read(span[1] - span[0]))

        copy((0, 16))  # what it is, its version, how many tensors
        light.write(struct.pack("<Q", len(metadata) - len(lists) + bool(added)))
        for key, span in header.entries.items():
            if key not in lists:
                copy(span)
        light.write(added)
        copy(header.infos)
        light.write(bytes(-light.tell() % metadata.get("general.alignment", 32)))
        file.seek(header.data)
        shutil.copyfileobj(file, light, 1 << 20)


def _entry(key: str, value: int) -> bytes:
    return struct.pack("<Q", len(key.encode())) + key.encode() + struct.pack("<II", UINT32, value)
