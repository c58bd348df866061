"""Writes a small Hugging Face folder with the toy vocabulary. The weights are not weights. For tests only."""

import json
from pathlib import Path

from outrider.gguf_tokenizer import tokenizer_json
from tests.toy_gguf import toy_metadata


def hf_files() -> dict[str, bytes]:
    config = {"model_type": "llama", "vocab_size": 300, "max_position_embeddings": 64, "eos_token_id": 2}
    objects = {
        "config.json": config,
        "generation_config.json": {"eos_token_id": [2, 7]},
        "tokenizer.json": tokenizer_json(toy_metadata()),
        "tokenizer_config.json": {"bos_token": {"content": "<|im_start|>"}, "chat_template": "{{ bos_token }}hi"},
    }
    return {name: json.dumps(content).encode() for name, content in objects.items()} | {"model.safetensors": b"weights"}


def write_hf_folder(folder: Path) -> Path:
    folder.mkdir(parents=True)
    for name, content in hf_files().items():
        (folder / name).write_bytes(content)
    return folder
