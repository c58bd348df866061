"""Turns bare weights into a model folder: writes what text needs beside them and says what they are.

For a GGUF file that means building `tokenizer.json` and the chat template from the file's own metadata; for a Hugging
Face folder, reading its configuration. Loads no weights, fetches nothing, knows no store.
"""

import hashlib
import json
from pathlib import Path
from typing import Any

import msgspec

from outrider.errors import InvalidModel
from outrider.gguf_header import GgufHeader, read_header
from outrider.gguf_tokenizer import special_token, tokenizer_json
from outrider.manifest import CHAT_TEMPLATE, TOKENIZER, Manifest, Source, file_sha256
from outrider.tokens import TOKENIZER_CONFIG, fingerprint, parse_tokenizer

__all__ = ["describe_gguf", "describe_hf"]

END_TOKENS = ("<|im_end|>", "<|endoftext|>", "<end_of_turn>", "<eos>", "</s>")
CONFIG = "config.json"
GENERATION_CONFIG = "generation_config.json"


def describe_gguf(
    file: Path, folder: Path, *, name: str, licence: str, source: Source, sha256: str | None = None
) -> Manifest:
    """Write tokenizer and chat template of the GGUF `file` into `folder`; return the manifest, not yet written.

    `sha256` is the file's hash where the caller knows it already. Raises InvalidModel for a file that is no sound GGUF
    model or whose tokenizer cannot be read; then nothing was written, and no folder made.
    """
    header = read_header(file)
    metadata = header.metadata
    try:
        text = json.dumps(tokenizer_json(metadata), ensure_ascii=False, separators=(",", ":"))
        architecture = _field(metadata, "general.architecture", str)
        n_vocab = _logits_width(header)
        max_context = _field(metadata, f"{architecture}.context_length", int)
        tokenizer = parse_tokenizer(text)
    except InvalidModel as error:
        raise InvalidModel(f"{file} cannot be used: {error}") from None
    written = {TOKENIZER: text}
    marks = {f"{role}_token": special_token(metadata, role) for role in ("bos", "eos")}
    written[TOKENIZER_CONFIG] = json.dumps(marks, ensure_ascii=False, indent=2)
    template = metadata.get("tokenizer.chat_template")
    if isinstance(template, str):
        written[CHAT_TEMPLATE] = template
    folder.mkdir(parents=True, exist_ok=True)
    for written_name, content in written.items():
        (folder / written_name).write_text(content, encoding="utf-8", newline="")
    ends = [metadata.get(f"tokenizer.ggml.{role}_token_id") for role in ("eos", "eot", "eom")]
    return Manifest(
        name=name,
        format="gguf",
        architecture=architecture,
        file=file.name,
        files={file.name: sha256 or file_sha256(file)} | {other: file_sha256(folder / other) for other in written},
        source=source,
        licence=licence,
        n_vocab=n_vocab,
        max_context=max_context,
        stop_ids=_stop_ids(tokenizer, ends, n_vocab),
        tokenizer_fingerprint=fingerprint(tokenizer),
    )


def describe_hf(
    path: Path, folder: Path, *, name: str, licence: str, source: Source, files: dict[str, str]
) -> Manifest:
    """The manifest of the Hugging Face folder `path`, not yet written. `files` names what belongs to it, with hashes.

    A chat template that stands inside the tokenizer's configuration is written out as a file into `folder`. Raises
    InvalidModel; then nothing was written, and no folder made.
    """
    config = _read_json(path / CONFIG)
    if "auto_map" in config:
        raise InvalidModel(f"{path} needs code of its own to run, and such code is never run here; use another model")
    try:
        tokenizer = parse_tokenizer((path / TOKENIZER).read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidModel(f"{path / TOKENIZER} cannot be read ({error})") from None
    # the text part of a model that also sees has its own section
    text_config = config | config.get("text_config", {})
    n_vocab = _field(text_config, "vocab_size", int)
    generation = _read_json(path / GENERATION_CONFIG) if GENERATION_CONFIG in files else {}
    ends = [end for where in (config, generation) for end in _as_list(where.get("eos_token_id"))]
    inline = _read_json(path / TOKENIZER_CONFIG).get("chat_template") if TOKENIZER_CONFIG in files else None
    template = inline.encode() if isinstance(inline, str) and CHAT_TEMPLATE not in files else None
    if template is not None:
        files = files | {CHAT_TEMPLATE: hashlib.sha256(template).hexdigest()}
    manifest = Manifest(
        name=name,
        format="hf",
        architecture=_field(config, "model_type", str),
        file=".",
        files=files,
        source=source,
        licence=licence,
        n_vocab=n_vocab,
        max_context=_field(text_config, "max_position_embeddings", int),
        stop_ids=_stop_ids(tokenizer, ends, n_vocab),
        tokenizer_fingerprint=fingerprint(tokenizer),
    )
    folder.mkdir(parents=True, exist_ok=True)
    if template is not None:
        (folder / CHAT_TEMPLATE).write_bytes(template)
    return manifest


def _logits_width(header: GgufHeader) -> int:
    for name in ("output.weight", "token_embd.weight"):
        if name in header.tensors and len(header.tensors[name].shape) == 2:
            return header.tensors[name].shape[1]
    return len(header.metadata["tokenizer.ggml.tokens"])


def _stop_ids(tokenizer: Any, ends: list[Any], n_vocab: int) -> list[int]:
    """The ids that end an answer: those the model names, and well-known ones that are control tokens of it."""
    control = {token.content: i for i, token in tokenizer.get_added_tokens_decoder().items() if token.special}
    known = [control[token] for token in END_TOKENS if token in control]
    return sorted({end for end in ends if type(end) is int and 0 <= end < n_vocab} | set(known))


def _field(found: dict[str, Any], key: str, kind: type) -> Any:
    value = found.get(key)
    is_usable = 0 < value < 1 << 31 if type(value) is int else bool(value)
    if type(value) is not kind or not is_usable:
        raise InvalidModel(f"it says nothing usable about {key} ({value!r}); use another file")
    return value


def _as_list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def _read_json(path: Path) -> dict[str, Any]:
    try:
        value: dict[str, Any] = msgspec.json.decode(path.read_bytes(), type=dict[str, Any])
    except (OSError, ValueError, RecursionError) as error:
        raise InvalidModel(f"{path} cannot be read ({error})") from None
    return value
