"""Writes small GGUF files: sound ones with a toy vocabulary, and broken ones byte by byte. For tests only."""

import struct
from pathlib import Path
from typing import Any

from outrider.tokens import BYTE_OF

F32 = 0
SPECIALS = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<tool>"]
WORDS = [("h", "e"), ("l", "l"), ("he", "ll"), ("hell", "o"), ("\u0120", "hello"), ("\u0120", "\u0120")]
CHAT = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "<|im_start|>assistant{{ '\n' }}"
)


def text(value: str) -> bytes:
    data = value.encode()
    return struct.pack("<Q", len(data)) + data


def value(item: Any) -> bytes:
    """Type and content of one metadata value."""
    if isinstance(item, bool):
        return struct.pack("<I?", 7, item)
    if isinstance(item, int):
        return struct.pack("<II", 4, item)
    if isinstance(item, float):
        return struct.pack("<If", 6, item)
    if isinstance(item, str):
        return struct.pack("<I", 8) + text(item)
    if isinstance(item[0], str):
        return struct.pack("<IIQ", 9, 8, len(item)) + b"".join(map(text, item))
    letter, type_id = ("f", 6) if isinstance(item[0], float) else ("i", 5)
    return struct.pack(f"<IIQ{len(item)}{letter}", 9, type_id, len(item), *item)


def tensor(name: str, shape: tuple[int, ...], type_id: int, offset: int) -> bytes:
    return text(name) + struct.pack(f"<I{len(shape)}QIQ", len(shape), *shape, type_id, offset)


def gguf(
    metadata: dict[str, Any], tensors: list[tuple[str, tuple[int, ...], int, int]], data_bytes: int, alignment: int = 32
) -> bytes:
    head = b"GGUF" + struct.pack("<IQQ", 3, len(tensors), len(metadata))
    head += b"".join(text(key) + value(item) for key, item in metadata.items())
    head += b"".join(tensor(*info) for info in tensors)
    return head + bytes(-len(head) % alignment) + bytes(data_bytes)


def toy_metadata(**changes: Any) -> dict[str, Any]:
    """A byte-level vocabulary with a few words. `changes` use "__" for "."; None takes an entry away."""
    tokens = SPECIALS + sorted(BYTE_OF) + [left + right for left, right in WORDS] + ["[PAD0]"]
    types = [3, 3, 3, 4] + [1] * (len(tokens) - 5) + [5]
    metadata = {
        "general.architecture": "llama",
        "llama.block_count": 1,
        "llama.context_length": 64,
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": "smollm",
        "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.token_type": types,
        "tokenizer.ggml.merges": [f"{left} {right}" for left, right in WORDS],
        "tokenizer.ggml.eos_token_id": 2,
        "tokenizer.ggml.bos_token_id": 1,
        "tokenizer.chat_template": CHAT,
    }
    metadata |= {key.replace("__", "."): item for key, item in changes.items()}
    return {key: item for key, item in metadata.items() if item is not None}


def spm_metadata(**changes: Any) -> dict[str, Any]:
    """A SentencePiece vocabulary with a few words and all bytes."""
    words = ["\u2581", "h", "e", "l", "o", "he", "ll", "hell", "hello", "\u2581hello"]
    tokens = ["<unk>", "<s>", "</s>"] + [f"<0x{byte:02X}>" for byte in range(256)] + words
    metadata = toy_metadata(
        tokenizer__ggml__model="llama",
        tokenizer__ggml__tokens=tokens,
        tokenizer__ggml__token_type=[2, 3, 3] + [6] * 256 + [1] * len(words),
        tokenizer__ggml__scores=[0.0] * 259 + [-float(i) for i in range(len(words))],
        tokenizer__ggml__merges=None,
        tokenizer__ggml__unknown_token_id=0,
        tokenizer__ggml__add_space_prefix=False,
        tokenizer__chat_template=None,
    )
    return metadata | {key.replace("__", "."): item for key, item in changes.items()}


def toy_model(metadata: dict[str, Any] | None = None) -> bytes:
    """A whole file: the vocabulary and an embedding of width 4."""
    metadata = toy_metadata() if metadata is None else metadata
    width = len(metadata.get("tokenizer.ggml.tokens", "x"))
    return gguf(metadata, [("token_embd.weight", (4, width), F32, 0)], 16 * width)


def write_model(path: Path, metadata: dict[str, Any] | None = None) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(toy_model(metadata))
    return path
